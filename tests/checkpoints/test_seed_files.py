"""The reference implementation's files, from the disk to equal logits of our models."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import Tensor, nn

from visual_transformers.checkpoints import weights
from visual_transformers.errors import WeightsError

CLASSES = list("abcdefghij")
VARIANTS = ("resnet18", "vt_resnet18", "panoptic_fpn", "vt_fpn")
Build = Callable[..., nn.Module]


@pytest.fixture
def variant(composed: Callable[..., DictConfig]) -> Build:
    """Builds the model of a configuration file `seed_NAME`."""

    def build(name: str) -> nn.Module:
        task = "segmentation" if name.endswith("fpn") else "classification"
        return instantiate(composed(f"task={task}", f"model=seed_{name}").model, num_classes=10)

    return build


def bare(tensors: dict[str, Tensor]) -> dict[str, object]:
    return tensors


def checkpoint(tensors: dict[str, Tensor]) -> dict[str, object]:
    return {"model_state_dict": tensors, "optimizer_state_dict": {"state": {}, "param_groups": []}, "epoch": 14}


def saved(path: Path, net: nn.Module, form: Callable[[dict[str, Tensor]], dict[str, object]] = bare) -> Path:
    torch.save(form(net.state_dict()), path)
    return path


@torch.inference_mode()
def assert_same_logits(model: nn.Module, net: nn.Module) -> None:
    """Float64, so that the order of a product is no excuse."""
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    expected = net.double()(images)
    actual = model.double().eval()(images)
    assert expected.std() > 0.01 * expected.abs().max()
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-7 * expected.abs().max().item())


@pytest.mark.parametrize("form", [bare, checkpoint])
@pytest.mark.parametrize("name", VARIANTS)
def test_a_file_of_the_reference_implementation_gives_its_logits(
    tmp_path: Path, seed_net: Build, variant: Build, name: str, form: Callable[[dict[str, Tensor]], dict[str, object]]
) -> None:
    net, model = seed_net(name), variant(name)
    file = weights.read(saved(tmp_path / "weights.pth", net, form))
    said = weights.load(model, file, backbone_only=False, classes=CLASSES)
    assert said.kept == said.skipped == []
    assert ("optimizer state is not used" in str(said)) == (form is checkpoint)
    assert_same_logits(model, net)


@pytest.mark.parametrize("name", ["panoptic_fpn", "vt_fpn"])
def test_branch_convolutions_without_bias_give_the_same_logits(
    tmp_path: Path, seed_net: Build, variant: Build, name: str
) -> None:
    net, model = seed_net(name, branch_bias=False), variant(name)
    file = weights.read(saved(tmp_path / "weights.pth", net))
    said = weights.load(model, file, backbone_only=False, classes=CLASSES)
    assert "6 biases of convolutions are zero, for the file has none: branch.stages.1.0.0.bias," in str(said)
    assert_same_logits(model, net)


@pytest.mark.parametrize("name", ["vt_resnet18", "panoptic_fpn", "vt_fpn"])
def test_other_class_count_is_refused_without_the_advice_to_choose_the_model_at_hand(
    seed_net: Build, variant: Build, name: str
) -> None:
    file = weights.WeightFile(Path("seed.pth"), seed_net(name, classes=12).state_dict())
    with pytest.raises(WeightsError, match=r"(?s)2 of another shape.*backbone_only=true") as caught:
        weights.load(variant(name), file, backbone_only=False, classes=CLASSES)
    assert "model=" not in str(caught.value)


@pytest.mark.parametrize("name", ["panoptic_fpn", "vt_fpn"])
def test_a_segmenters_file_brings_a_note_on_its_labels(seed_net: Build, variant: Build, name: str) -> None:
    file = weights.WeightFile(Path("seed.pth"), seed_net(name).state_dict())
    said = weights.load(variant(name), file, backbone_only=False, classes=CLASSES)
    assert "output i is class i + 1 of COCO-Stuff's 91 stuff classes" in str(said)


@pytest.mark.parametrize("name", ["panoptic_fpn", "vt_fpn"])
def test_a_segmenters_outputs_are_moved_to_the_classes_that_they_were_taught(
    seed_net: Build, variant: Build, name: str
) -> None:
    file = weights.WeightFile(Path("seed.pth"), seed_net(name).state_dict())
    left, moved = variant(name).eval(), variant(name).eval()
    weights.load(left, file, backbone_only=False, classes=CLASSES, category_ids=list(range(1, 11)))
    said = weights.load(moved, file, backbone_only=False, classes=CLASSES, category_ids=list(range(92, 183)))
    assert "its outputs were moved on by one, so that output i is class i" in str(said)
    images = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(moved(images), left(images)[:, [9, *range(9)]])
