"""Images with a mask file each: pairing, labels, and errors that name the file."""

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from visual_transformers.data import MaskFolder
from visual_transformers.data.dataset import MaskedImages
from visual_transformers.errors import DataError

CLASSES = ["sky", "road", "tree"]

Add = Callable[..., tuple[Path, Path]]


@pytest.fixture
def add(tmp_path: Path, write: Callable[..., Path], noise: Callable[..., NDArray[np.uint8]]) -> Add:
    """`add("val/street/1", labels)` writes that image and its mask, and returns their paths."""

    def pair(name: str, labels: Any = ((0, 1, 2), (2, 1, 0)), suffix: str = ".png") -> tuple[Path, Path]:
        split, below = name.split("/", 1)
        mask = labels if isinstance(labels, Image.Image) else np.array(labels, np.uint8)
        height, width = (mask.height, mask.width) if isinstance(mask, Image.Image) else mask.shape[:2]
        return (
            write(tmp_path / split / "images" / f"{below}.jpg", noise(height, width, 3)),
            write(tmp_path / split / "masks" / f"{below}{suffix}", mask),
        )

    return pair


@pytest.fixture
def data_set(tmp_path: Path, add: Add) -> Callable[..., MaskFolder]:
    """`data_set()` has one training image below tmp_path, and the images that the test adds."""
    add("train/0")

    def make(**options: Any) -> MaskFolder:
        return MaskFolder(**{"root": str(tmp_path), "class_names": CLASSES} | options)

    return make


def files(samples: MaskedImages) -> list[tuple[Path, Path]]:
    """List every image with its mask."""
    return [(path, Path(samples.masks.origin(index))) for index, path in enumerate(samples.images)]


# Pairing


def test_targets_are_the_values_of_the_mask(data_set: Callable[..., MaskFolder], add: Add) -> None:
    labels = [[0, 1, 2, 1], [2, 2, 0, 255]]
    add("val/0", labels)
    target = data_set().val_set()[0][1]
    assert target.dtype == torch.uint8
    assert target.tolist() == labels


def test_images_are_the_pictures_of_their_files(
    data_set: Callable[..., MaskFolder], add: Add, noise: Callable[..., NDArray[np.uint8]]
) -> None:
    path, _ = add("val/0", noise(30, 20) % 3)
    image, _ = data_set().val_set()[0]
    assert np.array_equal(image.permute(1, 2, 0).numpy(), np.array(Image.open(path)))


def test_every_image_keeps_its_own_size_in_evaluation(data_set: Callable[..., MaskFolder], add: Add) -> None:
    shapes = [(37, 53), (53, 37), (64, 20)]
    for number, shape in enumerate(shapes):
        add(f"val/{number}", np.zeros(shape))
    samples = data_set().val_set()
    assert [tuple(samples[i][0].shape) for i in range(3)] == [(3, *shape) for shape in shapes]
    assert [tuple(samples[i][1].shape) for i in range(3)] == shapes


def test_images_of_nested_folders_pair_with_the_masks_of_the_same_folders(
    data_set: Callable[..., MaskFolder], add: Add
) -> None:
    expected = [add(f"val/{name}") for name in ("0", "a/0", "a/b/0", "c/0")]
    assert sorted(files(data_set().val_set())) == sorted(expected)


def test_a_mask_may_have_a_longer_name_than_its_image(data_set: Callable[..., MaskFolder], add: Add) -> None:
    expected = [add("val/0", suffix="_labels.png"), add("val/1.2", suffix="_labels.png")]
    assert files(data_set(mask_suffix="_labels.png").val_set()) == expected


def test_an_image_without_a_mask_is_named_with_the_mask_it_needs(data_set: Callable[..., MaskFolder], add: Add) -> None:
    add("val/0")
    image, mask = add("val/1")
    mask.unlink()
    with pytest.raises(DataError) as caught:
        data_set().val_set()
    assert str(image) in str(caught.value)
    assert str(mask) in str(caught.value)
    assert "1 of 2" in str(caught.value)


def test_a_mask_of_the_same_name_in_another_folder_is_no_mask_of_the_image(
    data_set: Callable[..., MaskFolder], add: Add
) -> None:
    image, mask = add("val/a/0")
    mask.rename(mask.parent.parent / "0.png")
    with pytest.raises(DataError, match=str(image)):
        data_set().val_set()


