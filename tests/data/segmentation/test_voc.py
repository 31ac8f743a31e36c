"""PASCAL VOC 2012: layout, labels and download."""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from torchvision.datasets import VOCSegmentation

from visual_transformers.config.instantiate import build
from visual_transformers.config.validation import validate
from visual_transformers.data import Voc
from visual_transformers.errors import BadFileError, DataError

NAMES = {"train": ["2007_000032", "2007_000039"], "val": ["2007_000033"]}
"""Beginnings of the published lists."""


@pytest.fixture
def labels() -> NDArray[np.uint8]:
    """Mask with the 21 labels and the border's."""
    return np.tile(np.array([*range(21), 255], np.uint8), (3, 1))


@pytest.fixture
def voc(tmp_path: Path, write: Callable[..., Path], labels: NDArray[np.uint8]) -> Path:
    """The root of a small copy in the archive's layout; masks are palette PNGs, and one image has no mask."""
    home = tmp_path / "VOCdevkit/VOC2012"
    (home / "ImageSets/Segmentation").mkdir(parents=True)
    for split, names in NAMES.items():
        (home / f"ImageSets/Segmentation/{split}.txt").write_text("".join(f"{name}\n" for name in names))
        for name in names:
            write(home / f"JPEGImages/{name}.jpg", np.zeros((*labels.shape, 3), np.uint8))
            mask = Image.fromarray(labels).convert("L")
            mask.putpalette([i * 11 % 256 for i in range(768)])
            write(home / f"SegmentationClass/{name}.png", mask)
    write(home / "JPEGImages/2007_000027.jpg", np.zeros((3, 3, 3), np.uint8))
    return tmp_path


def test_splits_and_targets_are_those_of_torchvision(voc: Path) -> None:
    data = Voc(root=str(voc))
    for split, samples in (("train", data.train_set()), ("val", data.val_set()), ("val", data.test_set())):
        oracle = VOCSegmentation(str(voc), image_set=split)
        assert [str(path) for path in samples.images] == oracle.images
        for index in range(len(samples)):
            assert np.array_equal(samples.target(index), np.array(oracle[index][1]))


def test_the_border_is_ignored_and_the_background_is_a_class(voc: Path) -> None:
    target = Voc(root=str(voc)).val_set()[0][1]
    assert target[0].tolist() == [*range(21), 255]


def test_the_classes_are_the_background_and_the_alphabet_of_objects() -> None:
    background, *objects = Voc.classes_from_settings({})
    assert background == "background"
    assert len(objects) == 20
    assert objects == sorted(objects)


def test_its_configuration_builds_it(voc: Path, composed: Callable[..., Any]) -> None:
    data = build(validate(composed("task=segmentation", "data=voc", f"data.root={voc}")).data, "data")
    assert isinstance(data, Voc)
    data.check(data.train_set())


# Invalid data


def test_a_missing_data_set_is_named_with_its_address_and_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"^{tmp_path}/VOCdevkit/VOC2012: no such folder") as caught:
        Voc(root=str(tmp_path))
    for hint in ("VOCtrainval_11-May-2012.tar", f"into {tmp_path} by hand", "data.download=true"):
        assert hint in str(caught.value)


@pytest.mark.parametrize("missing", ["JPEGImages/2007_000039.jpg", "SegmentationClass/2007_000039.png"])
def test_a_missing_file_is_named(voc: Path, missing: str) -> None:
    (voc / "VOCdevkit/VOC2012" / missing).unlink()
    with pytest.raises(DataError, match=rf"1 of (the 2 images .*train.txt names|2 images have no mask).*{missing}"):
        Voc(root=str(voc)).train_set()


def test_a_missing_folder_of_masks_is_named(voc: Path) -> None:
    (voc / "VOCdevkit/VOC2012/SegmentationClass").rename(voc / "gone")
    with pytest.raises(DataError, match="SegmentationClass: no such folder; expected the layout"):
        Voc(root=str(voc)).val_set()


def test_labels_out_of_range_are_named(voc: Path, write: Callable[..., Path], labels: NDArray[np.uint8]) -> None:
    path = write(voc / "VOCdevkit/VOC2012/SegmentationClass/2007_000033.png", labels + 1)
    with pytest.raises(BadFileError, match=rf"^{path}: labels \[21\] are out of range.*0 to 20"):
        Voc(root=str(voc)).val_set()[0]


# The download


def test_the_archive_is_fetched_by_torchvision_if_it_is_asked_for(voc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, calls = voc / "VOCdevkit", []
    folder.rename(voc / "in the archive")

    def fetch(root: str, **options: Any) -> None:
        calls.append((root, options))
        (voc / "in the archive").rename(folder)

    monkeypatch.setattr("visual_transformers.data.segmentation.voc.VOCSegmentation", fetch)
    assert len(Voc(root=str(voc), download=True).train_set()) == 2
    assert calls == [(str(voc), {"year": "2012", "image_set": "train", "download": True})]


def test_nothing_is_fetched_where_the_data_set_is(voc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("visual_transformers.data.segmentation.voc.VOCSegmentation", None)
    assert len(Voc(root=str(voc), download=True).val_set()) == 1


@pytest.mark.parametrize("error", [URLError("no route to host"), RuntimeError("File not found or corrupted.")])
def test_without_a_network_the_address_and_the_folder_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr("visual_transformers.data.segmentation.voc.VOCSegmentation", fail)
    with pytest.raises(DataError, match=rf"cannot be downloaded .*VOCtrainval.* into {tmp_path} by hand") as caught:
        Voc(root=str(tmp_path), download=True)
    assert str(error) in str(caught.value)
