import re
from collections.abc import Callable

import pytest
import torch
import torchvision
from torch import Tensor, nn

from visual_transformers.checkpoints.key_mapping import map_keys, match_backbone_prefix

Shapes = dict[str, tuple[int, ...]]
Build = Callable[..., nn.Module]


def shapes(tensors: dict[str, Tensor]) -> Shapes:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


# The reference implementation's keys, compared with torchvision's and a list of the others


def resnet(name: str, layers: int) -> Shapes:
    """Return the shapes of torchvision's ResNet up to a layer, under `backbone.`."""
    with torch.device("meta"):
        model = getattr(torchvision.models, name)()
    later = tuple(f"layer{i}." for i in range(layers + 1, 5))
    return {f"backbone.{n}": s for n, s in shapes(model.state_dict()).items() if not n.startswith(("fc.", *later))}


def transformer(prefix: str) -> Shapes:
    return {
        f"{prefix}.key.weight": (512, 1024),
        f"{prefix}.query.weight": (512, 1024),
        f"{prefix}.value.weight": (1024, 1024),
        f"{prefix}.feed_1.weight": (1024, 1024),
        f"{prefix}.feed_2.weight": (1024, 1024),
    }


def branch(*channels: int) -> Shapes:
    finest: Shapes = {"branch.stages.0.0.0.weight": (128, channels[0], 3, 3), "branch.stages.0.0.0.bias": (128,)}
    classifier: Shapes = {"branch.classifier.weight": (10, 128, 1, 1), "branch.classifier.bias": (10,)}
    stages: Shapes = {}
    for level in (1, 2, 3):
        for step in range(level):
            stages[f"branch.stages.{level}.{step}.0.weight"] = (128, 128 if step else channels[level], 3, 3)
            for name in ("0.bias", "1.weight", "1.bias"):
                stages[f"branch.stages.{level}.{step}.{name}"] = (128,)
    return finest | stages | classifier


def lateral(level: int, channels: int) -> Shapes:
    name = f"pyramid.fpn.inner_blocks.{level}.0"
    return {f"{name}.weight": (256, channels, 1, 1), f"{name}.bias": (256,)}


def level_of_tokens(level: int, channels: int) -> Shapes:
    return {
        f"pyramid.vt.tokenizers.{level}.filters.weight": (8, channels),
        f"pyramid.vt.tokenizers.{level}.embed.weight": (1024, channels),
        f"pyramid.vt.projectors.{level}.query.weight": (channels, channels),
        f"pyramid.vt.projectors.{level}.key.weight": (channels, 1024),
        f"pyramid.vt.projectors.{level}.value.weight": (channels, 1024),
    }


LEVELS = tuple(enumerate((256, 512, 1024, 2048)))
EXPECTED: dict[str, Shapes] = {
    "resnet18": resnet("resnet18", 4) | {"fc.weight": (10, 512), "fc.bias": (10,)},
    "vt_resnet18": resnet("resnet18", 3)
    | transformer("vt.0.transformer")
    | transformer("vt.1.transformer")
    | {
        "vt.0.tokenizer.filters.weight": (16, 256),
        "vt.0.tokenizer.embed.weight": (1024, 256),
        "vt.0.projector.query.weight": (256, 256),
        "vt.0.projector.key.weight": (256, 1024),
        "vt.0.projector.value.weight": (256, 1024),
        "vt.1.tokenizer.token_to_filter.weight": (256, 1024),
        "vt.1.tokenizer.embed.weight": (1024, 256),
        "fc.weight": (10, 1024),
        "fc.bias": (10,),
    },
    "panoptic_fpn": resnet("resnet50", 4)
    | {name: shape for level in LEVELS for name, shape in lateral(*level).items()}
    | branch(256, 256, 256, 256),
    "vt_fpn": resnet("resnet50", 4)
    | transformer("pyramid.vt.transformer")
    | {name: shape for level in LEVELS for name, shape in level_of_tokens(*level).items()}
    | branch(256, 512, 1024, 2048),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_a_network_of_the_reference_implementation_gets_our_names_and_shapes(seed_net: Build, name: str) -> None:
    named = map_keys(seed_net(name).state_dict())
    assert shapes(named.tensors) == EXPECTED[name]
    assert (named.origin, named.model) == ("reference", f"seed_{name}")


@pytest.mark.parametrize("name", ["vt_resnet18", "vt_fpn"])
def test_weights_of_the_token_stage_may_be_bare_parameters(seed_net: Build, name: str) -> None:
    token_stage = r"(W_\w+|\w+_proj|f[12])\.weight$"
    tensors = {
        re.sub(token_stage, r"\1", n): t.squeeze(-1) if t.ndim == 3 else t
        for n, t in seed_net(name).state_dict().items()
    }
    assert "weight" not in next(n for n in tensors if "W_a" in n)
    assert shapes(map_keys(tensors).tensors) == EXPECTED[name]


def test_the_keys_of_a_resnet_stay() -> None:
    with torch.device("meta"):
        tensors = torchvision.models.resnet50().state_dict()
    named = map_keys(tensors)
    assert list(named.tensors) == list(tensors)
    assert (named.origin, named.model) == ("plain", None)


def test_the_keys_of_a_detector_become_ours() -> None:
    tensors = dict.fromkeys(
        ["backbone.body.conv1.weight", "backbone.fpn.layer_blocks.3.0.bias", "rpn.x"], torch.ones(1)
    )
    named = map_keys(tensors)
    assert list(named.tensors) == ["backbone.conv1.weight", "pyramid.fpn.layer_blocks.3.0.bias", "rpn.x"]
    assert named.origin == "detection"


# Prefixes


@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "module.module._orig_mod."]
)
def test_prefixes_of_wrappers_are_removed(prefix: str) -> None:
    tensors = {f"{prefix}conv1.weight": torch.ones(1), f"{prefix}fc.bias": torch.ones(1)}
    assert list(map_keys(tensors).tensors) == ["conv1.weight", "fc.bias"]


def test_a_prefix_that_not_every_name_has_stays() -> None:
    tensors = {"module.conv1.weight": torch.ones(1), "fc.bias": torch.ones(1)}
    assert list(map_keys(tensors).tensors) == list(tensors)


def test_the_keys_of_a_wrapped_model_become_those_of_the_model() -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    wrapped = torch.compile(nn.DataParallel(model))
    assert list(wrapped.state_dict()) == ["_orig_mod.module.0.weight", "_orig_mod.module.0.bias"]
    assert list(map_keys(wrapped.state_dict()).tensors) == list(model.state_dict())


@pytest.mark.parametrize(("given", "wanted"), [("fc.x", "backbone.fc.x"), ("backbone.fc.x", "fc.x"), ("fc.x", "fc.x")])
def test_a_backbones_prefix_may_be_on_either_side(given: str, wanted: str) -> None:
    assert list(match_backbone_prefix({given: torch.ones(1)}, [wanted])) == [wanted]


def test_an_exact_name_wins_over_one_with_another_prefix() -> None:
    tensors = {"backbone.x": torch.ones(1), "x": torch.zeros(1)}
    assert match_backbone_prefix(tensors, ["x"]) == tensors
    assert match_backbone_prefix(tensors, ["backbone.x"]) == tensors
    assert match_backbone_prefix(tensors, ["backbone.x", "x"]) == tensors
