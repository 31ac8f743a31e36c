"""Imagenette in torchvision's layout, downloaded only if configured."""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torchvision.datasets.imagenette
from torchvision import datasets

from visual_transformers.data import Imagenette
from visual_transformers.data.classification.imagenette import FOLDERS, URL
from visual_transformers.errors import DataError

WORDS = {wnid: names[0] for wnid, names in datasets.Imagenette._WNID_TO_CLASS.items()}


@pytest.fixture
def make(class_folders: Callable[..., Path]) -> Callable[..., Path]:
    """`make(folder)` writes the ten classes to a folder below the root that it returns."""

    def write(folder: str, classes: int = 10) -> Path:
        counts = dict.fromkeys(list(WORDS)[:classes], 2)
        return class_folders({f"{folder}/train": counts, f"{folder}/val": counts}, size=8)

    return write


def data_set(root: Path, **options: Any) -> Imagenette:
    return Imagenette(root=str(root), **options)


@pytest.mark.parametrize(("size", "folder"), [(s, f) for s, f in FOLDERS.items()])
def test_files_and_targets_are_those_of_torchvisions_class(make: Callable[..., Path], size: Any, folder: str) -> None:
    data = data_set(root := make(folder), size=size)
    assert data.classes == list(WORDS.values())
    for split, samples in (("train", data.train_set()), ("val", data.val_set())):
        oracle = datasets.Imagenette(root, split, size)
        assert [(str(path), samples.target(i)) for i, path in enumerate(samples.images)] == oracle._samples


def test_the_root_may_be_the_folder_itself(make: Callable[..., Path]) -> None:
    assert len(data_set(make("mine") / "mine").val_set()) == 20


def test_the_real_images_have_their_published_number(shared_data: Path) -> None:
    data = data_set(shared_data / "imagenette128")
    assert (len(data.train_set()), len(data.val_set())) == (9469, 3925)
    assert data.classes == list(WORDS.values())
    data.check(data.val_set())


@pytest.mark.parametrize("size", FOLDERS)
def test_the_address_is_the_one_that_torchvision_fetches(size: str) -> None:
    assert URL.format(folder=FOLDERS[size]) == datasets.Imagenette._ARCHIVES[size][0]


def test_without_download_the_address_and_the_folder_are_said(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=rf"^{tmp_path}/imagenette2-320: no such folder\..*data\.download=true"
    ) as caught:
        data_set(tmp_path, size="320px")
    url = "https://s3.amazonaws.com/fast-ai-imageclas/imagenette2-320.tgz"
    assert f"unpack {url} into {tmp_path} by hand" in str(caught.value)


def test_without_a_network_the_address_and_the_folder_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise URLError("Name or service not known")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    with pytest.raises(DataError, match=r"cannot be downloaded .*Name or service not known") as caught:
        data_set(tmp_path / "new", download=True)
    assert "imagenette2-160.tgz" in str(caught.value)
    assert f"into {tmp_path / 'new'} by hand" in str(caught.value)


def test_a_download_is_unpacked_below_the_root_once(
    make: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, calls = make("source") / "source", []

    def unpack(url: str, root: Path, md5: str) -> None:
        calls.append(url)
        source.rename(Path(root) / "imagenette2-160")

    monkeypatch.setattr(torchvision.datasets.imagenette, "download_and_extract_archive", unpack)
    for _ in range(2):
        assert len(data_set(tmp_path / "new", download=True).val_set()) == 20
    assert calls == ["https://s3.amazonaws.com/fast-ai-imageclas/imagenette2-160.tgz"]


def test_an_incomplete_folder_is_named(make: Callable[..., Path]) -> None:
    root = make("imagenette2-160")
    (missing := root / "imagenette2-160/val/n03888257").rename(root / "elsewhere")
    with pytest.raises(DataError, match=f"^{missing.parent}: no folder for 1 of 10 classes: n03888257"):
        data_set(root, val="val")


def test_a_folder_without_splits_shows_the_layout(tmp_path: Path) -> None:
    (tmp_path / "imagenette2-160").mkdir()
    with pytest.raises(DataError, match=r"imagenette2-160/train: no such folder; expected the layout") as caught:
        data_set(tmp_path)
    assert f"{tmp_path}/imagenette2-160/val/<class>/*.JPEG" in str(caught.value)
