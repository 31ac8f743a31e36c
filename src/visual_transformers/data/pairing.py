"""Which mask belongs to which image: by the same path, by COCO's number, or by a list of names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path, PurePath

from visual_transformers.data.files import IMAGE_SUFFIXES, folder
from visual_transformers.data.index import FileIndex
from visual_transformers.data.listing import files_below
from visual_transformers.errors import DataError

Pairs = tuple[FileIndex, FileIndex]
"""Image files, and at the same places their mask files."""


def pair(images: Path, masks: Path, layout: str, mask_suffix: str = ".png") -> Pairs:
    """The images of a folder, and beside each the mask of the same path.

    Args:
        images, masks: folders of both.
        layout: what the data set should look like, for messages.
        mask_suffix: what follows an image's stem in its mask's name.

    Raises:
        DataError: if a folder or a mask is missing, or there are no images.
    """
    folder(images, layout)
    folder(masks, layout)
    names = [n for n in files_below(images, IMAGE_SUFFIXES) if images != masks or not n.endswith(mask_suffix)]
    needed = [f"{name.rsplit('.', 1)[0]}{mask_suffix}" for name in names]
    present = set(files_below(masks, (mask_suffix.lower(),)))
    missing = [place for place, name in enumerate(needed) if name not in present]
    _refuse_gaps(images, names, masks, [needed[place] for place in missing], missing, layout)
    return FileIndex(images, names), FileIndex(masks, needed)


def pair_by_number(images: Path, masks: Path, layout: str) -> Pairs:
    """The images of a folder, however nested, and the PNG masks of the same image number, wherever they lie.

    Args:
        images, masks: folders of both.
        layout: what the data set should look like, for messages.

    Raises:
        DataError: if a folder or a mask is missing, there are no images, or a number comes twice.
    """
    by_number, masks_by_number = numbered(images, IMAGE_SUFFIXES, layout), numbered(masks, (".png",), layout)
    names = list(by_number.values())
    missing = [place for place, number in enumerate(by_number) if number not in masks_by_number]
    _refuse_gaps(images, names, masks, [f"{PurePath(names[i]).stem}.png" for i in missing], missing, layout)
    return FileIndex(images, names), FileIndex(masks, [masks_by_number[number] for number in by_number])


def pair_listed(names: Path, images: Path, masks: Path, layout: str) -> Pairs:
    """The images that a text file names without their suffix, one a line, in its order: `.jpg` files with `.png` masks.

    Args:
        names: the text file.
        images, masks: folders of both.
        layout: what the data set should look like, for messages.

    Raises:
        DataError: if the text file, a folder, an image or a mask is missing, or no image is named.
    """
    if not names.is_file():
        raise DataError(f"{names}: no such file; expected the layout\n{layout}")
    stems = names.read_text(encoding="utf-8").split()
    if not stems:
        raise DataError(f"{names}: names no images; it should hold a name a line, without .jpg")
    pairs = [(images, [f"{stem}.jpg" for stem in stems]), (masks, [f"{stem}.png" for stem in stems])]
    for place, files in pairs:
        present = set(files_below(folder(place, layout), (PurePath(files[0]).suffix,)))
        if missing := [file for file in files if file not in present]:
            raise DataError(
                f"{len(missing)} of the {len(stems)} files that {names} names are not there; the first is "
                f"{place / missing[0]}; add them, or take their names out of the list"
            )
    return FileIndex(*pairs[0]), FileIndex(*pairs[1])


def numbered(place: Path, suffixes: tuple[str, ...], layout: str) -> dict[int | str, str]:
    """The files of a folder by the number of their image, sorted by path.

    Raises:
        DataError: if the folder is missing, or two files have one number.
    """
    files: dict[int | str, str] = {}
    for name in files_below(folder(place, layout), suffixes):
        number = image_id(PurePath(name))
        if number in files:
            raise DataError(
                f"{place}: {files[number]} and {name} are both image {number}; remove one, or name a folder that "
                "holds one split alone"
            )
        files[number] = name
    return files


def image_id(path: PurePath) -> int | str:
    """139 for `000000000139.jpg` and `COCO_val2014_000000000139.jpg`; the stem for other names."""
    number = re.fullmatch(r"(?:COCO_[a-z]+[0-9]{4}_)?([0-9]+)", path.stem)
    return int(number[1]) if number else path.stem


def _refuse_gaps(
    images: Path, names: Sequence[str], masks: Path, needed: Sequence[str], missing: Sequence[int], layout: str
) -> None:
    """Refuse a folder without images, and images at the `missing` places, whose masks would be the `needed` ones."""
    if not names:
        raise DataError(f"{images}: holds no images; expected the layout\n{layout}")
    if missing:
        raise DataError(
            f"{len(missing)} of {len(names)} images have no mask; the first is {images / names[missing[0]]}, which "
            f"needs {masks / needed[0]}"
        )
