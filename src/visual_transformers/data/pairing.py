"""Which mask belongs to which image: by the same path, by COCO's number, or by a list of names."""

from __future__ import annotations

import re
from collections.abc import Sequence, Set
from pathlib import Path, PurePath

from visual_transformers.data.exclusion import is_excluded
from visual_transformers.data.files import IMAGE_SUFFIXES, folder
from visual_transformers.data.index import FileIndex
from visual_transformers.data.listing import files_below
from visual_transformers.errors import DataError, MissingMasksError

Pairs = tuple[FileIndex, FileIndex]
"""Image files, and at the same places their mask files."""


def pair(images: Path, masks: Path, layout: str, mask_suffix: str = ".png", excluded: Set[str] = frozenset()) -> Pairs:
    """The images of a folder, and beside each the mask of the same path.

    Args:
        images, masks: folders of both.
        layout: what the data set should look like, for messages.
        mask_suffix: what follows an image's stem in its mask's name.
        excluded: absolute paths of images that need no mask.

    Raises:
        MissingMasksError: if others have none.
        DataError: if a folder is missing, or there are no images.
    """
    folder(images, layout)
    folder(masks, layout)
    names = [n for n in files_below(images, IMAGE_SUFFIXES) if images != masks or not n.endswith(mask_suffix)]
    needed = [f"{name.rsplit('.', 1)[0]}{mask_suffix}" for name in names]
    present = set(files_below(masks, (mask_suffix.lower(),)))
    alone = [(image, mask) for image, mask in zip(names, needed, strict=True) if mask not in present]
    return _paired((images, names), (masks, needed), alone, excluded, layout)


def pair_by_number(images: Path, masks: Path, layout: str, excluded: Set[str] = frozenset()) -> Pairs:
    """The images of a folder, however nested, and the PNG masks of the same image number, wherever they lie.

    Args:
        images, masks: folders of both.
        layout: what the data set should look like, for messages.
        excluded: absolute paths of images that need no mask.

    Raises:
        MissingMasksError: if others have none.
        DataError: if a folder is missing, there are no images, or a number comes twice.
    """
    by_number, masks_by_number = numbered(images, IMAGE_SUFFIXES, layout), numbered(masks, (".png",), layout)
    needed = [masks_by_number.get(number, f"{PurePath(name).stem}.png") for number, name in by_number.items()]
    pairs = zip(by_number, by_number.values(), needed, strict=True)
    alone = [(image, mask) for number, image, mask in pairs if number not in masks_by_number]
    return _paired((images, [*by_number.values()]), (masks, needed), alone, excluded, layout)


def pair_listed(names: Path, images: Path, masks: Path, layout: str, excluded: Set[str] = frozenset()) -> Pairs:
    """The images that a text file names without their suffix, one a line, in its order: `.jpg` files with `.png` masks.

    Args:
        names: the text file.
        images, masks: folders of both.
        layout: what the data set should look like, for messages.
        excluded: absolute paths of images that need not be there, nor have a mask.

    Raises:
        MissingMasksError: if others have no mask.
        DataError: if the text file, a folder or an image is missing, or no image is named.
    """
    if not names.is_file():
        raise DataError(f"{names}: no such file; expected the layout\n{layout}")
    stems = names.read_text(encoding="utf-8").split()
    if not stems:
        raise DataError(f"{names}: names no images; it should hold a name a line, without .jpg")
    pictures, needed = [f"{stem}.jpg" for stem in stems], [f"{stem}.png" for stem in stems]
    present = set(files_below(folder(images, layout), (".jpg",)))
    absent = [name for name in pictures if name not in present]
    if missing := [name for name in absent if not is_excluded(excluded, images / name)]:
        raise DataError(
            f"{len(missing)} of the {len(stems)} images that {names} names are not there; the first is "
            f"{images / missing[0]}; add them, or take their names out of the list"
        )
    present = set(files_below(folder(masks, layout), (".png",)))
    alone = [(image, mask) for image, mask in zip(pictures, needed, strict=True) if mask not in present]
    return _paired((images, pictures), (masks, needed), alone, excluded, layout)


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


def refuse_unmasked(alone: Sequence[tuple[Path, Path]], excluded: Set[str], images: int) -> None:
    """Refuse images that are `alone`, each beside the mask it needs, of `images` in all.

    Raises:
        MissingMasksError: if one of them is not excluded.
    """
    if missing := [files for files in alone if not is_excluded(excluded, *files)]:
        raise MissingMasksError(missing, images)


def _paired(
    images: tuple[Path, Sequence[str]],
    masks: tuple[Path, Sequence[str]],
    alone: Sequence[tuple[str, str]],
    excluded: Set[str],
    layout: str,
) -> Pairs:
    """The indices of both, unless there are no images or one that is `alone`, without the mask it needs, counts."""
    (folder_, names), (mask_folder, needed) = images, masks
    if not names:
        raise DataError(f"{folder_}: holds no images; expected the layout\n{layout}")
    refuse_unmasked([(folder_ / image, mask_folder / mask) for image, mask in alone], excluded, len(names))
    return FileIndex(folder_, names), FileIndex(mask_folder, needed)
