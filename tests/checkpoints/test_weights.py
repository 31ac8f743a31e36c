"""Reading and writing weight files."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from tests.support.weight_files import CLASSES, Tiny, assert_same, copy_state, make_config

from visual_transformers.checkpoints import weights
from visual_transformers.errors import WeightsError


def test_saved_tensors_are_read_back(tmp_path: Path) -> None:
    model, path = Tiny(), tmp_path / "model.safetensors"
    weights.save(path, model, {})
    for given in (path, str(path)):
        assert weights.read(given).path == path
        assert_same(weights.read(given).tensors, copy_state(model))


@pytest.mark.parametrize("name", ["model.safetensors", "model.pt"])
def test_metadata_can_be_read_with_and_without_the_tensors(tmp_path: Path, name: str) -> None:
    path, metadata = tmp_path / name, {"classes": ["cat", "Hund", "狐"], "config": make_config(tokens=8), "best": 0.5}
    if path.suffix == ".pt":
        torch.save({"model": Tiny().state_dict(), **metadata}, path)
    else:
        weights.save(path, Tiny(), metadata)
    assert weights.read_metadata(path) == weights.read(path).metadata == metadata


@pytest.mark.parametrize(
    "foreign",
    [{"lr": 0.1}, ["lr"], "resnet50", {**make_config(), "model": "resnet50"}, {**make_config(), "name": None}],
)
def test_configuration_of_another_program_is_dropped(tmp_path: Path, foreign: object) -> None:
    torch.save({"model": Tiny().state_dict(), "config": foreign}, tmp_path / "model.pt")
    assert weights.read(tmp_path / "model.pt").metadata == {}


@pytest.mark.parametrize("zipped", [True, False])
def test_metadata_of_a_torch_file_are_read_without_its_tensors_if_the_format_allows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zipped: bool
) -> None:
    content, mapped = {"model": Tiny().state_dict(), "classes": CLASSES}, []
    torch.save(content, tmp_path / "model.pt", _use_new_zipfile_serialization=zipped)
    load = torch.load
    monkeypatch.setattr(
        torch, "load", lambda *given, **options: mapped.append(options["mmap"]) or load(*given, **options)
    )
    assert weights.read_metadata(tmp_path / "model.pt") == {"classes": CLASSES}
    assert mapped == [zipped]


def test_saved_file_is_plain_safetensors(tmp_path: Path) -> None:
    model = Tiny()
    weights.save(tmp_path / "model.safetensors", model, {"classes": CLASSES})
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert set(file.keys()) == set(model.state_dict())
        assert file.metadata() == {"classes": '["cat", "dog", "fox"]'}


def test_saving_replaces_a_file_and_leaves_nothing_else(tmp_path: Path) -> None:
    first, second = Tiny(), Tiny()
    for model in (first, second):
        weights.save(tmp_path / "model.safetensors", model, {})
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]
    assert_same(weights.read(tmp_path / "model.safetensors").tensors, copy_state(second))


def test_failed_save_keeps_the_file_before(tmp_path: Path) -> None:
    model, path = Tiny(), tmp_path / "model.safetensors"
    weights.save(path, model, {})
    with pytest.raises(TypeError):
        weights.save(path, Tiny(), {"classes": {1, 2}})  # a set is not JSON
    assert_same(weights.read(path).tensors, copy_state(model))


@pytest.mark.parametrize("key", [None, "model", "model_state_dict", "state_dict"])
def test_bare_state_dicts_and_checkpoints_of_other_programs_are_read(tmp_path: Path, key: str | None) -> None:
    model = Tiny()
    torch.save({key: model.state_dict(), "epoch": 3} if key else model.state_dict(), tmp_path / "model.pt")
    assert_same(weights.read(tmp_path / "model.pt").tensors, copy_state(model))


def test_checkpoint_with_key_model_is_read(tmp_path: Path) -> None:
    model = Tiny()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    torch.save(
        {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "classes": CLASSES, "step": 7},
        tmp_path / "checkpoint.pt",
    )
    read = weights.read(tmp_path / "checkpoint.pt")
    assert_same(read.tensors, copy_state(model))
    assert read.metadata == {"classes": CLASSES}


def test_folder_without_best_weights_is_refused(tmp_path: Path) -> None:
    message = f"weights={tmp_path}: is a folder without checkpoints/best.safetensors"
    with pytest.raises(WeightsError, match=re.escape(message)):
        weights.read(tmp_path)


@pytest.mark.parametrize("name", ["absent.pt", "absent.safetensors"])
def test_missing_file_is_refused_with_its_path(tmp_path: Path, name: str) -> None:
    with pytest.raises(WeightsError, match=re.escape(f"weights={tmp_path / name}: no such file")):
        weights.read(tmp_path / name)


NOT_A_WEIGHT_FILE = re.escape(
    "not a weight file, or damaged. Expected safetensors, or a state_dict saved by torch.save"
)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("name", ["model.safetensors", "model.pt"])
def test_truncated_file_is_refused_as_damaged(tmp_path: Path, name: str, share: float) -> None:
    path = tmp_path / name
    if path.suffix == ".pt":
        torch.save(Tiny().state_dict(), path)
    else:
        weights.save(path, Tiny(), {})
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(WeightsError, match=rf"weights={re.escape(str(path))}: {NOT_A_WEIGHT_FILE}"):
        weights.read(path)


def test_file_of_torchs_old_format_truncated_anywhere_is_refused_as_damaged(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save(Tiny().state_dict(), path, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    for end in range(0, len(content), 7):
        path.write_bytes(content[:end])
        with pytest.raises(WeightsError, match=NOT_A_WEIGHT_FILE):
            weights.read(path)


@pytest.mark.parametrize("name", ["model.pt", "photo.jpg", "model.safetensors"])
@pytest.mark.parametrize(
    "content",
    [b"<!DOCTYPE html>\n", b"version https://git-lfs.github.com/\n", b"hello\n", b"\xff\xd8\xff\xe0\0\x10JFIF"],
)
def test_file_of_another_kind_is_refused_without_advice_to_run_it(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=rf"^weights={re.escape(str(tmp_path / name))}: {NOT_A_WEIGHT_FILE}$"):
        weights.read(tmp_path / name)


class Touch:
    """Object that creates a file when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.path,)


