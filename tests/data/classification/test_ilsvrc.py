"""ILSVRC2012 as published: a flat validation folder with labels from Kaggle's file or the devkit's."""

import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torchvision.datasets.imagenet
from numpy.typing import NDArray
from scipy.io import savemat

from visual_transformers.data import ImageNet
from visual_transformers.data.classification.ilsvrc import read_devkit
from visual_transformers.errors import DataError

WNIDS = ["n01440764", "n01443537", "n01484850"]
NUMBERS = {"n01440764": 3, "n01443537": 1, "n01484850": 2}
"""Class numbers of the devkit, which are not in the order of the ids."""
TRUTH = ["n01484850", "n01440764", "n01440764", "n01443537"]
"""Classes of the validation images 1 to 4."""

Flat = Callable[..., Path]


@pytest.fixture
def flat(tmp_path: Path, write: Callable[..., Path], noise: Callable[..., NDArray[np.uint8]]) -> Flat:
    """`flat(home)` writes ILSVRC's folders train, val and test into a folder below tmp_path, and returns it."""

    def make(home: str = "ILSVRC/Data/CLS-LOC", val: str = "val") -> Path:
        for wnid in WNIDS:
            write(tmp_path / home / "train" / wnid / f"{wnid}_10.JPEG", noise(20, 20, 3))
        for number in range(1, 5):
            write(tmp_path / home / val / f"ILSVRC2012_val_{number:08}.JPEG", noise(20, 20, 3))
            write(tmp_path / home / "test" / f"ILSVRC2012_test_{number:08}.JPEG", noise(20, 20, 3))
        return tmp_path / home

    return make


def solution(folder: Path, truth: list[str] = TRUTH) -> Path:
    """Write Kaggle's file, whose lines are unordered and may name several boxes."""
    lines = [f"ILSVRC2012_val_{i:08},{wnid} 8 1 9 7 {wnid} 1 1 2 2 " for i, wnid in enumerate(truth, start=1)]
    path = folder / "LOC_val_solution.csv"
    path.write_text("\n".join(["ImageId,PredictionString", *reversed(lines)]) + "\n")
    return path


def devkit(folder: Path, truth: list[str] = TRUTH) -> Path:
    """Write the devkit's two files; `meta.mat` also holds inner nodes of the hierarchy."""
    path = folder / "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt"
    path.parent.mkdir(parents=True)
    path.write_text("".join(f"{NUMBERS[wnid]}\n" for wnid in truth))
    rows: list[Any] = [(float(number), wnid, "words", "gloss", 0) for wnid, number in NUMBERS.items()]
    rows.append((1001, "n00001740", "entity", "gloss", 2))
    kinds: Any = [(name, object) for name in ("ILSVRC2012_ID", "WNID", "words", "gloss", "num_children")]
    savemat(path.with_name("meta.mat"), {"synsets": np.array(rows, kinds)[:, None]})
    return path


def data_set(root: Path, **options: Any) -> ImageNet:
    return ImageNet(root=str(root), **options)


def list_classified(data: ImageNet) -> list[tuple[str, str]]:
    """List the validation images with their classes."""
    samples = data.val_set()
    return [(path.stem[-1], data.classes[samples.target(index)]) for index, path in enumerate(samples.images)]


