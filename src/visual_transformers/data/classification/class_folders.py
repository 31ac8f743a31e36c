"""Data sets with a folder per split and in it a folder of images per class, the layout that ImageNet made common."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from visual_transformers.data.classification.base import ClassifiedData, LabelledFiles, Split
from visual_transformers.data.imagenet_classes import replace_wordnet_ids
from visual_transformers.data.io.file_listing import list_files
from visual_transformers.data.io.file_names import check_link, is_system_entry, match_disk_spelling, normalize_name
from visual_transformers.data.io.files import IMAGE_SUFFIXES, join_first, require_folder
from visual_transformers.errors import DataError

TRAIN_NAMES = frozenset({"train", "training", "trainval"})
EVAL_NAMES = frozenset({"val", "valid", "validation", "dev", "test", "testing"})


@dataclass(kw_only=True)
class ClassFolders(ClassifiedData):
    """Base of the data sets of image folders `<root>/<train>/<class>/*` and `<root>/<val>/<class>/*`.

    A class is named after its folder, or by ImageNet's words if that is a WordNet id.

    Raises:
        DataError: if folders are missing; shows the expected layout.
    """

    train: str = "train"
    val: str | None = None
    classes: int | list[str] | None = None  # type: ignore[assignment]  # __post_init__ turns it into a list

    def __post_init__(self) -> None:
        super().__post_init__()
        self.split_root = require_folder(self.find_split_root(), self.layout())
        train = require_folder(self.split_root / self.train, self.layout())
        self.available = list_class_folders(train)
        if not self.available:
            raise DataError(f"{train}: holds no class folders; expected the layout\n{self.layout()}")
        if all({name.lower() for name in self.available} & names for names in (TRAIN_NAMES, EVAL_NAMES)):
            raise DataError(
                f"{train}: its folders are splits ({', '.join(self.available)}), not classes. Point data.root and "
                "data.train at the folder that holds the class folders."
            )
        words = dict(zip(self.available, replace_wordnet_ids(self.available), strict=True))
        self.folders = select_folders(self.classes, words, train)
        self.classes = [words.get(name, name) for name in self.folders]
        self.check_class_folders(train)
        self.split_folders: dict[Split, Path] = {"train": train, **self.find_eval_folders(train)}

    def find_split_root(self) -> Path:
        """Find the folder that contains the split folders."""
        return Path(self.root)

    def layout(self) -> str:
        """Expected folders, for messages."""
        return "\n".join(f"  {self.root}/{split}/<class>/*.JPEG" for split in (self.train, self.val or "val"))

    def find_eval_folders(self, train: Path) -> dict[Split, Path]:
        """Find the validation folder, which is also that of the test split."""
        val = self.find_val_folder(train)
        self.check_class_folders(val)
        return {"val": val, "test": val}

    def find_val_folder(self, train: Path) -> Path:
        """Find the folder named by `val`, or else the one next to `train` with the same classes.

        Folders with all classes are preferred to folders with some, and then those named val*.
        """
        if self.val is not None:
            return require_folder(self.split_root / self.val, self.layout())
        parent = train.parent
        names = [name for name in list_class_folders(parent) if name != normalize_name(train.name)]
        counts = {path: self.count_classes(path) for path in (match_disk_spelling(parent / name) for name in names)}
        candidates = [path for path, count in counts.items() if count]
        candidates = [path for path in candidates if counts[path] == len(self.folders)] or candidates
        candidates = [path for path in candidates if path.name.lower().startswith("val")] or candidates
        if not candidates:
            siblings = f"there are {join_first([path.name for path in counts])}" if counts else "there is none"
            raise DataError(
                f"{parent}: no folder next to {train.name} has its classes ({siblings}), so there is no validation "
                f"split. Name one with data.val=FOLDER. Expected the layout\n{self.layout()}"
            )
        if len(candidates) > 1:
            raise DataError(
                f"{parent}: several folders have the classes of {train.name}: "
                f"{join_first([path.name for path in candidates])}. Pick one with data.val=FOLDER."
            )
        return candidates[0]

    def count_classes(self, path: Path) -> int:
        """Count the selected classes that a candidate for the validation folder has."""
        return len(set(self.folders) & set(list_class_folders(path)))

    def check_class_folders(self, path: Path) -> None:
        """Check that a split has a folder for each selected class, and none that the training split lacks."""
        present = set(list_class_folders(path))
        if missing := [name for name in self.folders if name not in present]:
            raise DataError(
                f"{path}: no folder for {len(missing)} of {len(self.folders)} classes: {join_first(missing)}. Add "
                "them, or select other classes with data.classes."
            )
        if unknown := sorted(present - set(self.available)):
            raise DataError(
                f"{path}: class folders that the training split does not have: {join_first(unknown)}. Remove them, "
                "or add their training images."
            )

    def list_split(self, split: Split) -> LabelledFiles:
        """List the images below the class folders of a split."""
        path = self.split_folders[split]
        names = list_files(path, IMAGE_SUFFIXES, report_others=True)
        return group_by_class(path, names, (normalize_name(name.partition("/")[0]) for name in names), self.folders)


def list_class_folders(path: Path) -> list[str]:
    """List the folders in a folder, sorted, without hidden ones and those of the operating system.

    Raises:
        DataError: if a link is broken, or two names differ only in their Unicode normalization.
    """
    with os.scandir(path) as scan:
        entries = [entry for entry in scan if not is_system_entry(entry.name)]
    for entry in entries:
        check_link(entry.path)
    names = sorted(normalize_name(entry.name) for entry in entries if entry.is_dir())
    if len(set(names)) < len(names):
        double = next(name for name in names if names.count(name) > 1)
        raise DataError(f"{path}: two folders are called {double}, in different Unicode normalizations. Merge them.")
    return names


def select_folders(classes: Any, words: dict[str, str], train: Path) -> list[str]:
    """Select the folders of `data.classes` from `words`, which maps all folders to class names."""
    if classes is None:
        return list(words)
    if isinstance(classes, int) and not isinstance(classes, bool):
        if not 1 <= classes <= len(words):
            raise DataError(f"data.classes={classes}: {train} has {len(words)} classes. Choose 1 to {len(words)}.")
        return list(words)[:classes]
    if not isinstance(classes, list) or not classes:
        raise DataError(f"data.classes={classes!r} is invalid. Set null, a number, or a list of different names.")
    folder_of = {word: name for name, word in words.items()} | {name: name for name in words}
    folders = [folder_of.get(name, name) for name in map(normalize_name, map(str, classes))]
    if len(set(folders)) < len(folders):
        raise DataError(f"data.classes={classes} names a class twice. List different ones.")
    return folders


def group_by_class(root: Path, names: list[str], folders: Iterable[str], classes: list[str]) -> LabelledFiles:
    """Label files by their class folders and group them in the order of `classes`; drop those of other classes.

    Raises:
        DataError: if a class has no files.
    """
    index_of = {name: index for index, name in enumerate(classes)}
    labels = np.array([index_of.get(name, -1) for name in folders], np.int32)
    indices = np.flatnonzero(labels >= 0)
    counts = np.bincount(labels[indices], minlength=len(classes))
    if missing := [classes[index] for index in np.flatnonzero(counts == 0)]:
        raise DataError(
            f"{root}: no images of {len(missing)} of {len(classes)} classes: {join_first(missing)}. Add them, or leave "
            "the classes out with data.classes."
        )
    return LabelledFiles(root, names, labels).subset(indices[np.argsort(labels[indices], kind="stable")])
