"""Which mask belongs to which image: by the same path, by COCO's number, or by a list of names."""

from __future__ import annotations

import re
from collections.abc import Sequence, Set
from pathlib import Path, PurePath

from visual_transformers.data.io.exclude_list import is_excluded
from visual_transformers.data.io.file_index import FileIndex
from visual_transformers.data.io.file_listing import files_below
from visual_transformers.data.io.file_names import same
from visual_transformers.data.io.files import IMAGE_SUFFIXES, folder
from visual_transformers.data.io.text_lists import lines
from visual_transformers.errors import DataError, MissingMasksError

Pairs = tuple[FileIndex, FileIndex]
"""Image files, and at the same places their mask files."""


def pair(
    images: Path,
    masks: Path,
    layout: str,
    *,
    image_suffix: str | None = None,
    mask_suffix: str = ".png",
    excluded: Set[str] = frozenset(),
) -> Pairs:
    """The images of a folder, and beside each the mask of the same path but for what both names end in.

    Args:
        images, masks: folders of both; what is in a folder of masks within that of images is no image.
        layout: what the data set should look like, for messages.
        image_suffix: what the names of images end in; None for the ending of any image file.
        mask_suffix: what the names of masks end in, in its place.
        excluded: absolute paths of images that need no mask.

    Raises:
        MissingMasksError: if others have none.
        DataError: if a folder is missing, there are no images, or two masks are of one image.
    """
    folder(images, layout)
    folder(masks, layout)
    mask_names = files_below(masks, (mask_suffix.lower(),))
    names = files_below(images, (image_suffix.lower(),) if image_suffix else IMAGE_SUFFIXES, report_others=True)
    if images == masks and image_suffix and len(image_suffix) > len(mask_suffix):  # what ends in both is an image
        mask_names = [name for name in mask_names if not name.lower().endswith(image_suffix.lower())]
    elif images == masks:
        names = [name for name in names if not name.lower().endswith(mask_suffix.lower())]
    elif masks.is_relative_to(images):
        names = [name for name in names if not name.startswith(f"{masks.relative_to(images).as_posix()}/")]
    mask_of = _by_stem(mask_names, mask_suffix, masks)
    stems = [name[: -len(image_suffix)] if image_suffix else name.rpartition(".")[0] for name in names]
    needed = [mask_of.get(same(stem), f"{stem}{mask_suffix}") for stem in stems]
    alone = [(name, mask) for name, stem, mask in zip(names, stems, needed, strict=True) if same(stem) not in mask_of]
    found = next(iter(mask_of.values() or files_below(masks, IMAGE_SUFFIXES)), None)
    hint = (
        f". That folder contains e.g. {found}; set the endings of both with data.image_suffix and data.mask_suffix"
        if found
        else ""
    )
    return _paired((images, names), (masks, needed), alone, excluded, layout, hint)


def _by_stem(names: Sequence[str], suffix: str, folder: Path) -> dict[str, str]:
    """Files by their paths without the suffix, as these are compared with others.

    Raises:
        DataError: if two have one.
    """
    found: dict[str, str] = {}
    for name in names:
        stem = same(name[: -len(suffix)])
        if stem in found:
            raise DataError(f"{folder}: {found[stem]} and {name} have the same name but for their endings; remove one")
        found[stem] = name
    return found


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
    stems = list(filter(None, lines(names)))
    if not stems:
        raise DataError(f"{names}: names no images; it should hold a name a line, without .jpg")
    image_of = _by_stem(files_below(folder(images, layout), (".jpg",)), ".jpg", images)
    mask_of = _by_stem(files_below(folder(masks, layout), (".png",)), ".png", masks)
    pictures = [image_of.get(same(stem), f"{stem}.jpg") for stem in stems]
    needed = [mask_of.get(same(stem), f"{stem}.png") for stem in stems]
    absent = [name for name, stem in zip(pictures, stems, strict=True) if same(stem) not in image_of]
    if missing := [name for name in absent if not is_excluded(excluded, images / name)]:
        raise DataError(
            f"{len(missing)} of the {len(stems)} images that {names} names are not there; the first is "
            f"{images / missing[0]}; add them, or take their names out of the list"
        )
    rows = zip(pictures, stems, needed, strict=True)
    alone = [(image, mask) for image, stem, mask in rows if same(stem) not in mask_of]
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


def refuse_unmasked(alone: Sequence[tuple[Path, Path]], excluded: Set[str], images: int, hint: str = "") -> None:
    """Refuse images that are `alone`, each beside the mask it needs, of `images` in all; `hint` ends the message.

    Raises:
        MissingMasksError: if one of them is not excluded.
    """
    if missing := [files for files in alone if not is_excluded(excluded, *files)]:
        raise MissingMasksError(missing, images, hint)


def _paired(
    images: tuple[Path, Sequence[str]],
    masks: tuple[Path, Sequence[str]],
    alone: Sequence[tuple[str, str]],
    excluded: Set[str],
    layout: str,
    hint: str = "",
) -> Pairs:
    """The indices of both, unless there are no images or one that is `alone`, without the mask it needs, counts."""
    (folder_, names), (mask_folder, needed) = images, masks
    if not names:
        raise DataError(f"{folder_}: holds no images; expected the layout\n{layout}")
    refuse_unmasked([(folder_ / image, mask_folder / mask) for image, mask in alone], excluded, len(names), hint)
    return FileIndex(folder_, names), FileIndex(mask_folder, needed)
