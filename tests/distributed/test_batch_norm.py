from __future__ import annotations

import copy
import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from visual_transformers.distributed.batch_norm import (
    AcceleratorSyncBatchNorm,
    batch_norms,
    convert_sync_batch_norm,
    freeze_batch_norms,
)
from visual_transformers.errors import ConfigError
from visual_transformers.models import resnet18, vt_fpn, vt_resnet18

SCRIPT = Path(__file__).parents[1] / "support" / "batch_norm_processes.py"
SPLITS = {3: [(3, 0, 2), (1, 4, 0)], 2: [(5, 0), (2, 3)]}
"""World size -> number of images of each rank at each step."""
MODELS: dict[str, Callable[[], nn.Module]] = {
    "small": lambda: small(),
    "without weights, averaging all statistics": lambda: small(affine=False, momentum=None),
    "without statistics": lambda: small(track_running_stats=False),
    "vt_resnet18": lambda: vt_resnet18(num_classes=4, token_channels=32),
}


def small(**options: Any) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6, **options), nn.ReLU(), nn.Conv2d(6, 4, 3, stride=2),
        nn.BatchNorm2d(4, **options),
    )  # fmt: skip


def randomize(make: Callable[[], nn.Module]) -> nn.Module:
    """Build a model in float64 whose batch norms have random statistics, weights and biases."""
    model = make().double()
    for layer in batch_norms(model).values():
        for tensor in layer.state_dict().values():
            if tensor.is_floating_point():
                tensor.uniform_(0.5, 1.5)
    return model


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Models and batches, and the results of 3 processes and then of 2; one start serves all tests."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("processes")
    models = {name: randomize(make) for name, make in MODELS.items()}
    whole = [(torch.randn(5, 3, 32, 32).double() * 3 + 7, torch.randn(5, 4).double()) for _ in range(2)]
    steps = {
        world: [
            list(zip(*(t.split(sizes) for t in batch), strict=True)) for batch, sizes in zip(whole, splits, strict=True)
        ]
        for world, splits in SPLITS.items()
    }
    case = {"models": models, "wrapped": copy.deepcopy(models["small"]), "alone": nn.BatchNorm2d(3), "steps": steps}
    torch.save(case, folder / "case.pt")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    commands = [[sys.executable, str(SCRIPT), str(rank), str(folder)] for rank in range(3)]
    started = [subprocess.Popen(command, env=environment) for command in commands]
    assert [process.wait(timeout=240) for process in started] == [0, 0, 0]
    results = {world: [torch.load(folder / f"result{world}_{rank}.pt") for rank in range(world)] for world in SPLITS}
    return case | {"whole": whole, "results": results}


def close(found: Any, expected: Any) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def run_single_process(case: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """Return the results of one process with plain batch norms on the whole batches."""
    return runpy.run_path(str(SCRIPT))["record"](copy.deepcopy(case["models"][name]), case["whole"])


@pytest.mark.parametrize("world", SPLITS)
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.slow
def test_processes_with_different_numbers_of_images_compute_what_one_process_does(case, name, world):
    parts = [result[name] for result in case["results"][world]]
    for step, whole in enumerate(run_single_process(case, name)):
        found = [part[step] for part in parts]
        close(torch.cat([part["outputs"] for part in found]), whole["outputs"])
        close(torch.cat([part["images"] for part in found]), whole["images"])
        for parameter, gradient in whole["gradients"].items():
            close(sum(part["gradients"][parameter] for part in found), gradient)
        for part in found:
            close(part["state"], whole["state"])


@pytest.mark.parametrize("world", SPLITS)
@pytest.mark.slow
def test_gradients_that_ddp_averaged_are_those_of_one_process(case, world):
    for result in case["results"][world]:
        for found, whole in zip(result["ddp"], run_single_process(case, "small"), strict=True):
            close({name: world * g for name, g in found["gradients"].items()}, whole["gradients"])
            close(found["state"], whole["state"])


@pytest.mark.parametrize("world", SPLITS)
def test_one_value_on_all_ranks_is_refused_by_each_of_them(case, world):
    assert all("more than 1 value per channel" in result["one value"] for result in case["results"][world])


@pytest.mark.parametrize("world", SPLITS)
def test_a_batch_without_images_on_any_rank_does_not_change_the_statistics(case, world):
    for result in case["results"][world]:
        torch.testing.assert_close(result["no value"]["running_mean"], torch.zeros(3))
        torch.testing.assert_close(result["no value"]["running_var"], torch.ones(3))


def test_evaluation_does_not_communicate(case):
    """Rank 1 of 3 has no image in the first step, and ranks 0 and 2 have different ones."""
    for result, (images, _) in zip(case["results"][3], case["steps"][3][0], strict=True):
        torch.testing.assert_close(result["evaluation"], nn.BatchNorm2d(3).eval()(images.float()))


def test_in_a_single_process_a_synchronized_model_is_the_plain_one():
    plain = randomize(MODELS["small"])
    model = convert_sync_batch_norm(copy.deepcopy(plain))
    images = torch.randn(4, 3, 8, 8).double()
    for train in (True, False):
        assert torch.equal(model.train(train)(images), plain.train(train)(images))
    assert all(torch.equal(t, plain.state_dict()[name]) for name, t in model.state_dict().items())


def test_a_model_on_an_accelerator_gets_torch_s_own_layer():
    with torch.device("meta"):
        model = convert_sync_batch_norm(resnet18(num_classes=3))
    assert {type(layer) for layer in batch_norms(model).values()} == {AcceleratorSyncBatchNorm}
    assert isinstance(copy.deepcopy(model).bn1, nn.SyncBatchNorm)


def test_an_accelerator_s_layer_without_images_takes_part_in_full_precision(monkeypatch):
    """The layer gathers the type of its images, but the statistics of the other ranks are float32."""
    seen = []
    monkeypatch.setattr(nn.SyncBatchNorm, "forward", lambda self, x: seen.append(x.dtype) or x)
    for images in (0, 2):
        out = AcceleratorSyncBatchNorm(3)(torch.zeros(images, 3, 2, 2, dtype=torch.bfloat16))
        assert (out.dtype, len(out)) == (torch.bfloat16, images)
    assert seen == [torch.float32, torch.bfloat16]


def test_batch_norms_with_an_activation_are_refused():
    class AndActivation(nn.BatchNorm2d):
        pass

    with pytest.raises(ConfigError, match=r"batch_norm\.sync=true: .*AndActivation.*batch_norm\.sync=false"):
        convert_sync_batch_norm(nn.Sequential(nn.BatchNorm2d(2), AndActivation(2)))


def train_one_step(model: nn.Module, size: int = 64) -> nn.Module:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1)
    model.train()(torch.randn(2, 3, size, size)).square().sum().backward()
    optimizer.step()
    return model


