"""Pairs of image and mask files: with the same path, with the same COCO number, or from a list of names.

In all functions, `layout` is the expected layout, for messages, and `excluded` has absolute paths of images that need
no mask.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence, Set
from pathlib import Path, PurePath
from typing import Any

from visual_transformers.data.io.exclude_list import is_excluded
from visual_transformers.data.io.file_index import FileIndex
from visual_transformers.data.io.file_listing import list_files
from visual_transformers.data.io.file_names import normalize_name
from visual_transformers.data.io.files import IMAGE_SUFFIXES, require_folder
from visual_transformers.data.io.text_lists import read_lines
from visual_transformers.errors import DataError, MissingMasksError

Pairs = tuple[FileIndex, FileIndex]
"""Image files, and their mask files in the same order."""
ImageId = int | str
"""COCO's number of an image; the stem for files that are named differently."""


def pair_by_path(
    images: Path,
    masks: Path,
    layout: str,
    *,
    image_suffix: str | None = None,
    mask_suffix: str = ".png",
    excluded: Set[str] = frozenset(),
) -> Pairs:
    """Pair the images of a folder with the masks of the same paths; only their suffixes differ.

    Without `image_suffix`, an image may have any suffix of an image file. A folder of masks may lie within that of the
    images, or be the same.

    Raises:
        MissingMasksError: if other images have no mask.
        DataError: if a folder is missing, there are no images, or an image has two masks.
    """
    require_folder(images, layout)
    require_folder(masks, layout)
    mask_names = list_files(masks, (mask_suffix.lower(),))
    names = list_files(images, (image_suffix.lower(),) if image_suffix else IMAGE_SUFFIXES, report_others=True)
    if images == masks and image_suffix and len(image_suffix) > len(mask_suffix):  # a name with both suffixes: an image
        mask_names = [name for name in mask_names if not name.lower().endswith(image_suffix.lower())]
    elif images == masks:
        names = [name for name in names if not name.lower().endswith(mask_suffix.lower())]
    elif masks.is_relative_to(images):
        names = [name for name in names if not name.startswith(f"{masks.relative_to(images).as_posix()}/")]
    mask_of = _index_by_stem(mask_names, mask_suffix, masks)
    stems = [name[: -len(image_suffix)] if image_suffix else name.rpartition(".")[0] for name in names]
    rows = [(name, normalize_name(stem), f"{stem}{mask_suffix}") for name, stem in zip(names, stems, strict=True)]
    example = next(iter(mask_of.values() or list_files(masks, IMAGE_SUFFIXES)), None)
    hint = (
        f". That folder contains e.g. {example}; set both suffixes with data.image_suffix and data.mask_suffix"
        if example
        else ""
    )
    return _pair_rows(rows, mask_of, images, masks, layout, excluded, hint)


def pair_by_id(images: Path, masks: Path, layout: str, excluded: Set[str] = frozenset()) -> Pairs:
    """Pair images and PNG masks of the same COCO number, in nested folders too.

    Raises:
        MissingMasksError: if other images have no mask.
        DataError: if a folder is missing, there are no images, or two files have the same number.
    """
    image_of, mask_of = index_by_id(images, IMAGE_SUFFIXES, layout), index_by_id(masks, (".png",), layout)
    rows = [(name, number, f"{PurePath(name).stem}.png") for number, name in image_of.items()]
    return _pair_rows(rows, mask_of, images, masks, layout, excluded)


def pair_listed(names: Path, images: Path, masks: Path, layout: str, excluded: Set[str] = frozenset()) -> Pairs:
    """Pair `.jpg` images with `.png` masks in the order of a text file of names, one per line without suffix.

    Raises:
        MissingMasksError: if other images have no mask.
        DataError: if the text file, a folder or an image is missing, or no image is listed.
    """
    if not names.is_file():
        raise DataError(f"{names}: no such file; expected the layout\n{layout}")
    stems = list(filter(None, read_lines(names)))
    if not stems:
        raise DataError(f"{names}: names no images. It should hold one name per line, without .jpg.")
    image_of = _index_by_stem(list_files(require_folder(images, layout), (".jpg",)), ".jpg", images)
    mask_of = _index_by_stem(list_files(require_folder(masks, layout), (".png",)), ".png", masks)
    keys = list(map(normalize_name, stems))
    absent = [f"{stem}.jpg" for stem, key in zip(stems, keys, strict=True) if key not in image_of]
    if missing := [name for name in absent if not is_excluded(excluded, images / name)]:
        raise DataError(
            f"{len(missing)} of the {len(stems)} images that {names} names are missing; the first is "
            f"{images / missing[0]}. Add them, or remove their names from the list."
        )
    rows = [(image_of.get(key, f"{stem}.jpg"), key, f"{stem}.png") for stem, key in zip(stems, keys, strict=True)]
    return _pair_rows(rows, mask_of, images, masks, layout, excluded)


def index_by_id(folder: Path, suffixes: tuple[str, ...], layout: str) -> dict[ImageId, str]:
    """Index the files of a folder by the ids of their images, sorted by path.

    Raises:
        DataError: if the folder is missing, or two files have the same id.
    """
    files: dict[ImageId, str] = {}
    for name in list_files(require_folder(folder, layout), suffixes):
        number = parse_image_id(PurePath(name))
        if number in files:
            raise DataError(
                f"{folder}: {files[number]} and {name} are both image {number}. Remove one, or choose a folder that "
                "holds only one split."
            )
        files[number] = name
    return files


def parse_image_id(path: PurePath) -> ImageId:
    """Return 139 for `000000000139.jpg` and `COCO_val2014_000000000139.jpg`, and the stem of other names."""
    match = re.fullmatch(r"(?:COCO_[a-z]+[0-9]{4}_)?([0-9]+)", path.stem)
    return int(match[1]) if match else path.stem


def check_missing_masks(unmasked: Iterable[tuple[Path, Path]], excluded: Set[str], images: int, hint: str = "") -> None:
    """Check that `unmasked` images, each given with the path of the mask that it needs, are excluded.

    Raises:
        MissingMasksError: if one of them is not excluded.
    """
    if missing := [files for files in unmasked if not is_excluded(excluded, *files)]:
        raise MissingMasksError(missing, images, hint)


def _index_by_stem(names: Sequence[str], suffix: str, folder: Path) -> dict[str, str]:
    """Index files by their normalized paths without the suffix."""
    files: dict[str, str] = {}
    for name in names:
        stem = normalize_name(name[: -len(suffix)])
        if stem in files:
            raise DataError(f"{folder}: {files[stem]} and {name} differ only in their suffixes. Remove one.")
        files[stem] = name
    return files


def _pair_rows(
    rows: Sequence[tuple[str, ImageId, str]],
    mask_of: Mapping[Any, str],
    images: Path,
    masks: Path,
    layout: str,
    excluded: Set[str],
    hint: str = "",
) -> Pairs:
    """Pair images with masks by rows of an image's name, its key in `mask_of`, and the mask that it needs."""
    if not rows:
        raise DataError(f"{images}: holds no images; expected the layout\n{layout}")
    unmasked = [(images / name, masks / needed) for name, key, needed in rows if key not in mask_of]
    check_missing_masks(unmasked, excluded, len(rows), hint)
    mask_names = [mask_of.get(key, needed) for _, key, needed in rows]
    return FileIndex(images, [name for name, *_ in rows]), FileIndex(masks, mask_names)
