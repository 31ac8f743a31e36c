"""ILSVRC2012 as published: its folders, and the labels of its flat `val` folder."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from scipy.io import loadmat

from visual_transformers.data.classification.base import LabelledFiles
from visual_transformers.data.classification.class_folders import group_by_class
from visual_transformers.data.io.exclude_list import is_excluded
from visual_transformers.data.io.file_listing import list_files
from visual_transformers.data.io.files import IMAGE_SUFFIXES, join_first
from visual_transformers.data.io.text_lists import read_lines
from visual_transformers.errors import DataError

SPLIT_ROOTS = (".", "ILSVRC/Data/CLS-LOC", "Data/CLS-LOC", "CLS-LOC")
"""Folders of the splits below the root, which is Kaggle's archive or a part of it."""
SOLUTION = "LOC_val_solution.csv"
DEVKIT = "ILSVRC2012_devkit_t12/data"
GROUND_TRUTH = "ILSVRC2012_validation_ground_truth.txt"
LEVELS = 4
"""Folders above the validation images that are searched for labels: CLS-LOC, Data, ILSVRC and Kaggle's root."""
LAYOUT = f"""  {{root}}/ILSVRC/Data/CLS-LOC/train/<class>/*.JPEG
  {{root}}/ILSVRC/Data/CLS-LOC/val/*.JPEG
  {{root}}/{SOLUTION} or {{root}}/{DEVKIT}/{GROUND_TRUTH}"""


@dataclass(frozen=True)
class ValidationLabels:
    """WordNet ids of the validation images by file name without suffix, and the file that they come from."""

    path: Path
    wnids: dict[str, str]

    def check_classes(self, known: list[str]) -> None:
        """Check that every class is one of the training split.

        Raises:
            DataError: if one is not.
        """
        if unknown := sorted(set(self.wnids.values()) - set(known)):
            raise DataError(
                f"{self.path}: classes that the training split does not have: {join_first(unknown)}. Add their "
                f"training images, or use only the {len(known)} classes that it has with data.classes={len(known)}."
            )

    def label_files(self, folder: Path, classes: list[str], excluded: set[str]) -> LabelledFiles:
        """Label the images of a flat folder that belong to `classes`.

        Raises:
            DataError: if an image has no label, or one of these classes is missing and not `excluded`.
        """
        names = list_files(folder, IMAGE_SUFFIXES, report_others=True)
        stems = [PurePosixPath(name).stem for name in names]
        if unlabelled := [name for name, stem in zip(names, stems, strict=True) if stem not in self.wnids]:
            raise DataError(
                f"{folder}: {len(unlabelled)} of {len(names)} images have no label in {self.path}: "
                f"{join_first(unlabelled)}. Remove them, or replace that file with the complete one."
            )
        selected = set(classes)
        expected = {stem for stem, wnid in self.wnids.items() if wnid in selected}
        absent = [f"{stem}.JPEG" for stem in sorted(expected - set(stems))]
        if missing := [name for name in absent if not is_excluded(excluded, folder / name)]:
            raise DataError(
                f"{folder}: {len(missing)} of {len(expected)} images that {self.path} lists are missing: "
                f"{join_first(missing)}. Copy them, or list them in the file of data.exclude."
            )
        return group_by_class(folder, names, (self.wnids[stem] for stem in stems), classes)


def find_split_root(root: Path, train: str) -> Path:
    """Find the folder that contains the split folders; return the root if there is none."""
    return next((root / below for below in SPLIT_ROOTS if (root / below / train).is_dir()), root)


def is_flat_val_folder(path: Path) -> bool:
    """Return True if ILSVRC's validation images lie directly in a folder."""
    with os.scandir(path) as entries:
        return any(entry.name.startswith("ILSVRC2012_val_") and entry.is_file() for entry in entries)


def find_labels(folder: Path) -> ValidationLabels:
    """Read the labels of a flat folder's images from the nearest file next to it or above.

    Raises:
        DataError: if there is none, or it is not as published.
    """
    parents = folder.absolute().parents[:LEVELS]
    for parent in parents:
        if (solution := parent / SOLUTION).is_file():
            return read_solution(solution)
        if (ground_truth := parent / DEVKIT / GROUND_TRUTH).is_file():
            return read_devkit(ground_truth)
    raise DataError(
        f"{folder}: holds no class folders, and the labels of a flat folder are missing. Put Kaggle's {SOLUTION} or "
        f"the unpacked devkit's {DEVKIT}/{GROUND_TRUTH} into {parents[0]} or one of the {len(parents) - 1} folders "
        "above."
    )


def read_solution(path: Path) -> ValidationLabels:
    """Read Kaggle's file: a header, then per line an image's name, a comma, and class and corners of its boxes."""
    wnids = {}
    for number, line in enumerate(read_lines(path)[1:], start=2):
        if not (match := re.match(r"(\w+),(n\d{8})(?!\S)", line)):
            raise DataError(
                f"{path}, line {number}: {line[:60]!r} is not NAME,WNID X Y X Y ... as in Kaggle's file. Download the "
                "file again."
            )
        wnids[match[1]] = match[2]
    return ValidationLabels(path, wnids)


def read_devkit(path: Path) -> ValidationLabels:
    """Read the devkit's file: per line the number of an image's class in `meta.mat`, in the order of the images."""
    meta = path.with_name("meta.mat")
    wnid_of = _read_class_numbers(meta)
    wnids = {}
    for number, line in enumerate(filter(None, read_lines(path)), start=1):
        if line not in wnid_of:
            raise DataError(f"{path}, line {number}: {line[:60]!r} is no class of {meta}. Download both again.")
        wnids[f"ILSVRC2012_val_{number:08}"] = wnid_of[line]
    return ValidationLabels(path, wnids)


def _read_class_numbers(path: Path) -> dict[str, str]:
    """Read the WordNet id of each class number; inner nodes of the hierarchy are no classes."""
    if not path.is_file():
        raise DataError(f"{path}: no such file. The labels next to it are its class numbers, so put it there.")
    try:
        synsets: Any = loadmat(path, squeeze_me=True)["synsets"]
        columns = (synsets[name].tolist() for name in ("ILSVRC2012_ID", "WNID", "num_children"))
        rows = zip(*columns, strict=True)
        return {str(int(number)): str(wnid) for number, wnid, children in rows if children == 0}
    except Exception as error:  # scipy raises many kinds for damaged files, e.g. those of zlib and struct
        raise DataError(
            f"{path}: is not the devkit's file ({type(error).__name__}: {error}). Download it again."
        ) from error
