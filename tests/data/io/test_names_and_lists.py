"""Names in any form and lists in any encoding: found, or said in a sentence that names the file and the line."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from visual_transformers.data import ImageFolder, ImageNet, Lip, MaskFolder, OxfordPet, Voc
from visual_transformers.data.io.exclude_list import excluded_files
from visual_transformers.data.io.files import images_below
from visual_transformers.data.io.text_lists import lines
from visual_transformers.errors import BadFileError, DataError
from visual_transformers.inference.images import ReadableImages, image_paths

NAMES = ["plain", "two words", "größe-東京", "a,b", "naïve café", "ﬁ", "한글"]
FORMS = ["NFC", "NFD"]
GREY = np.full((8, 8, 3), 99, np.uint8)
MASK = np.array([[0, 1], [2, 2]], np.uint8).repeat(4, 0).repeat(4, 1)


def formed(name: str, form: str) -> str:
    return unicodedata.normalize(form, name)


# Two forms of one name


@pytest.mark.parametrize("train", FORMS)
@pytest.mark.parametrize("val", FORMS)
def test_classes_of_splits_are_found_whatever_the_form_of_their_names(tmp_path, write, train, val):
    for name in NAMES:
        write(tmp_path / "train" / formed(name, train) / "1.png", GREY)
        write(tmp_path / "val" / formed(name, val) / "1.png", GREY)
    data = ImageFolder(root=str(tmp_path), image_size=8, eval_resize=8, classes=[formed(name, val) for name in NAMES])
    assert [len(data.train_set()), len(data.val_set())] == [len(NAMES)] * 2
    assert data.classes == [formed(name, "NFC") for name in NAMES]
    data.check(data.val_set())


@pytest.mark.parametrize(("image", "mask"), [("NFC", "NFD"), ("NFD", "NFC"), ("NFD", "NFD")])
def test_masks_are_found_whatever_the_form_of_their_names(tmp_path, write, image, mask):
    for name in NAMES:
        write(tmp_path / "train/images" / f"{formed(name, image)}.png", GREY)
        write(tmp_path / "train/masks" / f"{formed(name, mask)}.png", MASK)
    data = MaskFolder(root=str(tmp_path), class_names=["a", "b", "c"])
    samples = data.train_set()
    assert len(samples) == len(NAMES)
    data.check(samples)


@pytest.mark.parametrize("form", FORMS)
def test_files_are_excluded_whatever_the_form_of_their_names(tmp_path, write, form):
    for name in NAMES:
        for split in ("train", "val"):
            write(tmp_path / split / "class" / f"{formed(name, 'NFD')}.png", GREY)
    listed = tmp_path / "list"
    listed.write_text("\n".join(f"train/class/{formed(name, form)}.png" for name in NAMES[2:]), encoding="utf-8")
    data = ImageNet(root=str(tmp_path), exclude=str(listed), image_size=8, eval_resize=8)
    assert (len(data.train_set()), len(data.val_set())) == (2, len(NAMES))


def test_two_folders_of_one_name_in_two_forms_are_refused(tmp_path, write):
    for form in FORMS:
        write(tmp_path / "train" / formed("é", form) / "1.png", GREY)
    if len(list((tmp_path / "train").iterdir())) < 2:
        pytest.skip("this disk takes both for one")
    with pytest.raises(DataError, match="two folders are called é"):
        ImageFolder(root=str(tmp_path), val_share=0.5)


# What holds no data


@pytest.mark.parametrize("junk", ["@eaDir", "__MACOSX", "lost+found", ".ipynb_checkpoints", "$RECYCLE.BIN", ".git"])
def test_folders_that_systems_leave_behind_are_neither_classes_nor_images(tmp_path, write, junk):
    for split in ("train", "val"):
        for name in ("a", "b"):
            write(tmp_path / split / name / "1.png", GREY)
            write(tmp_path / split / name / junk / "1.png", GREY)
        write(tmp_path / split / junk / "1.png", GREY)
    data = ImageFolder(root=str(tmp_path), image_size=8, eval_resize=8)
    assert data.classes == ["a", "b"]
    assert len(data.train_set()) == len(data.val_set()) == 2
    assert len(images_below(tmp_path)) == 4


def test_files_below_the_masks_within_the_images_are_no_images(tmp_path, write):
    for split in ("train", "val"):
        write(tmp_path / split / "1.png", GREY)
        write(tmp_path / split / "masks" / "1.png", MASK)
    data = MaskFolder(
        root=str(tmp_path), class_names=["a", "b", "c"], train_images="train", train_masks="train/masks",
        val_images="val", val_masks="val/masks",
    )  # fmt: skip
    assert list(data.train_set().images.names()) == ["1.png"]


def test_other_endings_are_counted_once(tmp_path, write, capsys):
    for split in ("train", "val"):
        for name in ("a", "b"):
            write(tmp_path / split / name / "1.png", GREY)
            for other in ("x.heic", "y.HEIC", "z.txt", "README"):
                (tmp_path / split / name / other).write_text("")
    data = ImageFolder(root=str(tmp_path), image_size=8, eval_resize=8)
    data.train_set(), data.train_set()
    said = [line for line in capsys.readouterr().out.splitlines() if "passed over" in line]
    assert said == [
        f"note: {tmp_path}/train: passed over 8 files that are no images: .heic (4), without an ending (2), .txt (2)"
    ]


# Links


def test_a_link_to_a_class_that_is_gone_is_named(tmp_path, write):
    write(tmp_path / "train/a/1.png", GREY)
    (tmp_path / "train/b").symlink_to(tmp_path / "gone")
    with pytest.raises(DataError, match=r"train/b: is a link to .*/gone, which is not there"):
        ImageFolder(root=str(tmp_path), val_share=0.5)


def test_a_link_to_an_image_that_is_gone_is_named(tmp_path, write):
    for split in ("train", "val"):
        for name in ("a", "b"):
            write(tmp_path / split / name / "1.png", GREY)
    (tmp_path / "val/a/2.png").symlink_to(tmp_path / "gone.png")
    data = ImageFolder(root=str(tmp_path), image_size=8, eval_resize=8)
    with pytest.raises(BadFileError, match=r"val/a/2\.png: is a link to .*/gone\.png, which is not there"):
        data.check(data.val_set())


def test_a_link_to_an_image_that_is_gone_is_named_in_prediction(tmp_path, write, capsys):
    write(tmp_path / "1.png", GREY)
    (tmp_path / "2.png").symlink_to("gone.png")
    images = ReadableImages(image_paths(str(tmp_path)))
    assert [path.name for path, _ in images] == ["1.png"]
    with pytest.raises(DataError, match=r"2\.png: is a link to gone\.png"):
        images.check_all_were_read()


def test_links_that_lead_somewhere_are_followed(tmp_path, write):
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
def test_images_and_masks_are_paired_without_what_their_names_end_in(
    tmp_path, write, images, masks, image_suffix, mask_suffix
):
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


def test_images_and_masks_in_one_folder_are_told_apart(tmp_path, write):
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
    with pytest.raises(DataError, match="have the same name but for their endings"):
        MaskFolder(root=str(tmp_path), class_names=["a", "b", "c"]).train_set()


# Lists

ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-32"]


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_a_list_is_read_whatever_its_unicode_encoding(tmp_path, encoding, newline):
    (tmp_path / "list").write_bytes(newline.join(NAMES).encode(encoding))
    assert lines(tmp_path / "list") == NAMES


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("plain\ncafé".encode("latin-1"), "list, line 2: is not utf-8"),
        ("a\n東京".encode("shift-jis"), "list, line 2: is not utf-8"),
        ("plain".encode("utf-16-le"), "UTF-16 without a byte order mark"),
        (b"\xff\xfeo", "line 1: is not utf-16"),
    ],
)
def test_another_encoding_is_refused_by_its_line(tmp_path, content, said):
    (tmp_path / "list").write_bytes(content)
    with pytest.raises(DataError, match=said):
        lines(tmp_path / "list")


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
def test_a_list_of_exclusions_may_have_any_unicode_encoding(tmp_path, encoding):
    (tmp_path / "list").write_bytes("# bad\nfirst.png\ngröße.png\n".encode(encoding))
    (tmp_path / "first.png").write_text("")
    assert excluded_files(str(tmp_path / "list")) == {f"{tmp_path}/first.png", f"{tmp_path}/größe.png"}


def test_a_list_of_exclusions_none_of_which_is_there_is_said(tmp_path, capsys):
    (tmp_path / "list").write_text("train/1.png\ntrain/2.png\n")
    excluded_files(str(tmp_path / "list"))
    assert "none of its 2 files is there; the first is" in capsys.readouterr().out


def test_names_of_any_bytes_can_be_excluded(tmp_path):
    name = os.fsdecode(b"latin-\xe9.png")
    (tmp_path / "list").write_bytes(os.fsencode(name))
    (tmp_path / name).write_text("")
    assert excluded_files(str(tmp_path / "list")) == {f"{tmp_path}/{name}"}


# Classes and labels that make no sense


def test_folders_that_are_splits_are_no_classes(tmp_path, write):
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


def test_255_that_is_a_class_is_not_ignored_in_silence(labelled, capsys):
    data = labelled([0, 255], class_names=["background", "object"])
    data.check(data.train_set())
    said = capsys.readouterr().out
    assert (
        "note: 1 of 2 classes have no pixel in the 1 masks checked (object); 50 % of their pixels are ignored." in said
    )
    assert "data.label_map={0:0,255:1} data.ignore_labels=[]" in said
    mended = labelled([0, 255], class_names=["background", "object"], label_map={0: 0, 255: 1}, ignore_labels=[])
    mended.check(mended.train_set())
    assert mended.train_set().target(0).tolist() == [[0, 1]] * 6


def test_labels_from_1_are_moved_by_a_map(labelled):
    with pytest.raises(DataError, match=r"0 is the label of class 'a'.*data\.label_map=\{1:0,2:1,3:2\}"):
        labelled([0, 1, 2, 3], class_names=["a", "b", "c"], ignore_labels=[0, 255])
    data = labelled([0, 1, 2, 3], class_names=["a", "b", "c"], ignore_labels=[0, 255], label_map={1: 0, 2: 1, 3: 2})
    assert data.train_set().target(0)[0].tolist() == [255, 0, 1, 2]


def test_a_label_beyond_the_classes_is_not_simply_to_be_ignored(labelled):
    data = labelled([1, 2, 3], class_names=["a", "b", "c"])
    with pytest.raises(BadFileError, match=r"labels \[3\] are out of range; .*data\.label_map"):
        data.check(data.train_set())


@pytest.mark.parametrize(
    ("label_map", "ignored", "said"),
    [
        ({1: 0}, [255], "no value is 1, the class 'b'"),
        ({1: 0, 2: 5}, [255], "2:5 is not the value of a pixel"),
        ({1: 0, 300: 1}, [255], "300:1 is not the value of a pixel"),
        ({0: 0, 255: 1}, [255], "both have 255"),
    ],
)
def test_a_map_that_makes_no_sense_is_refused(labelled, label_map, ignored, said):
    with pytest.raises(DataError, match=said):
        labelled([0], class_names=["a", "b"], label_map=label_map, ignore_labels=ignored)


def test_two_values_can_be_one_class(labelled):
    data = labelled([0, 1, 2], class_names=["a", "b"], label_map={0: 0, 1: 1, 2: 1})
    assert data.train_set().target(0)[0].tolist() == [0, 1, 1]


def test_a_class_without_a_pixel_is_said(labelled, capsys):
    data = labelled([0, 1, 255], class_names=["a", "b", "c"])
    data.check(data.train_set())
    assert (
        "note: 1 of 3 classes have no pixel in the 1 masks checked (c); 33 % of their pixels are ignored"
        in capsys.readouterr().out
    )


def test_masks_that_are_ignored_as_a_whole_are_refused(labelled):
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
        "note: of 4 images that were looked at, 2 are transparent somewhere; white is shown there"
        in capsys.readouterr().out
    )


@pytest.mark.parametrize("orientation", [6, 8])
def test_a_mask_that_was_not_turned_with_its_image_is_named_as_exif(tmp_path, write, orientation):
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = orientation
    write(tmp_path / "train/images/0.jpg", Image.new("RGB", (12, 8)), exif=exif)
    write(tmp_path / "train/masks/0.png", np.zeros((8, 12), np.uint8))
    data = MaskFolder(root=str(tmp_path), class_names=["a", "b"])
    with pytest.raises(BadFileError, match=rf"its EXIF orientation is {orientation}, and the mask is not: turn it"):
        data.check(data.train_set())
    write(tmp_path / "train/masks/0.png", np.zeros((12, 8), np.uint8))
    data.check(data.train_set())


def test_a_half_turn_beside_a_mask_is_noted(tmp_path, write, capsys):
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 3
    write(tmp_path / "train/images/0.jpg", Image.new("RGB", (12, 8)), exif=exif)
    write(tmp_path / "train/masks/0.png", np.zeros((8, 12), np.uint8))
    data = MaskFolder(root=str(tmp_path), class_names=["a", "b"])
    data.check(data.train_set())
    assert "1 are turned by their EXIF orientation to the same size" in capsys.readouterr().out
