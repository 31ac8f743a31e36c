"""Files of the reference implementation give the same logits in our models."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import Tensor, nn

from visual_transformers.checkpoints import weights
from visual_transformers.checkpoints.loading import load_weights
from visual_transformers.checkpoints.weights import WeightFile
from visual_transformers.errors import WeightsError

CLASSES = list("abcdefghij")
VARIANTS = ("resnet18", "vt_resnet18", "panoptic_fpn", "vt_fpn")
Build = Callable[..., nn.Module]


@pytest.fixture
def variant(composed: Callable[..., DictConfig]) -> Build:
    """Build the model of a configuration file `seed_NAME`."""

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
    """Compare in float64, where the order of sums hardly matters."""
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
    report = load_weights(model, file, backbone_only=False, classes=CLASSES)
    assert report.not_loaded == report.unused == []
    assert ("optimizer state is not used" in str(report)) == (form is checkpoint)
    assert_same_logits(model, net)


@pytest.mark.parametrize("name", ["panoptic_fpn", "vt_fpn"])
def test_branch_convolutions_without_bias_give_the_same_logits(
    tmp_path: Path, seed_net: Build, variant: Build, name: str
) -> None:
    net, model = seed_net(name, branch_bias=False), variant(name)
    file = weights.read(saved(tmp_path / "weights.pth", net))
    report = load_weights(model, file, backbone_only=False, classes=CLASSES)
    assert "6 biases of convolutions are zero, because the file has none: branch.stages.1.0.0.bias," in str(report)
    assert_same_logits(model, net)


@pytest.mark.parametrize("name", ["vt_resnet18", "panoptic_fpn", "vt_fpn"])
def test_another_class_count_is_refused_without_the_hint_to_choose_this_model(
    seed_net: Build, variant: Build, name: str
) -> None:
    file = WeightFile(Path("seed.pth"), seed_net(name, classes=12).state_dict())
    with pytest.raises(WeightsError, match=r"(?s)2 of another shape.*backbone_only=true") as caught:
        load_weights(variant(name), file, backbone_only=False, classes=CLASSES)
    assert "model=" not in str(caught.value)


@pytest.mark.parametrize("name", ["panoptic_fpn", "vt_fpn"])
def test_a_segmenters_file_brings_a_note_on_its_labels(seed_net: Build, variant: Build, name: str) -> None:
    file = WeightFile(Path("seed.pth"), seed_net(name).state_dict())
    report = load_weights(variant(name), file, backbone_only=False, classes=CLASSES)
    assert "output i is class i + 1 of COCO-Stuff's 91 stuff classes" in str(report)


@pytest.mark.parametrize("name", ["panoptic_fpn", "vt_fpn"])
def test_the_outputs_of_a_segmenter_are_shifted_to_their_classes(seed_net: Build, variant: Build, name: str) -> None:
    file = WeightFile(Path("seed.pth"), seed_net(name).state_dict())
    left, moved = variant(name).eval(), variant(name).eval()
    load_weights(left, file, backbone_only=False, classes=CLASSES, category_ids=list(range(1, 11)))
    report = load_weights(moved, file, backbone_only=False, classes=CLASSES, category_ids=list(range(92, 183)))
    assert "outputs were shifted by one, so that output i is class i" in str(report)
    images = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(moved(images), left(images)[:, [9, *range(9)]])