def test_code_in_a_pickle_would_run_if_nothing_refused_it(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps({"a": Touch(tmp_path / "ran")}))
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "write",
    [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content, protocol=2))],
    ids=["torch", "pickle"],
)
def test_pickle_with_code_is_refused_and_not_run(tmp_path: Path, write: Callable[[Any, Path], object]) -> None:
    write({"body.weight": torch.ones(1), "more": Touch(tmp_path / "ran")}, tmp_path / "model.pt")
    with pytest.raises(WeightsError, match=NOT_A_WEIGHT_FILE):
        weights.read(tmp_path / "model.pt")
    assert not (tmp_path / "ran").exists()


def test_pickled_model_is_refused(tmp_path: Path) -> None:
    torch.save(Tiny(), tmp_path / "model.pt")
    with pytest.raises(WeightsError, match=r"contains a \S+\.Tiny object next to the weights"):
        weights.read(tmp_path / "model.pt")


@pytest.mark.parametrize(
    "content", [torch.ones(2), [torch.ones(2)], {}, {"model": {}}, {"a": 1}, {"model": torch.ones(2), "b": 1}]
)
def test_file_without_a_state_dict_is_refused(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "model.pt")
    with pytest.raises(WeightsError, match="contains no state dict, neither at the top level nor under 'model'"):
        weights.read(tmp_path / "model.pt")


@pytest.mark.parametrize(
    ("classes", "read"),
    [(None, {}), (3, {}), ((0, 1, 2), {"classes": ["0", "1", "2"]}), (tuple(CLASSES), {"classes": CLASSES})],
)
def test_classes_of_other_programs_are_names_or_nothing(tmp_path: Path, classes: Any, read: dict[str, Any]) -> None:
    torch.save({"model": Tiny().state_dict(), "classes": classes}, tmp_path / "model.pt")
    assert weights.read(tmp_path / "model.pt").metadata == read
