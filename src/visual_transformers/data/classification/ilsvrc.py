"""ILSVRC2012 as it is published: where its splits are, and whose class each image of its flat `val` folder is."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from scipy.io import loadmat

from visual_transformers.data.classification.base import LabelledFiles
from visual_transformers.data.classification.class_folders import in_class_order
from visual_transformers.data.io.exclude_list import is_excluded
from visual_transformers.data.io.file_listing import files_below
from visual_transformers.data.io.files import IMAGE_SUFFIXES, first
from visual_transformers.data.io.text_lists import lines
from visual_transformers.errors import DataError

HOMES = (".", "ILSVRC/Data/CLS-LOC", "Data/CLS-LOC", "CLS-LOC")
"""Where the split folders are below the root: Kaggle's archive, or a part of it."""
SOLUTION = "LOC_val_solution.csv"
DEVKIT = "ILSVRC2012_devkit_t12/data"
GROUND_TRUTH = "ILSVRC2012_validation_ground_truth.txt"
LEVELS = 4
"""Folders above the validation images in which their labels are looked for: CLS-LOC, Data, ILSVRC and Kaggle's root."""
LAYOUT = f"""  {{root}}/ILSVRC/Data/CLS-LOC/train/<class>/*.JPEG
  {{root}}/ILSVRC/Data/CLS-LOC/val/*.JPEG
  {{root}}/{SOLUTION} or {{root}}/{DEVKIT}/{GROUND_TRUTH}"""


@dataclass(frozen=True)
class Truth:
    """The WordNet id of each validation image, by the image's name without its suffix, and the file that says so."""

    path: Path
    wnids: dict[str, str]

    def check_classes_are(self, known: list[str]) -> None:
        """See that there are training images of every class.

        Raises:
            DataError: if there are not; with the setting that does with fewer classes.
        """
        if extra := sorted(set(self.wnids.values()) - set(known)):
            raise DataError(
                f"{self.path}: classes that the training split does not have: {first(extra)}; add their training "
                f"images, or take only the {len(known)} that it has with data.classes={len(known)}"
            )

    def labelled(self, place: Path, classes: list[str], excluded: set[str]) -> LabelledFiles:
        """The images of a flat folder that are of some classes.

        Raises:
            DataError: if an image has no label, or of these classes one is missing that is not `excluded`.
        """
        names = files_below(place, IMAGE_SUFFIXES, report_others=True)
        stems = [PurePosixPath(name).stem for name in names]
        if unknown := [name for name, stem in zip(names, stems, strict=True) if stem not in self.wnids]:
            raise DataError(
                f"{place}: {len(unknown)} of {len(names)} images have no label in {self.path}: {first(unknown)}; "
                "remove them, or replace that file with the complete one"
            )
        index_of = {name: index for index, name in enumerate(classes)}
        expected = {stem for stem, wnid in self.wnids.items() if wnid in index_of}
        absent = [f"{stem}.JPEG" for stem in sorted(expected - set(stems))]
        if absent := [name for name in absent if not is_excluded(excluded, place / name)]:
            raise DataError(
                f"{place}: {len(absent)} of {len(expected)} images that {self.path} lists are not there: "
                f"{first(absent)}; copy them, or name them in the file of data.exclude"
            )
        labels = np.array([index_of.get(self.wnids[stem], -1) for stem in stems], np.int32)
        return in_class_order(LabelledFiles(place, names, labels), classes)


def home(root: Path, train: str) -> Path:
    """The folder that the split folders are in; the root itself if they are nowhere."""
    return next((root / below for below in HOMES if (root / below / train).is_dir()), root)


def is_flat_validation(place: Path) -> bool:
    """Whether a folder holds ILSVRC's validation images themselves."""
    with os.scandir(place) as entries:
        return any(entry.name.startswith("ILSVRC2012_val_") and entry.is_file() for entry in entries)


def truth_near(place: Path) -> Truth:
    """The labels of a flat folder's images, from the nearest file beside or above it.

    Raises:
        DataError: if there is none, or it is not as published.
    """
    above = place.absolute().parents[:LEVELS]
    for near in above:
        if (solution := near / SOLUTION).is_file():
            return from_solution(solution)
        if (truth := near / DEVKIT / GROUND_TRUTH).is_file():
            return from_devkit(truth)
    raise DataError(
        f"{place}: no class folders, and no labels of a flat folder's images: neither {SOLUTION} (Kaggle's) nor "
        f"{DEVKIT}/{GROUND_TRUTH} (the unpacked devkit's) is in {above[0]} or the {len(above) - 1} folders above; "
        "put one of them there"
    )


def from_solution(path: Path) -> Truth:
    """Kaggle's file: a header, then lines of an image's name, a comma, and the class and corners of its boxes.

    Raises:
        DataError: naming the line that is not so.
    """
    wnids = {}
    for number, line in enumerate(lines(path)[1:], start=2):
        if not (found := re.match(r"(\w+),(n\d{8})(?!\S)", line)):
            raise DataError(
                f"{path}, line {number}: {line[:60]!r} is not NAME,WNID X Y X Y ... as in Kaggle's file; "
                "fetch the file again"
            )
        wnids[found[1]] = found[2]
    return Truth(path, wnids)


def from_devkit(path: Path) -> Truth:
    """The devkit's file: a number on each line, for one image after the other; `meta.mat` says which class it is.

    Raises:
        DataError: naming the line or the file that is not so.
    """
    wnid_of = numbered_classes(path.with_name("meta.mat"))
    wnids = {}
    for number, line in enumerate(filter(None, lines(path)), start=1):
        if line not in wnid_of:
            raise DataError(
                f"{path}, line {number}: {line[:60]!r} is no class of {path.with_name('meta.mat')}; fetch both again"
            )
        wnids[f"ILSVRC2012_val_{number:08}"] = wnid_of[line]
    return Truth(path, wnids)


def numbered_classes(path: Path) -> dict[str, str]:
    """WordNet ids by the numbers of `meta.mat`, which are not in the order of the ids; inner nodes are no classes.

    Raises:
        DataError: if the file is not there, or not the devkit's.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file, and the labels beside it are numbers of its classes; put it there")
    try:
        synsets: Any = loadmat(path, squeeze_me=True)["synsets"]
        columns = (synsets[name].tolist() for name in ("ILSVRC2012_ID", "WNID", "num_children"))
        rows = zip(*columns, strict=True)
        return {str(int(number)): str(wnid) for number, wnid, children in rows if children == 0}
    except Exception as error:  # scipy meets damaged files with many kinds, of zlib and struct among them
        raise DataError(f"{path}: is not the devkit's ({type(error).__name__}: {error}); fetch it again") from error