def test_a_missing_root_shows_the_layout_that_is_expected(data_set: Callable[..., MaskFolder], tmp_path: Path) -> None:
    missing = tmp_path / "nowhere"
    with pytest.raises(DataError) as caught:
        data_set(root=str(missing))
    assert f"{missing}/train/images/" in str(caught.value)
    assert f"{missing}/val/masks/" in str(caught.value)


@pytest.mark.parametrize("kind", ["images", "masks"])
def test_a_missing_folder_is_named(data_set: Callable[..., MaskFolder], tmp_path: Path, add: Add, kind: str) -> None:
    for path in add("val/0"):
        if path.parent.name == kind:
            path.unlink()
            path.parent.rmdir()
    with pytest.raises(DataError, match=f"^{tmp_path}/val/{kind}: no such folder"):
        data_set().val_set()


def test_a_folder_without_images_is_named(data_set: Callable[..., MaskFolder], add: Add) -> None:
    image, _ = add("val/0")
    image.unlink()
    with pytest.raises(DataError, match=f"^{image.parent}: holds no images"):
        data_set().val_set()


# The test split


def test_the_test_split_is_the_validation_split_where_none_is_configured(
    data_set: Callable[..., MaskFolder], add: Add
) -> None:
    pair = add("val/0")
    assert files(data_set().test_set()) == [pair]


def test_the_test_split_is_the_one_that_is_configured(data_set: Callable[..., MaskFolder], add: Add) -> None:
    add("val/0")
    pair = add("test/0")
    assert files(data_set(test_images="test/images", test_masks="test/masks").test_set()) == [pair]


@pytest.mark.parametrize("key", ["test_images", "test_masks"])
def test_half_a_test_split_is_refused(data_set: Callable[..., MaskFolder], key: str) -> None:
    with pytest.raises(DataError, match=r"data\.test_images and data\.test_masks"):
        data_set(**{key: "test"})


# Labels


def test_ignored_labels_become_255(data_set: Callable[..., MaskFolder], add: Add) -> None:
    add("val/0", [[0, 1, 2, 7, 9]])
    assert data_set(ignore_labels=[7, 9]).val_set()[0][1].tolist() == [[0, 1, 2, 255, 255]]


def test_a_label_may_be_ignored(data_set: Callable[..., MaskFolder], add: Add) -> None:
    add("val/0", [[0, 7, 2]])
    assert data_set(ignore_labels=[7]).val_set()[0][1].tolist() == [[0, 255, 2]]


def test_labels_out_of_range_are_named_with_their_file_and_the_setting(
    data_set: Callable[..., MaskFolder], add: Add
) -> None:
    _, mask = add("val/0", [[0, 3, 2, 254, 255]])
    with pytest.raises(DataError) as caught:
        data_set().val_set()[0]
    assert str(mask) in str(caught.value)
    assert "[3, 254]" in str(caught.value)
    assert "data.ignore_labels" in str(caught.value)


def test_255_is_out_of_range_unless_it_is_ignored(data_set: Callable[..., MaskFolder], add: Add) -> None:
    add("val/0", [[0, 255]])
    with pytest.raises(DataError, match=r"\[255\]"):
        data_set(ignore_labels=[]).val_set()[0]


def test_the_pixels_of_a_palette_mask_are_its_indices(data_set: Callable[..., MaskFolder], add: Add) -> None:
    mask = Image.new("P", (3, 1))
    mask.putdata([2, 0, 1])
    mask.putpalette([128, 0, 0, 0, 128, 0, 250, 250, 250])
    add("val/0", mask)
    assert data_set().val_set()[0][1].tolist() == [[2, 0, 1]]


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_the_pixels_of_masks_of_few_bits_are_their_labels(
    data_set: Callable[..., MaskFolder], add: Add, bits: int
) -> None:
    _, path = add("val/0", [[0, 1, 0, 1]])
    rows = b"\x00" + {1: b"\x50", 2: b"\x11", 4: b"\x01\x01"}[bits]
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", 4, 1, bits, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    ]
    packed = [struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(packed))
    if bits == 1:
        with pytest.raises(DataError, match="mode '1'"):
            data_set().val_set()[0]
    else:
        assert data_set().val_set()[0][1].tolist() == [[0, 1, 0, 1]]