def error_message(root: Path, **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        data_set(root, **options).val_set()
    return str(caught.value)


EXPECTED = [("2", "tench"), ("3", "tench"), ("4", "goldfish"), ("1", "great white shark")]


@pytest.mark.parametrize("labels", [solution, devkit])
@pytest.mark.parametrize(
    ("home", "root", "beside"),
    [
        ("ILSVRC/Data/CLS-LOC", ".", "."),
        ("ILSVRC/Data/CLS-LOC", "ILSVRC", "."),
        ("ILSVRC/Data/CLS-LOC", "ILSVRC/Data", "ILSVRC"),
        ("ILSVRC/Data/CLS-LOC", "ILSVRC/Data/CLS-LOC", "."),
        ("ILSVRC/Data/CLS-LOC", ".", "ILSVRC/Data/CLS-LOC"),
        ("imagenet", "imagenet", "imagenet"),
    ],
)
def test_every_image_has_its_published_class(
    flat: Flat, tmp_path: Path, labels: Callable[[Path], Path], home: str, root: str, beside: str
) -> None:
    flat(home)
    labels(tmp_path / beside)
    data = data_set(tmp_path / root)
    assert list_classified(data) == EXPECTED
    assert [path.parent.name for path in data.train_set().images] == WNIDS
    data.check(data.val_set())


def test_the_devkit_is_read_as_torchvision_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = devkit(tmp_path)
    with tarfile.open(tmp_path / "ILSVRC2012_devkit_t12.tar.gz", "w:gz") as archive:
        archive.add(path.parents[1], path.parents[1].name)
    monkeypatch.setattr(torchvision.datasets.imagenet, "_verify_archive", lambda *_: None)
    torchvision.datasets.imagenet.parse_devkit_archive(tmp_path)
    wnids = torchvision.datasets.imagenet.load_meta_file(tmp_path)[1]
    assert list(read_devkit(path).wnids.values()) == wnids == TRUTH


@pytest.mark.parametrize("val", [None, "val_flat"])
def test_the_flat_folder_may_have_another_name(flat: Flat, val: str | None) -> None:
    home = flat(val="val_flat")
    solution(home)
    assert list_classified(data_set(home, val=val)) == EXPECTED


def test_the_nearest_labels_count(flat: Flat, tmp_path: Path) -> None:
    solution(flat())
    devkit(tmp_path, TRUTH[::-1])
    assert list_classified(data_set(tmp_path)) == EXPECTED


@pytest.mark.parametrize("classes", [2, ["goldfish", "n01440764"]], ids=repr)
def test_chosen_classes_take_their_images_from_the_flat_folder(flat: Flat, classes: Any) -> None:
    solution(home := flat())
    data = data_set(home, classes=classes)
    assert list_classified(data) == [pair for name in data.classes for pair in EXPECTED if pair[1] == name]


def test_training_on_some_classes_goes_with_the_whole_flat_folder_if_asked_for(flat: Flat) -> None:
    labels = solution(home := flat())
    (home / "train/n01484850").rename(home / "elsewhere")
    message = error_message(home)
    assert message.startswith(f"{labels}: classes that the training split does not have: n01484850. ")
    assert "data.classes=2" in message
    assert list_classified(data_set(home, classes=2)) == EXPECTED[:3]


def test_excluded_files_are_left_out(flat: Flat, tmp_path: Path) -> None:
    solution(home := flat())
    (tmp_path / "bad.txt").write_text(str(home / "val/ILSVRC2012_val_00000003.JPEG"))
    assert list_classified(data_set(home, exclude=str(tmp_path / "bad.txt"))) == [EXPECTED[0], *EXPECTED[2:]]


# Invalid data


def test_a_flat_folder_without_labels_is_an_error_that_names_both_files(flat: Flat) -> None:
    home = flat()
    message = error_message(home)
    assert message.startswith(f"{home}/val: ")
    assert "LOC_val_solution.csv" in message
    assert "ILSVRC2012_validation_ground_truth.txt" in message


@pytest.mark.parametrize("labels", [solution, devkit])
def test_an_image_without_a_label_is_named(flat: Flat, labels: Callable[..., Path]) -> None:
    path = labels(home := flat(), TRUTH[:3])
    expected = f"{home}/val: 1 of 4 images have no label in {path}: ILSVRC2012_val_00000004.JPEG. "
    assert error_message(home).startswith(expected)


@pytest.mark.parametrize("labels", [solution, devkit])
def test_a_listed_image_that_is_not_there_is_named(flat: Flat, labels: Callable[..., Path], tmp_path: Path) -> None:
    path = labels(home := flat())
    (gone := home / "val/ILSVRC2012_val_00000003.JPEG").unlink()
    assert error_message(home).startswith(f"{home}/val: 1 of 4 images that {path} lists are missing: {gone.name}. ")
    (tmp_path / "gone.txt").write_text(str(gone))
    assert len(data_set(home, exclude=str(tmp_path / "gone.txt")).val_set()) == 3


def test_a_class_without_images_is_named(flat: Flat) -> None:
    solution(home := flat(), ["n01440764"] * 4)
    assert error_message(home).startswith(f"{home}/val: no images of 2 of 3 classes: n01443537, n01484850. ")


@pytest.mark.parametrize(
    "line", ["", "ILSVRC2012_val_00000001", "ILSVRC2012_val_00000001,dog 1 2", "a,n123 1"], ids=repr
)
def test_a_wrong_line_of_kaggles_file_is_named(flat: Flat, line: str) -> None:
    path = solution(home := flat())
    path.write_text(path.read_text() + line + "\nILSVRC2012_val_00000004,n01440764 1 2 3 4\n")
    assert error_message(home).startswith(f"{path}, line 6: {line!r} is not NAME,WNID")


def test_a_solution_that_is_no_text_is_named(flat: Flat) -> None:
    path = solution(home := flat())
    path.write_bytes(b"ImageId\n\xff\xfe\n")
    assert error_message(home).startswith(f"{path}, line 2: ")


@pytest.mark.parametrize("line", ["0", "1001", "dog"])
def test_a_wrong_line_of_the_devkits_file_is_named(flat: Flat, line: str) -> None:
    path = devkit(home := flat())
    path.write_text(f"3\n{line}\n")
    assert error_message(home).startswith(f"{path}, line 2: {line!r} is no class of {path.parent}/meta.mat. ")


def test_a_devkit_without_its_classes_is_refused(flat: Flat) -> None:
    meta = devkit(home := flat()).with_name("meta.mat")
    meta.write_bytes(b"no matrix")
    assert error_message(home).startswith(f"{meta}: is not the devkit's file")
    meta.unlink()
    assert error_message(home).startswith(f"{meta}: no such file")


def test_a_missing_layout_shows_both_that_are_expected(tmp_path: Path) -> None:
    message = error_message(tmp_path)
    assert f"{tmp_path}/train/<class>/*.JPEG" in message
    assert f"{tmp_path}/ILSVRC/Data/CLS-LOC/val/*.JPEG" in message
