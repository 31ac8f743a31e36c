"""Weight files of other programs: sound ones load, and the report says what is not used."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import save_file
from torch import Tensor

from visual_transformers import atomic
from visual_transformers.checkpoints import weights
from visual_transformers.checkpoints.loading import load_weights
from visual_transformers.errors import WeightsError
from visual_transformers.models import panoptic_fpn, resnet18

CLASSES = ["cat", "dog", "fox"]


@pytest.fixture(scope="module")
def tensors() -> dict[str, Tensor]:
    torch.manual_seed(3)
    return {name: tensor.contiguous() for name, tensor in resnet18(num_classes=3).state_dict().items()}


def load_resnet(path: Path) -> tuple[dict[str, Tensor], str]:
    """Load a file into a ResNet-18; return its tensors and the report."""
    model = resnet18(num_classes=3)
    report = load_weights(model, weights.read(path), backbone_only=False, classes=CLASSES)
    return model.state_dict(), str(report)


@pytest.mark.parametrize(
    ("key", "text", "note"),
    [
        ("version", "1.0.2", ""),
        ("config", "resnet18", "its configuration is not one of this package"),
        ("classes", "cat,dog", "its classes are not a list of names, and not used: cat,dog"),
        ("classes", '{"0": "cat"}', "its classes are not a list of names"),
        ("best", "0.9", ""),
        ("best", "[1", ""),
        ("config", '{"name": "x"}', "its configuration is not one of this package"),
    ],
)
def test_metadata_of_another_program_do_not_keep_the_weights_from_loading(tmp_path, tensors, key, text, note):
    save_file(tensors, tmp_path / "a.safetensors", {key: text})
    loaded, report = load_resnet(tmp_path / "a.safetensors")
    assert all(torch.equal(loaded[name], tensor) for name, tensor in tensors.items())
    assert note in report
    weights.save(tmp_path / "b.safetensors", resnet18(num_classes=3), weights.read_metadata(tmp_path / "a.safetensors"))


@pytest.mark.parametrize(
    ("companion", "name"),
    [
        (argparse.Namespace(lr=0.1), "argparse.Namespace"),
        (np.float64(0.9), "numpy"),
        (np.arange(3), "numpy"),
        (OmegaConf.create({"lr": 0.1}), "omegaconf.dictconfig.DictConfig"),
        (Path("x"), "pathlib"),
    ],
    ids=["namespace", "number", "array", "configuration", "path"],
)
@pytest.mark.parametrize("old_format", [False, True])
def test_an_object_next_to_the_weights_is_named_with_the_remedy(tmp_path, tensors, companion, name, old_format):
    path = tmp_path / "checkpoint.pt"
    torch.save({"state_dict": tensors, "args": companion}, path, _use_new_zipfile_serialization=not old_format)
    with pytest.raises(WeightsError, match=rf"contains a {name}\S* object next to the weights") as refused:
        weights.read(path)
    code = "import torch\n" + "\n".join(line.strip() for line in str(refused.value).splitlines()[1:])
    before = Path.cwd()
    try:
        os.chdir(tmp_path)
        exec(code)
    finally:
        os.chdir(before)
    assert len(load_resnet(tmp_path / "weights.pt")[0]) == len(tensors)


@pytest.mark.parametrize("prefix", ["net.", "model.", "module.model.", "module.", "encoder.backbone.", "_orig_mod."])
@pytest.mark.parametrize("container", [None, "state_dict", "model"])
def test_a_prefix_that_all_names_share_is_removed_and_reported(tmp_path, tensors, prefix, container):
    named: Any = {prefix + name: tensor for name, tensor in tensors.items()}
    torch.save(named if container is None else {container: named}, tmp_path / "a.pt")
    loaded, report = load_resnet(tmp_path / "a.pt")
    assert all(torch.equal(loaded[name], tensor) for name, tensor in tensors.items())
    silent = prefix in ("module.", "_orig_mod.")
    assert ("names begin with" in report) != silent


def test_a_prefix_of_some_names_stays(tmp_path, tensors):
    named = {f"net.{name}" if name.startswith("fc") else name: tensor for name, tensor in tensors.items()}
    torch.save(named, tmp_path / "a.pt")
    with pytest.raises(WeightsError, match=r"net\.fc\.weight"):
        load_resnet(tmp_path / "a.pt")


def test_names_of_another_model_keep_their_prefix_in_the_message(tmp_path):
    torch.save({"vit.block.weight": torch.zeros(2)}, tmp_path / "a.pt")
    with pytest.raises(WeightsError, match=r"vit\.block\.weight"):
        load_resnet(tmp_path / "a.pt")


def test_a_prefix_of_a_segmenter_is_removed(tmp_path):
    model = panoptic_fpn(num_classes=2, backbone="resnet18")
    torch.save({f"net.{name}": tensor for name, tensor in model.state_dict().items()}, tmp_path / "a.pt")
    other = panoptic_fpn(num_classes=2, backbone="resnet18")
    report = load_weights(other, weights.read(tmp_path / "a.pt"), backbone_only=False, classes=["a", "b"])
    assert "all its names begin with net." in str(report)
    assert torch.equal(other.state_dict()["backbone.conv1.weight"], model.state_dict()["backbone.conv1.weight"])


@pytest.mark.parametrize("key", ["model_ema", "state_dict_ema", "ema", "ema_state_dict"])
def test_a_moving_average_next_to_the_weights_is_reported(tmp_path, tensors, key):
    torch.save({"state_dict": tensors, key: tensors}, tmp_path / "a.pt")
    assert f"its moving average of the weights, under the key '{key}', is not used" in load_resnet(tmp_path / "a.pt")[1]


def test_the_folder_of_a_run_means_its_best_weights(tmp_path, tensors, monkeypatch):
    weights.save(tmp_path / "runs/x/checkpoints/best.safetensors", resnet18(num_classes=3), {})
    assert len(weights.read(tmp_path / "runs/x").tensors) == len(tensors)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len(weights.read("~/runs/x").tensors) == len(tensors)
    with pytest.raises(WeightsError, match="is a folder without"):
        weights.read(tmp_path / "runs")


@pytest.mark.parametrize("umask", [0o022, 0o002, 0o077])
def test_files_follow_the_umask(tmp_path, tensors, umask):
    before = os.umask(umask)
    try:
        weights.save(tmp_path / "a.safetensors", resnet18(num_classes=3), {})
        atomic.write_text(tmp_path / "b.json", json.dumps({}))
        (tmp_path / "plain").write_text("")
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert set(modes.values()) == {0o666 & ~umask}
