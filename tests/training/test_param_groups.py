from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from visual_transformers.config.instantiate import build
from visual_transformers.config.schema import ParameterSettings
from visual_transformers.config.validation import validate
from visual_transformers.errors import ConfigError
from visual_transformers.models import VTResNet, vt_fpn
from visual_transformers.training import lr_schedules
from visual_transformers.training.param_groups import base_lr, param_groups


@pytest.fixture
def model() -> nn.Module:
    backbone = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1))
    head = nn.Sequential(nn.GroupNorm(2, 4), nn.Linear(4, 2), nn.LayerNorm(2))
    return nn.ModuleDict({"backbone": backbone, "head": head})


def describe_groups(model: nn.Module, lr=0.1, weight_decay=0.5, **settings):
    """Return learning rate, weight decay and parameter names of each group."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    found = param_groups(model, ParameterSettings(**settings), lr=lr, weight_decay=weight_decay)
    return [(group["lr"], group["weight_decay"], [names[p] for p in group["params"]]) for group in found]


def test_default_settings_give_one_group_of_all_parameters(model):
    assert describe_groups(model) == [(0.1, 0.5, [name for name, _ in model.named_parameters()])]


def test_norms_are_the_affine_maps_of_norm_layers_and_biases_those_of_others(model):
    norms = ["backbone.1.weight", "backbone.1.bias", "head.0.weight", "head.0.bias", "head.2.weight", "head.2.bias"]
    biases = ["backbone.0.bias", "backbone.2.bias", "head.1.bias"]
    assert describe_groups(model, no_decay=["norms"])[1] == (0.1, 0.0, norms)
    assert describe_groups(model, no_decay=["biases"])[1] == (0.1, 0.0, biases)
    assert sorted(describe_groups(model, no_decay=["norms", "biases"])[1][2]) == sorted(norms + biases)


@pytest.mark.parametrize(
    "norm",
    [
        nn.BatchNorm1d(4), nn.BatchNorm3d(4), nn.SyncBatchNorm(4), nn.InstanceNorm2d(4, affine=True),
        nn.GroupNorm(2, 4), nn.LayerNorm(4), nn.RMSNorm(4),
    ],
    ids=lambda norm: type(norm).__name__,
)  # fmt: skip
def test_every_norm_layer_of_torch_is_known(norm):
    [(_, decay, names)] = describe_groups(norm, no_decay=["norms"])
    assert decay == 0
    assert names == [name for name, _ in norm.named_parameters()]


def test_the_longest_prefix_wins_and_the_order_is_the_model_s(model):
    found = describe_groups(model, lr_factors={"backbone": 0.1, "backbone.2": 2.0})
    assert [(rate, names[0], len(names)) for rate, _, names in found] == [
        (pytest.approx(0.01), "backbone.0.weight", 4), (pytest.approx(0.2), "backbone.2.weight", 2),
        (0.1, "head.0.weight", 6),
    ]  # fmt: skip


def test_each_pair_of_rate_and_decay_has_a_group_and_no_other(model):
    found = describe_groups(model, lr_factors={"backbone": 0.1}, no_decay=["norms"])
    assert sorted((rate, decay) for rate, decay, _ in found) == [
        (0.1 * 0.1, 0.0),
        (0.1 * 0.1, 0.5),
        (0.1, 0),
        (0.1, 0.5),
    ]
    assert len(describe_groups(model, weight_decay=0.0, no_decay=["norms", "biases"])) == 1


def test_parameters_without_gradient_are_omitted(model):
    model["backbone"].requires_grad_(False)
    [(_, _, names)] = describe_groups(model, lr_factors={"backbone": 0.1})
    assert all(name.startswith("head.") for name in names)


def test_a_parameter_that_layers_share_comes_once():
    first, second = nn.Linear(3, 3), nn.Linear(3, 3)
    second.weight = first.weight
    [(_, _, names)] = describe_groups(nn.Sequential(first, second))
    assert names == ["0.weight", "0.bias", "1.bias"]


def test_a_parametrised_layer_s_own_parameters_are_grouped():
    layer = parametrizations.weight_norm(nn.Linear(3, 3))
    assert sum(len(names) for _, _, names in describe_groups(layer, no_decay=["biases"])) == len(
        list(layer.parameters())
    )


def test_every_parameter_of_a_model_is_in_exactly_one_group():
    fpn = vt_fpn(num_classes=3, backbone="resnet18", token_channels=32)
    found = param_groups(
        fpn, ParameterSettings(no_decay=["norms", "biases"], lr_factors={"backbone": 0.1}), lr=1, weight_decay=1
    )
    parameters = [p for group in found for p in group["params"]]
    assert len(parameters) == len({id(p) for p in parameters})
    assert {id(p) for p in parameters} == {id(p) for p in fpn.parameters()}


@pytest.mark.parametrize(
    ("model", "prefix"),
    [
        (vt_fpn(num_classes=3, backbone="resnet18", token_channels=32), "pyramid.vt."),
        (VTResNet(num_classes=3, token_channels=32), "vt."),
    ],
    ids=["vt_fpn", "vt_resnet18"],
)
def test_the_factor_of_the_vt_modules_applies_to_all_their_parameters_and_to_no_other(model, prefix):
    rates = {name: rate for rate, _, names in describe_groups(model, vt_lr_factor=0.25) for name in names}
    assert {name for name, rate in rates.items() if rate == 0.25 * 0.1} == {n for n in rates if n.startswith(prefix)}
    assert set(rates.values()) == {0.1, 0.25 * 0.1}


def test_the_factor_of_the_vt_modules_multiplies_those_of_their_names():
    model = VTResNet(num_classes=3, token_channels=32)
    found = describe_groups(model, vt_lr_factor=0.5, lr_factors={"vt.1": 0.1, "fc": 2.0})
    rates = {name: rate for rate, _, names in found for name in names}
    assert rates["vt.0.tokenizer.filters.weight"] == pytest.approx(0.05)
    assert rates["vt.1.transformer.feed_1.weight"] == pytest.approx(0.005)
    assert rates["fc.bias"] == pytest.approx(0.2)


def test_the_factor_of_the_vt_modules_changes_nothing_in_a_model_without(model):
    assert describe_groups(model, vt_lr_factor=0.1) == describe_groups(model)


def test_only_adamw_lowers_the_learning_rate_of_the_vt_modules(composed):
    factors = {name: composed(f"optimizer={name}").parameters.vt_lr_factor for name in ("adamw", "sgd", "rmsprop")}
    assert factors == {"adamw": 0.1, "sgd": 1.0, "rmsprop": 1.0}


def test_an_unknown_prefix_is_refused_with_the_known_ones(model):
    with pytest.raises(
        ConfigError,
        match=r"parameters\.lr_factors\.backbne: no parameter name has this prefix\. .* backbone, head\.$",
    ):
        describe_groups(model, lr_factors={"backbne": 0.1})


def test_factors_without_a_base_learning_rate_are_refused(model):
    with pytest.raises(ConfigError, match=r"parts of optimizer\.lr, which is not set"):
        param_groups(model, ParameterSettings(lr_factors={"head": 0.1}), lr=None, weight_decay=None)
    with pytest.raises(ConfigError, match=r"parts of optimizer\.lr, which is not set"):
        param_groups(model, ParameterSettings(vt_lr_factor=0.1), lr=None, weight_decay=None)


@pytest.mark.parametrize("target", ["torch.optim.SGD", "torch.optim.AdamW", "timm.optim.RMSpropTF", "timm.optim.Lion"])
def test_any_optimizer_takes_the_groups_and_keeps_its_own_defaults(model, target):
    found = param_groups(model, ParameterSettings(no_decay=["norms"]), lr=None, weight_decay=None)
    optimizer = build({"_target_": target}, "optimizer", params=found)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [optimizer.defaults["weight_decay"], 0.0]
    assert {group["lr"] for group in optimizer.param_groups} == {optimizer.defaults["lr"]}


def test_weights_without_decay_stay_the_same_at_zero_gradient(model):
    optimizer = torch.optim.SGD(
        param_groups(model, ParameterSettings(no_decay=["norms"]), lr=0.1, weight_decay=0.5), lr=0.1
    )
    for parameter in model.parameters():
        nn.init.ones_(parameter)
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert torch.equal(model["head"][0].weight, torch.ones(4))
    torch.testing.assert_close(model["head"][1].weight, torch.full((2, 4), 0.95))


SCHEDULES = {
    lr_schedules.cosine: {"final_lr": 0.01},
    lr_schedules.polynomial: {},
    lr_schedules.step: {"every_epochs": 1},
    lr_schedules.multi_step: {"milestones": [0.5, 0.75]},
    lr_schedules.constant: {},
}


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda schedule: schedule.__name__)
@pytest.mark.parametrize("warmup_epochs", [0, 1])
def test_a_schedule_keeps_the_ratio_of_learning_rates(model, schedule, warmup_epochs):
    def rates(**settings):
        optimizer = torch.optim.SGD(param_groups(model, ParameterSettings(**settings), lr=0.3, weight_decay=0), lr=0.3)
        changes = schedule(
            optimizer, steps_per_epoch=5, total_steps=20, warmup_epochs=warmup_epochs, **SCHEDULES[schedule]
        )
        for _ in range(20):
            yield base_lr(optimizer), [group["lr"] for group in optimizer.param_groups]
            optimizer.step()
            changes.step()

    factors = {"backbone.0": 0.1, "backbone.1": 3.0}
    for (full, same), (also_full, several) in zip(rates(), rates(lr_factors=factors), strict=True):
        assert also_full == full == same[0]
        assert several == pytest.approx([0.1 * full, 3 * full, full], rel=1e-12)


def test_the_base_learning_rate_is_known_even_if_no_group_has_it(model):
    optimizer = torch.optim.SGD(
        param_groups(model, ParameterSettings(lr_factors={"": 0.1}), lr=0.3, weight_decay=0), lr=0.3
    )
    assert base_lr(optimizer) == pytest.approx(0.3, rel=1e-15)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("+parameters.lr_factors.head=0", ["parameters.lr_factors.head=0", "above 0, and finite"]),
        ("+parameters.lr_factors.head=-1", ["parameters.lr_factors.head=-1", "above 0"]),
        ("+parameters.lr_factors.head=inf", ["parameters.lr_factors.head=inf", "finite"]),
        ("+parameters.lr_factors={head.fc:nan}", ["parameters.lr_factors.head.fc=nan", "finite"]),
        ("+parameters.lr_factors.head=a", ["parameters.lr_factors={'head': 'a'}", "expected a float for each name"]),
        ("parameters.vt_lr_factor=0", ["parameters.vt_lr_factor=0", "above 0"]),
        ("parameters.lr_factors=0.1", ["parameters.lr_factors=0.1", "as {NAME: 0.5}"]),
        ("parameters.no_decay=[norm]", ["parameters.no_decay=[norm]", "norms, biases"]),
        ("parameters.no_decay=norms", ["parameters.no_decay=norms", "a list of norms, biases"]),
        ("+parameters.decay=1", ["parameters.decay", "no such key"]),
    ],
)
def test_a_wrong_setting_of_parameters_is_refused_by_name(composed, override, words):
    with pytest.raises(ConfigError) as refused:
        validate(composed(override))
    assert all(word in str(refused.value) for word in words), str(refused.value)