def test_missing_class_names_are_refused_by_the_settings_name(data_set: Callable[..., MaskFolder]) -> None:
    with pytest.raises(DataError, match=r"data\.class_names"):
        data_set(class_names=[])


def test_the_settings_alone_tell_the_class_names() -> None:
    assert MaskFolder.classes_from_settings({"root": "nowhere", "class_names": CLASSES}) == CLASSES


@pytest.mark.parametrize("name", [None, True, 3])
def test_a_class_name_that_is_no_text_is_refused_by_the_settings_name(
    data_set: Callable[..., MaskFolder], name: Any
) -> None:
    with pytest.raises(DataError, match=rf"data\.class_names: \[{name}\] are no names"):
        data_set(class_names=["sky", name])


@pytest.mark.parametrize("label", [-1, 256])
def test_an_ignored_label_that_no_mask_can_hold_is_refused(data_set: Callable[..., MaskFolder], label: int) -> None:
    with pytest.raises(DataError, match=rf"data\.ignore_labels.*{label}"):
        data_set(ignore_labels=[255, label])


# Unusable files


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "I;16", "1"])
def test_a_mask_of_another_mode_is_refused_by_name(data_set: Callable[..., MaskFolder], add: Add, mode: str) -> None:
    _, path = add("val/0", Image.new(mode, (4, 3)))
    with pytest.raises(DataError, match=f"^{path}: .*{mode}"):
        data_set().val_set()[0]


def test_a_mask_of_another_size_is_named_with_both_sizes(
    data_set: Callable[..., MaskFolder], add: Add, write: Callable[..., Path]
) -> None:
    image, mask = add("val/0", np.zeros((7, 9)))
    write(mask, np.zeros((5, 8), np.uint8))
    with pytest.raises(DataError) as caught:
        data_set().val_set()[0]
    message = str(caught.value)
    assert message.index(str(mask)) < message.index("8 x 5") < message.index(str(image)) < message.index("9 x 7")


@pytest.mark.parametrize("which", [0, 1], ids=["image", "mask"])
def test_a_truncated_file_is_named(
    data_set: Callable[..., MaskFolder],
    add: Add,
    noise: Callable[..., NDArray[np.uint8]],
    cut_short: Callable[[Path], None],
    which: int,
) -> None:
    path = add("val/0", noise(40, 40) % 3)[which]
    cut_short(path)
    with pytest.raises(DataError, match=f"^{path}: "):
        data_set().val_set()[0]


@pytest.mark.parametrize("number", [0, 4], ids=["first", "last"])
def test_the_check_before_training_opens_the_first_and_the_last_mask(
    data_set: Callable[..., MaskFolder], add: Add, number: int
) -> None:
    masks = [add(f"val/{i}", [[77 if i == number else 0]])[1] for i in range(5)]
    data = data_set(check_files=2)
    with pytest.raises(DataError, match=f"^{masks[number]}: "):
        data.check(data.val_set())


# Real masks

KINDS = {"images": "", "masks": "annot"}


@pytest.fixture
def camvid(shared_data: Path) -> MaskFolder:
    folders = {f"{split}_{kind}": split + below for split in ("train", "val", "test") for kind, below in KINDS.items()}
    names = ["sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "cyclist"]
    return MaskFolder(root=str(shared_data / "camvid_240"), class_names=names, ignore_labels=[11], **folders)


@pytest.mark.parametrize(("split", "length"), [("train", 367), ("val", 101), ("test", 233)])
def test_camvid_has_its_published_lengths(camvid: MaskFolder, split: str, length: int) -> None:
    assert len({"train": camvid.train_set, "val": camvid.val_set, "test": camvid.test_set}[split]()) == length


def test_targets_of_camvid_are_its_stored_labels_with_void_ignored(camvid: MaskFolder) -> None:
    samples = camvid.val_set()
    for index in range(0, len(samples), 10):
        stored = torch.tensor(np.array(Image.open(samples.masks.origin(index)))).long()
        assert (stored == 11).any()
        assert torch.equal(samples[index][1].long(), torch.where(stored == 11, 255, stored))
