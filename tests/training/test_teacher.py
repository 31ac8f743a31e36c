from __future__ import annotations

import contextlib
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from visual_transformers.checkpoints import weights
from visual_transformers.errors import ConfigError, UserError
from visual_transformers.models import vt_fpn, vt_resnet18
from visual_transformers.training.distillation import build_distillation

timm = pytest.importorskip("timm")
CLASSES = ["cat", "dog", "fox"]
DISTILLATION = {"_target_": "visual_transformers.training.distillation.Distillation", "share": 0.8, "temperature": 1.0}
TIMM = {"_target_": "timm.create_model", "model_name": "mobilenetv3_small_050", "num_classes": 3}


def node(teacher: dict[str, Any] | None = None, file: object = None) -> dict[str, Any]:
    return DISTILLATION | {"teacher": teacher, "weights": None if file is None else str(file)}


def about(target: str, classes: list[str] = CLASSES, **model: Any) -> dict[str, Any]:
    """Return the metadata of a weight file of this package."""
    config = {
        "name": "run",
        "task": {"_target_": "t"},
        "model": {"_target_": target} | model,
        "data": {"_target_": "d"},
    }
    return {"config": config, "classes": classes}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A trained VT-ResNet18 of three classes."""
    path = tmp_path / "best.safetensors"
    model = vt_resnet18(num_classes=3, token_channels=32)
    weights.save(path, model, about("visual_transformers.models.vt_resnet18", token_channels=32))
    return path


def test_the_model_of_a_weight_file_of_this_suite_is_a_teacher(file, capsys):
    teacher = build_distillation(node(file=file), classes=CLASSES).teacher
    assert isinstance(teacher, nn.Module)
    assert not teacher.training
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    saved = weights.read(file).tensors
    assert all(torch.equal(tensor, saved[name]) for name, tensor in teacher.state_dict().items())
    assert "teacher: " in capsys.readouterr().out


def test_a_segmenter_of_this_suite_is_a_teacher(tmp_path):
    path, settings = tmp_path / "best.safetensors", {"backbone": "resnet18", "token_channels": 32}
    weights.save(path, vt_fpn(num_classes=3, **settings), about("visual_transformers.models.vt_fpn", **settings))
    distillation = build_distillation(node(file=path), classes=CLASSES)
    distillation.check_output(torch.randn(1, 3, 64, 64), (1, 3, 64, 64))


def test_a_described_teacher_gets_the_weights_of_a_file(tmp_path):
    path = tmp_path / "teacher.pt"
    model = timm.create_model("mobilenetv3_small_050", num_classes=3)
    torch.save(model.state_dict(), path)
    distillation = build_distillation(node(TIMM, path), classes=CLASSES)
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(distillation.compute_logits(images), model.eval()(images))


def test_the_paper_s_teacher_takes_its_weights_from_a_file(tmp_path):
    path, described = tmp_path / "fbnetv3_g.pt", {"_target_": "timm.create_model", "model_name": "fbnetv3_g"}
    torch.save(timm.create_model("fbnetv3_g", num_classes=1000).state_dict(), path)
    distillation = build_distillation(node(described, path), classes=[str(i) for i in range(1000)])
    distillation.check_output(torch.randn(1, 3, 64, 64), (1, 1000))


def test_the_teacher_is_placed_by_the_caller(file):
    teacher = build_distillation(node(file=file), classes=CLASSES, place=lambda model: model.double()).teacher
    assert teacher is not None
    assert next(teacher.parameters()).dtype == torch.float64


@pytest.mark.parametrize("classes", [["cat", "fox", "dog"], ["cat", "dog"], ["cat", "dog", "owl"]])
def test_a_teacher_of_other_classes_or_of_another_order_is_refused(file, classes):
    with pytest.raises(ConfigError, match=r"^distillation\.weights=.*trained for 3 classes") as refused:
        build_distillation(node(file=file), classes=classes)
    assert "backbone_only" not in str(refused.value)


def test_weights_that_do_not_fit_the_described_teacher_are_refused(file):
    with pytest.raises(ConfigError, match=r"^distillation\.weights=.*do not fit MobileNetV3") as refused:
        build_distillation(node(TIMM, file), classes=CLASSES)
    assert "backbone_only" not in str(refused.value)


def test_weights_without_a_configuration_are_refused_without_a_teacher(tmp_path):
    path = tmp_path / "bare.pt"
    torch.save(vt_resnet18(num_classes=3, token_channels=32).state_dict(), path)
    with pytest.raises(ConfigError, match=r"^distillation\.weights=.*which model.*\+distillation\.teacher\._target_"):
        build_distillation(node(file=path), classes=CLASSES)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"^distillation\.weights=.*no such file"):
        build_distillation(node(file=tmp_path / "none.pt"), classes=CLASSES)


def test_neither_teacher_nor_weights_is_refused():
    with pytest.raises(ConfigError, match=r"there is no teacher.*distillation\.weights=PATH"):
        build_distillation(node(), classes=CLASSES)


def test_a_teacher_that_is_not_a_module_is_refused():
    with pytest.raises(ConfigError, match=r"distillation\.teacher\._target_=torch\.nn\.Parameter: .* returns a Module"):
        build_distillation(node({"_target_": "torch.nn.Parameter"}), classes=CLASSES)


def test_a_teacher_with_another_normalization_is_refused():
    described = {"_target_": "timm.create_model", "model_name": "mixer_s32_224", "num_classes": 3}
    with pytest.raises(ConfigError, match=r"mixer_s32_224 was trained on images of mean \(0\.5, 0\.5, 0\.5\)"):
        build_distillation(node(described), classes=CLASSES)


def test_an_unknown_teacher_is_refused_with_timm_s_message():
    described = TIMM | {"model_name": "fbnetv3_gg", "pretrained": True}
    with pytest.raises(ConfigError, match=r"distillation\.teacher: .*Unknown model \(fbnetv3_gg\)"):
        build_distillation(node(described), classes=CLASSES)


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Disconnect: no cache, no host name can be resolved, no waiting before a retry."""

    def unknown(*arguments: Any, **options: Any) -> Any:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr("socket.getaddrinfo", unknown)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    monkeypatch.setattr("torch.hub._hub_dir", str(tmp_path))
    with contextlib.suppress(ImportError):
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))


@pytest.mark.parametrize(
    ("described", "named", "key"),
    [
        (
            {"_target_": "timm.create_model", "model_name": "fbnetv3_g", "pretrained": True},
            "fbnetv3_g",
            "pretrained=false",
        ),
        (
            {"_target_": "torchvision.models.resnet101", "weights": "DEFAULT"},
            "torchvision.models.resnet101",
            "weights=null",
        ),
    ],
)
def test_a_failed_download_is_reported_with_what_to_do(no_network, described, named, key):
    with pytest.raises(UserError) as refused:
        build_distillation(node(described), classes=CLASSES)
    said = str(refused.value)
    assert f"the weights of {named} cannot be downloaded (" in said
    assert f"distillation.teacher.{key} distillation.weights=PATH" in said
    assert len(said.splitlines()) == 1


def test_a_failed_download_of_published_weights_is_reported_with_its_key(no_network):
    with pytest.raises(
        ConfigError, match=r"^distillation\.weights=torchvision:ResNet101_Weights.IMAGENET1K_V2: cannot"
    ):
        build_distillation(node(file="torchvision:ResNet101_Weights.IMAGENET1K_V2"), classes=CLASSES)
