"""Oxford-IIIT Pet in its published layout: images in one folder, and lists of them with their breeds."""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torchvision.datasets.oxford_iiit_pet
from numpy.typing import NDArray
from torchvision import datasets

from visual_transformers.data import OxfordPet
from visual_transformers.data.classification.oxford_pet import URLS
from visual_transformers.errors import DataError

BREEDS = {"Abyssinian": 1, "american_bulldog": 2, "Bengal": 3}


def write_list(path: Path, numbers: range) -> None:
    lines = [f"{breed}_{number} {label} 1 {label}" for breed, label in BREEDS.items() for number in numbers]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


@pytest.fixture
def home(tmp_path: Path, write: Callable[..., Path], noise: Callable[..., NDArray[np.uint8]]) -> Path:
    """`oxford-iiit-pet` with 10 images per breed in `trainval`, and 2 in `test`."""
    home = tmp_path / "oxford-iiit-pet"
    write_list(home / "annotations/trainval.txt", range(1, 11))
    write_list(home / "annotations/test.txt", range(11, 13))
    for breed in BREEDS:
        for number in range(1, 13):
            write(home / "images" / f"{breed}_{number}.jpg", noise(20, 20, 3))
    return home


def data_set(home: Path, **options: Any) -> OxfordPet:
    return OxfordPet(root=str(home.parent), **options)


def files(data: OxfordPet, split: str) -> list[tuple[Path, int]]:
    samples = getattr(data, f"{split}_set")()
    return [(path, samples.target(index)) for index, path in enumerate(samples.images)]


def test_breeds_files_and_targets_are_those_of_torchvisions_class(home: Path) -> None:
    data = data_set(home)
    for splits, published in ((("train", "val"), "trainval"), (("test",), "test")):
        oracle = datasets.OxfordIIITPet(home.parent, published)
        assert data.classes == oracle.classes == ["Abyssinian", "American Bulldog", "Bengal"]
        expected = list(zip(oracle._images, oracle._labels, strict=True))
        assert sorted(file for split in splits for file in files(data, split)) == sorted(expected)
    data.check(data.val_set())


def test_a_share_of_every_breed_is_for_validation(home: Path) -> None:
    data = data_set(home, val_share=0.3)
    assert [target for _, target in files(data, "val")] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert len(files(data, "train")) == 21
    assert files(data, "val") == files(data_set(home, val_share=0.3), "val")
    assert files(data, "val") != files(data_set(home, val_share=0.3, seed=1), "val")


def test_the_root_may_be_the_folder_itself(home: Path) -> None:
    assert files(OxfordPet(root=str(home)), "test") == files(data_set(home), "test")


def test_excluded_files_are_left_out(home: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.txt").write_text("oxford-iiit-pet/images/Bengal_11.jpg\n")
    data = data_set(home, exclude=str(tmp_path / "bad.txt"))
    assert [path.name for path, _ in files(data, "test")][-2:] == ["american_bulldog_12.jpg", "Bengal_12.jpg"]


# Invalid data


@pytest.mark.parametrize("folder", ["images", "annotations"])
def test_without_download_a_missing_folder_is_named_with_the_addresses(home: Path, folder: str) -> None:
    (home / folder).rename(home / "elsewhere")
    with pytest.raises(DataError, match=rf"^{home / folder}: no such folder.*data\.download=true") as caught:
        data_set(home)
    assert f"unpack {URLS[0]} and {URLS[1]} into {home} by hand" in str(caught.value)


def test_a_download_that_broke_off_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def break_off(url: str, download_root: str, md5: str) -> None:
        tried.append(url)
        Path(download_root).mkdir(exist_ok=True)
        raise URLError("Connection reset by peer")

    monkeypatch.setattr(torchvision.datasets.oxford_iiit_pet, "download_and_extract_archive", break_off)
    for _ in range(2):
        with pytest.raises(DataError, match=r"cannot be downloaded .*Connection reset by peer.* by hand"):
            OxfordPet(root=str(tmp_path), download=True)
    assert tried == [URLS[0]] * 2


def test_the_addresses_are_those_that_torchvision_fetches() -> None:
    assert [url for url, _ in datasets.OxfordIIITPet._RESOURCES] == URLS


@pytest.mark.parametrize("name", ["trainval.txt", "test.txt"])
def test_a_missing_or_empty_list_is_named(home: Path, name: str) -> None:
    path = home / "annotations" / name
    path.write_text("# Image CLASS-ID SPECIES BREED ID\n")
    with pytest.raises(DataError, match=f"^{path}: lists no images"):
        data_set(home)
    path.unlink()
    with pytest.raises(DataError, match=f"^{path}: no such file"):
        data_set(home)


@pytest.mark.parametrize("line", ["Bengal_1", "Bengal_1 x 1 1", "Bengal 3 1 1", "Bengal_1 3 1 1 1"])
def test_a_wrong_line_of_a_list_is_named(home: Path, line: str) -> None:
    path = home / "annotations/test.txt"
    path.write_text(f"# a comment\n{line}\n")
    with pytest.raises(DataError, match=f"^{path}, line 2: '{line}' is not NAME LABEL SPECIES BREED"):
        data_set(home)


def test_a_label_of_two_breeds_is_refused(home: Path) -> None:
    (home / "annotations/test.txt").write_text("Bengal_1 1 1 1\n")
    with pytest.raises(DataError, match=rf"^{home}/annotations: label 1 stands for Abyssinian as well as Bengal"):
        data_set(home)


@pytest.mark.parametrize(("image", "split"), [("Bengal_3", "train"), ("Bengal_3", "val"), ("Bengal_12", "test")])
def test_a_listed_image_that_is_not_there_is_named(home: Path, image: str, split: str) -> None:
    (home / "images" / f"{image}.jpg").unlink()
    with pytest.raises(DataError, match=rf"^{home}/images: 1 of the \d+ images in \w+\.txt are missing: {image}\.jpg"):
        files(data_set(home), split)


def test_an_excluded_image_need_not_be_there(home: Path, tmp_path: Path) -> None:
    (gone := home / "images/Bengal_12.jpg").unlink()
    (tmp_path / "gone.txt").write_text(str(gone))
    assert len(files(data_set(home, exclude=str(tmp_path / "gone.txt")), "test")) == 5


def test_an_image_that_cannot_be_read_is_named(home: Path, cut_short: Callable[[Path], None]) -> None:
    cut_short(home / "images/Bengal_12.jpg")
    data = data_set(home, image_size=16, eval_resize=16)
    with pytest.raises(DataError, match=f"^{home}/images/Bengal_12.jpg"):
        data.check(data.test_set())
