"""File names in any Unicode normalization, lists in any encoding, and checks of classes and labels."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from visual_transformers.data import ImageFolder, ImageNet, Lip, MaskFolder, OxfordPet, Voc
from visual_transformers.data.io.exclude_list import read_exclude_list
from visual_transformers.data.io.files import list_images
from visual_transformers.data.io.text_lists import read_lines
from visual_transformers.errors import BadFileError, DataError
from visual_transformers.inference.images import ImageReader, find_images

NAMES = ["plain", "two words", "größe-東京", "a,b", "naïve café", "ﬁ", "한글"]
FORMS = ["NFC", "NFD"]
GREY = np.full((8, 8, 3), 99, np.uint8)
MASK = np.array([[0, 1], [2, 2]], np.uint8).repeat(4, 0).repeat(4, 1)


def formed(name: str, form: str) -> str:
    return unicodedata.normalize(form, name)


# Unicode normalization


@pytest.mark.parametrize("train", FORMS)
@pytest.mark.parametrize("val", FORMS)
def test_classes_are_found_in_any_unicode_normalization(tmp_path, write, train, val):
    for name in NAMES:
        write(tmp_path / "train" / formed(name, train) / "1.png", GREY)
        write(tmp_path / "val" / formed(name, val) / "1.png", GREY)
    data = ImageFolder(root=str(tmp_path), image_size=8, eval_resize=8, classes=[formed(name, val) for name in NAMES])
    assert [len(data.train_set()), len(data.val_set())] == [len(NAMES)] * 2
    assert data.classes == [formed(name, "NFC") for name in NAMES]
    data.check(data.val_set())


@pytest.mark.parametrize(("image", "mask"), [("NFC", "NFD"), ("NFD", "NFC"), ("NFD", "NFD")])
def test_masks_are_found_in_any_unicode_normalization(tmp_path, write, image, mask):
    for name in NAMES:
        write(tmp_path / "train/images" / f"{formed(name, image)}.png", GREY)
        write(tmp_path / "train/masks" / f"{formed(name, mask)}.png", MASK)
    data = MaskFolder(root=str(tmp_path), class_names=["a", "b", "c"])
    samples = data.train_set()
    assert len(samples) == len(NAMES)
    data.check(samples)


@pytest.mark.parametrize("form", FORMS)
def test_files_are_excluded_in_any_unicode_normalization(tmp_path, write, form):
    for name in NAMES:
        for split in ("train", "val"):
            write(tmp_path / split / "class" / f"{formed(name, 'NFD')}.png", GREY)
    listed = tmp_path / "list"
    listed.write_text("\n".join(f"train/class/{formed(name, form)}.png" for name in NAMES[2:]), encoding="utf-8")
    data = ImageNet(root=str(tmp_path), exclude=str(listed), image_size=8, eval_resize=8)
    assert (len(data.train_set()), len(data.val_set())) == (2, len(NAMES))


def test_two_folders_that_differ_only_in_normalization_are_refused(tmp_path, write):
    for form in FORMS:
        write(tmp_path / "train" / formed("é", form) / "1.png", GREY)
    if len(list((tmp_path / "train").iterdir())) < 2:
        pytest.skip("this disk takes both for one")
    with pytest.raises(DataError, match="two folders are called é"):
        ImageFolder(root=str(tmp_path), val_share=0.5)


# Files and folders that hold no data


@pytest.mark.parametrize("junk", ["@eaDir", "__MACOSX", "lost+found", ".ipynb_checkpoints", "$RECYCLE.BIN", ".git"])
def test_system_folders_are_neither_classes_nor_images(tmp_path, write, junk):
    for split in ("train", "val"):
        for name in ("a", "b"):
            write(tmp_path / split / name / "1.png", GREY)
            write(tmp_path / split / name / junk / "1.png", GREY)
        write(tmp_path / split / junk / "1.png", GREY)
    data = ImageFolder(root=str(tmp_path), image_size=8, eval_resize=8)
    assert data.classes == ["a", "b"]
    assert len(data.train_set()) == len(data.val_set()) == 2
    assert len(list_images(tmp_path)) == 4


def test_masks_in_a_subfolder_of_the_images_are_not_images(tmp_path, write):
    for split in ("train", "val"):
        write(tmp_path / split / "1.png", GREY)
        write(tmp_path / split / "masks" / "1.png", MASK)
    data = MaskFolder(
        root=str(tmp_path), class_names=["a", "b", "c"], train_images="train", train_masks="train/masks",
        val_images="val", val_masks="val/masks",
    )  # fmt: skip
    assert list(data.train_set().images.names()) == ["1.png"]


def test_other_suffixes_are_counted_once(tmp_path, write, capsys):
    for split in ("train", "val"):
        for name in ("a", "b"):
            write(tmp_path / split / name / "1.png", GREY)
            for other in ("x.heic", "y.HEIC", "z.txt", "README"):
                (tmp_path / split / name / other).write_text("")
    data = ImageFolder(root=str(tmp_path), image_size=8, eval_resize=8)
    data.train_set(), data.train_set()
    message = [line for line in capsys.readouterr().out.splitlines() if "not images" in line]
    assert message == [
        f"note: {tmp_path}/train: skipped 8 files that are not images: .heic (4), without a suffix (2), .txt (2)"
    ]


# Links


def test_a_broken_link_to_a_class_is_named(tmp_path, write):
    write(tmp_path / "train/a/1.png", GREY)
    (tmp_path / "train/b").symlink_to(tmp_path / "gone")
    with pytest.raises(DataError, match=r"train/b: is a link to .*/gone, which does not exist"):
        ImageFolder(root=str(tmp_path), val_share=0.5)


def test_a_broken_link_to_an_image_is_named(tmp_path, write):
    for split in ("train", "val"):
        for name in ("a", "b"):
            write(tmp_path / split / name / "1.png", GREY)
    (tmp_path / "val/a/2.png").symlink_to(tmp_path / "gone.png")
    data = ImageFolder(root=str(tmp_path), image_size=8, eval_resize=8)
    with pytest.raises(BadFileError, match=r"val/a/2\.png: is a link to .*/gone\.png, which does not exist"):
        data.check(data.val_set())


def test_a_broken_link_to_an_image_is_named_in_prediction(tmp_path, write, capsys):
    write(tmp_path / "1.png", GREY)
    (tmp_path / "2.png").symlink_to("gone.png")
    images = ImageReader(find_images(str(tmp_path)))
    assert [path.name for path, _ in images] == ["1.png"]
    with pytest.raises(DataError, match=r"2\.png: is a link to gone\.png"):
        images.report_problems()


def test_valid_links_are_followed(tmp_path, write):
    write(tmp_path / "store/a/1.png", GREY)
    write(tmp_path / "store/b/1.png", GREY)
    for split in ("train", "val"):
        (tmp_path / split).mkdir()
        for name in ("a", "b"):
            (tmp_path / split / name).symlink_to(tmp_path / "store" / name)
    assert len(ImageFolder(root=str(tmp_path), image_size=8, eval_resize=8).train_set()) == 2


# Pairs


@pytest.mark.parametrize(
    ("images", "masks", "image_suffix", "mask_suffix"),
    [
        (
            ["aachen/x_1_leftImg8bit.png"],
            ["aachen/x_1_gtFine_labelIds.png"],
            "_leftImg8bit.png",
            "_gtFine_labelIds.png",
        ),
        (["0.JPG", "1.jpg"], ["0.PNG", "1.png"], None, ".png"),
        (["0.JPG"], ["0.Png"], ".jpg", ".PNG"),
        (["a.b.jpg"], ["a.b.png"], None, ".png"),
        (["sat_1.tif"], ["map_1.png"], None, ".png"),
    ],
)
def test_images_and_masks_are_paired_by_name_without_suffix(tmp_path, write, images, masks, image_suffix, mask_suffix):
    for split in ("train", "val"):
        for image in images:
            write(tmp_path / split / "images" / image, GREY)
        for mask in masks:
            write(tmp_path / split / "masks" / mask, MASK, format="PNG")
    options = {"class_names": ["a", "b", "c"], "image_suffix": image_suffix, "mask_suffix": mask_suffix}
    data = MaskFolder(root=str(tmp_path), **options)
    if images == ["sat_1.tif"]:
        with pytest.raises(
            DataError, match=r"sat_1\.tif, which needs .*sat_1\.png\. That folder contains e\.g\. map_1\.png"
        ):
            data.train_set()
        return
    samples = data.train_set()
    assert [Path(samples.masks.origin(i)).name for i in range(len(samples))] == [Path(mask).name for mask in masks]


def test_images_and_masks_in_one_folder_are_distinguished(tmp_path, write):
    for split in ("train", "val"):
        write(tmp_path / split / "1.jpg", GREY)
        write(tmp_path / split / "1.png", MASK)
        write(tmp_path / split / "2_img.png", GREY)
        write(tmp_path / split / "2_mask.png", MASK)
    places = {f"{split}_{what}": split for split in ("train", "val") for what in ("images", "masks")}
    named = MaskFolder(
        root=str(tmp_path), class_names=["a", "b", "c"], image_suffix="_img.png", mask_suffix="_mask.png", **places
    )
    assert list(named.train_set().images.names()) == ["2_img.png"]


def test_two_masks_of_one_image_are_refused(tmp_path, write):
    write(tmp_path / "train/images/0.jpg", GREY)
    for name in ("0.png", "0.PNG"):
        write(tmp_path / "train/masks" / name, MASK)
    if len(list((tmp_path / "train/masks").iterdir())) < 2:
        pytest.skip("this disk takes both for one")
    with pytest.raises(DataError, match="differ only in their suffixes"):
        MaskFolder(root=str(tmp_path), class_names=["a", "b", "c"]).train_set()


# Lists

ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-32"]


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_a_list_is_read_in_any_unicode_encoding(tmp_path, encoding, newline):
    (tmp_path / "list").write_bytes(newline.join(NAMES).encode(encoding))
    assert read_lines(tmp_path / "list") == NAMES


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("plain\ncafé".encode("latin-1"), "list, line 2: is not utf-8"),
        ("a\n東京".encode("shift-jis"), "list, line 2: is not utf-8"),
        ("plain".encode("utf-16-le"), "UTF-16 without a byte order mark"),
        (b"\xff\xfeo", "line 1: is not utf-16"),
    ],
)
def test_another_encoding_is_refused_with_the_line(tmp_path, content, message):
    (tmp_path / "list").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_lines(tmp_path / "list")


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_the_lists_of_lip_and_voc_may_have_any_unicode_encoding_and_blanks(tmp_path, write, encoding):
    names = ["1_1", "two words", "größe"]
    for split in ("train", "val"):
        for name in names:
            write(tmp_path / f"TrainVal_images/{split}_images/{name}.jpg", GREY)
            write(tmp_path / f"TrainVal_parsing_annotations/{split}_segmentations/{name}.png", MASK)
            write(tmp_path / f"VOCdevkit/VOC2012/JPEGImages/{name}.jpg", GREY)
            write(tmp_path / f"VOCdevkit/VOC2012/SegmentationClass/{name}.png", MASK)
        sets = tmp_path / "VOCdevkit/VOC2012/ImageSets/Segmentation"
        sets.mkdir(parents=True, exist_ok=True)
        for listed in (tmp_path / f"{split}_id.txt", sets / f"{split}.txt"):
            listed.write_bytes(("\r\n".join(names) + "\r\n").encode(encoding))
    for data in (Lip(root=str(tmp_path)), Voc(root=str(tmp_path))):
        assert [path.stem for path in data.val_set().images] == names


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_the_lists_of_pets_may_have_any_unicode_encoding(tmp_path, write, encoding):
    home = tmp_path / "oxford-iiit-pet"
    rows = [
        f"{breed}_{i} {label} 1 {label}" for label, breed in enumerate(("pug", "beagle"), start=1) for i in range(4)
    ]
    for row in rows:
        write(home / "images" / f"{row.split()[0]}.jpg", GREY)
    (home / "annotations").mkdir()
    for name in ("trainval.txt", "test.txt"):
        (home / "annotations" / name).write_bytes("\n".join(rows).encode(encoding))
    data = OxfordPet(root=str(tmp_path), image_size=8, eval_resize=8, val_share=0.5)
    assert (data.classes, len(data.test_set())) == (["Pug", "Beagle"], 8)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_an_exclude_list_may_have_any_unicode_encoding(tmp_path, encoding):
    (tmp_path / "list").write_bytes("# bad\nfirst.png\ngröße.png\n".encode(encoding))
    (tmp_path / "first.png").write_text("")
    assert read_exclude_list(str(tmp_path / "list")) == {f"{tmp_path}/first.png", f"{tmp_path}/größe.png"}


def test_a_note_is_printed_if_no_excluded_file_exists(tmp_path, capsys):
    (tmp_path / "list").write_text("train/1.png\ntrain/2.png\n")
    read_exclude_list(str(tmp_path / "list"))
    assert "none of its 2 files exists; the first is" in capsys.readouterr().out


def test_names_of_any_bytes_can_be_excluded(tmp_path):
    name = os.fsdecode(b"latin-\xe9.png")
    (tmp_path / "list").write_bytes(os.fsencode(name))
    (tmp_path / name).write_text("")
    assert read_exclude_list(str(tmp_path / "list")) == {f"{tmp_path}/{name}"}


# Invalid classes and labels


def test_folders_of_splits_are_not_classes(tmp_path, write):
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            write(tmp_path / "set" / split / name / "1.png", GREY)
    with pytest.raises(DataError, match=r"set: its folders are splits \(train, val\), not classes"):
        ImageFolder(root=str(tmp_path), train="set", val_share=0.5)


@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
def test_masks_in_a_lossy_format_are_refused(tmp_path, write, suffix):
    write(tmp_path / "train/images/0.png", GREY)
    write(tmp_path / f"train/masks/0{suffix}", MASK)
    data = MaskFolder(root=str(tmp_path), class_names=["a", "b", "c"], mask_suffix=suffix)
    with pytest.raises(BadFileError, match="whose lossy compression changes labels"):
        data.check(data.train_set())


@pytest.fixture
def labelled(tmp_path: Path, write: Callable[..., Path]) -> Callable[..., MaskFolder]:
    """`labelled(values, **options)`: a data set whose masks have these values, in stripes."""

    def make(values: list[int], **options: object) -> MaskFolder:
        mask = np.repeat(np.array([values], np.uint8), 6, axis=0)
        for split in ("train", "val"):
            write(tmp_path / split / "images" / "0.png", np.zeros((*mask.shape, 3), np.uint8))
            write(tmp_path / split / "masks" / "0.png", mask)
        return MaskFolder(root=str(tmp_path), **options)

    return make


def test_a_note_is_printed_if_255_may_be_a_class(labelled, capsys):
    data = labelled([0, 255], class_names=["background", "object"])
    data.check(data.train_set())
    message = capsys.readouterr().out
    assert (
        "note: 1 of 2 classes have no pixel in the 1 masks checked (object); 50 % of their pixels are ignored."
        in message
    )
    assert "data.label_map={0:0,255:1} data.ignore_labels=[]" in message
    mended = labelled([0, 255], class_names=["background", "object"], label_map={0: 0, 255: 1}, ignore_labels=[])
    mended.check(mended.train_set())
    assert mended.train_set().target(0).tolist() == [[0, 1]] * 6


def test_labels_from_1_are_mapped(labelled):
    with pytest.raises(DataError, match=r"0 is the label of class 'a'.*data\.label_map=\{1:0,2:1,3:2\}"):
        labelled([0, 1, 2, 3], class_names=["a", "b", "c"], ignore_labels=[0, 255])
    data = labelled([0, 1, 2, 3], class_names=["a", "b", "c"], ignore_labels=[0, 255], label_map={1: 0, 2: 1, 3: 2})
    assert data.train_set().target(0)[0].tolist() == [255, 0, 1, 2]


def test_the_remedy_for_a_label_beyond_the_classes_is_a_map(labelled):
    data = labelled([1, 2, 3], class_names=["a", "b", "c"])
    with pytest.raises(BadFileError, match=r"labels \[3\] are out of range; .*data\.label_map"):
        data.check(data.train_set())


@pytest.mark.parametrize(
    ("label_map", "ignored", "message"),
    [
        ({1: 0}, [255], "no value is 1, the class 'b'"),
        ({1: 0, 2: 5}, [255], "2:5 is not the value of a pixel"),
        ({1: 0, 300: 1}, [255], "300:1 is not the value of a pixel"),
        ({0: 0, 255: 1}, [255], "both have 255"),
    ],
)
def test_an_invalid_label_map_is_refused(labelled, label_map, ignored, message):
    with pytest.raises(DataError, match=message):
        labelled([0], class_names=["a", "b"], label_map=label_map, ignore_labels=ignored)


def test_two_values_can_map_to_one_class(labelled):
    data = labelled([0, 1, 2], class_names=["a", "b"], label_map={0: 0, 1: 1, 2: 1})
    assert data.train_set().target(0)[0].tolist() == [0, 1, 1]


def test_a_class_without_pixels_is_reported(labelled, capsys):
    data = labelled([0, 1, 255], class_names=["a", "b", "c"])
    data.check(data.train_set())
    assert (
        "note: 1 of 3 classes have no pixel in the 1 masks checked (c); 33 % of their pixels are ignored"
        in capsys.readouterr().out
    )


def test_masks_of_only_ignored_pixels_are_refused(labelled):
    data = labelled([255, 255], class_names=["a", "b"])
    with pytest.raises(DataError, match="no class has pixels: 100 % of their pixels are ignored"):
        data.check(data.val_set())


# Transparent and turned images of a data set


def test_transparent_images_are_counted(tmp_path, write, capsys):
    clear = np.zeros((8, 8, 4), np.uint8)
    for split in ("train", "val"):
        for name in ("a", "b"):
            write(tmp_path / split / name / "1.png", clear)
            write(tmp_path / split / name / "2.png", GREY)
    data = ImageFolder(root=str(tmp_path), image_size=8, eval_resize=8)
    data.check(data.train_set())
    assert (
        "note: of 4 images that were checked, 2 are transparent somewhere; white is shown there"
        in capsys.readouterr().out
    )


def write_turned(folder: Path, write: Callable[..., Path], orientation: int) -> MaskFolder:
    """Write an image with an EXIF orientation, and a mask of its stored size."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    write(folder / "train/images/0.jpg", Image.new("RGB", (12, 8)), exif=exif)
    write(folder / "train/masks/0.png", np.zeros((8, 12), np.uint8))
    return MaskFolder(root=str(folder), class_names=["a", "b"])


@pytest.mark.parametrize("orientation", [6, 8])
def test_a_mask_that_was_not_turned_with_its_image_is_reported(tmp_path, write, orientation):
    data = write_turned(tmp_path, write, orientation)
    with pytest.raises(BadFileError, match=rf"turned by its EXIF orientation {orientation}, and the mask is not: turn"):
        data.check(data.train_set())
    write(tmp_path / "train/masks/0.png", np.zeros((12, 8), np.uint8))
    data.check(data.train_set())


def test_a_half_turn_of_a_masked_image_is_noted(tmp_path, write, capsys):
    data = write_turned(tmp_path, write, 3)
    data.check(data.train_set())
    assert "1 are turned by their EXIF orientation to the same size" in capsys.readouterr().out