@pytest.mark.parametrize("copied", [False, True])
@pytest.mark.parametrize("order", ["alone", "before sync", "after sync"])
def test_frozen_batch_norms_neither_learn_nor_count_when_the_model_trains(order, copied):
    model = resnet18(num_classes=3)
    names = list(model.state_dict())
    if order == "after sync":
        convert_sync_batch_norm(model)
    freeze_batch_norms(model, ["layer1", "layer2.0.bn1"])
    if order == "before sync":
        convert_sync_batch_norm(model)
    model = copy.deepcopy(model) if copied else model
    before = {name: t.clone() for name, t in model.state_dict().items()}
    after = train_one_step(model).state_dict()
    assert list(after) == names
    layers = [f"{name}." for name in batch_norms(model)]
    same = {name for name in after if torch.equal(after[name], before[name]) and name.startswith(tuple(layers))}
    assert same == {name for name in names if name.startswith(("layer1.0.bn", "layer1.1.bn", "layer2.0.bn1."))}


def test_a_prefix_is_the_path_of_a_module():
    model = nn.ModuleDict({name: nn.Sequential(nn.BatchNorm2d(2)) for name in ("backbone", "backbone2")})
    freeze_batch_norms(model, ["backbone"])
    model.train()
    assert [layer.training for layer in batch_norms(model).values()] == [False, True]


def test_all_batch_norms_of_a_segmenter_s_backbone_are_frozen():
    model = vt_fpn(num_classes=3, backbone="resnet18", token_channels=32)
    freeze_batch_norms(model, ["backbone"])
    assert not any(layer.training for layer in batch_norms(model.train()).values())
    assert model.backbone.training


def test_freezing_twice_is_freezing_once():
    model = nn.Sequential(nn.BatchNorm2d(2))
    freeze_batch_norms(model, ["0", "0"])
    kind = type(model[0])
    freeze_batch_norms(model, ["0"])
    assert type(model[0]) is kind


def test_frozen_batch_norms_stay_as_they_are_in_an_average():
    model = resnet18(num_classes=3)
    freeze_batch_norms(model, ["layer1"])
    average = AveragedModel(model, use_buffers=True)
    assert not average.train().module.layer1[0].bn1.training
    for name, layer in batch_norms(average.module).items():
        assert type(layer) is type(model.get_submodule(name))


def test_a_frozen_layer_normalises_by_its_statistics():
    layer = randomize(lambda: nn.BatchNorm2d(3))
    images = torch.randn(2, 3, 4, 4).double()
    expected = copy.deepcopy(layer).eval()(images)
    model = nn.Sequential(layer)
    freeze_batch_norms(model, ["0"])
    assert torch.equal(model.train()(images), expected)


@pytest.mark.parametrize(
    ("model", "named"),
    [
        (lambda: vt_resnet18(num_classes=3, token_channels=32), r"backbone, backbone\.bn1, backbone\.layer1"),
        (lambda: resnet18(num_classes=3), "bn1, layer1, layer2"),
        (lambda: nn.Linear(2, 2), "none at all"),
    ],
)
def test_a_prefix_without_a_batch_norm_is_refused_with_alternatives(model, named):
    with pytest.raises(ConfigError, match=rf"batch_norm\.frozen=\[backbon\]: .*{named}"):
        freeze_batch_norms(model(), ["backbon"])
