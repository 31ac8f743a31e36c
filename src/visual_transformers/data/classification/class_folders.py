"""One folder of images a class, in a folder for each split: the layout that ImageNet made common."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from visual_transformers.data.classification.base import ClassifiedData, LabelledFiles, Split
from visual_transformers.data.imagenet_classes import readable
from visual_transformers.data.io.file_listing import files_below
from visual_transformers.data.io.file_names import as_on_disk, check_link, is_system_entry, same
from visual_transformers.data.io.files import IMAGE_SUFFIXES, first, folder
from visual_transformers.errors import DataError


@dataclass(kw_only=True)
class ClassFolders(ClassifiedData):
    """Base of the data sets of image folders `<root>/<train>/<class>/*` and `<root>/<val>/<class>/*`.

    A class is called as its folder, or by ImageNet's words where that is a WordNet id.

    Args:
        train: folder of the training split, below the root.
        val: folder of the validation split, below the root; null for the one beside `train` with the same classes.
        classes: null for all class folders, a number for the first so many in sorted order, or a list of names.

    Raises:
        DataError: naming what is missing and the layout that is expected.
    """

    train: str = "train"
    val: str | None = None
    classes: int | list[str] | None = None  # type: ignore[assignment]  # of which __post_init__ makes a list

    def __post_init__(self) -> None:
        super().__post_init__()
        self.home = folder(self.located(), self.layout())
        train = folder(self.home / self.train, self.layout())
        self.available = class_names(train)
        if not self.available:
            raise DataError(f"{train}: holds no class folders; expected the layout\n{self.layout()}")
        if all({name.lower() for name in self.available} & splits for splits in (TRAINING, EVALUATION)):
            raise DataError(
                f"{train}: its folders are splits ({', '.join(self.available)}), not classes. Point data.root and "
                "data.train at the folder that holds the class folders."
            )
        words = dict(zip(self.available, readable(self.available), strict=True))
        self.folders = chosen(self.classes, words, train)
        self.classes = [words.get(name, name) for name in self.folders]
        check_folders(train, self.folders, self.available)
        self.places: dict[Split, Path] = {"train": train, **self.evaluation_folders(train)}

    def located(self) -> Path:
        """The folder that the split folders are in."""
        return Path(self.root)

    def layout(self) -> str:
        """What is expected, for messages."""
        return "\n".join(f"  {self.root}/{split}/<class>/*.JPEG" for split in (self.train, self.val or "val"))

    def evaluation_folders(self, train: Path) -> dict[Split, Path]:
        """Folders of the validation and the test split, which are the same unless a data set has two.

        Raises:
            DataError: if there are none, or they have not the classes of `train`.
        """
        val = self.validation_folder(train)
        check_folders(val, self.folders, self.available)
        return {"val": val, "test": val}

    def validation_folder(self, train: Path) -> Path:
        """The folder that `val` names or leaves to be found.

        Raises:
            DataError: if it is not there.
        """
        if self.val is not None:
            return folder(self.home / self.val, self.layout())
        return beside(train, self.classes_in, len(self.folders), self.layout())

    def classes_in(self, place: Path) -> int:
        """How many of the classes a folder has images of."""
        return len(set(self.folders) & set(class_names(place)))

    def labelled(self, split: Split) -> LabelledFiles:
        """Every image below a class folder of a split."""
        return labelled_files(self.places[split], self.folders)


TRAINING = frozenset({"train", "training", "trainval"})
EVALUATION = frozenset({"val", "valid", "validation", "dev", "test", "testing"})


def class_names(place: Path) -> list[str]:
    """Names of the folders in a folder, sorted, but for those that hold no data.

    Raises:
        DataError: if a link leads to nothing, or two names are the same letters.
    """
    with os.scandir(place) as entries:
        found = [entry for entry in entries if not is_system_entry(entry.name)]
    for entry in found:
        check_link(entry.path)
    names = sorted(same(entry.name) for entry in found if entry.is_dir())
    if len(set(names)) < len(names):
        double = next(name for name in names if names.count(name) > 1)
        raise DataError(
            f"{place}: two folders are called {double}, which differ in how its letters are encoded; merge them"
        )
    return names


def chosen(classes: Any, words: dict[str, str], train: Path) -> list[str]:
    """The folders that the key `data.classes` chooses from those of `words`, which says what their classes are called.

    Raises:
        DataError: if it is not null, a number of folders that there are, or a list of different names.
    """
    if classes is None:
        return list(words)
    if isinstance(classes, int) and not isinstance(classes, bool):
        if not 1 <= classes <= len(words):
            raise DataError(f"data.classes={classes}: {train} has {len(words)} classes; choose 1 to {len(words)}")
        return list(words)[:classes]
    if not isinstance(classes, list) or not classes:
        raise DataError(f"data.classes={classes!r}: expected null, a number, or a list of different names")
    folder_of = {word: name for name, word in words.items()} | {name: name for name in words}
    folders = [folder_of.get(name, name) for name in map(same, map(str, classes))]
    if len(set(folders)) < len(folders):
        raise DataError(f"data.classes={classes}: names a class twice; list different ones")
    return folders


def check_folders(place: Path, needed: list[str], known: list[str]) -> None:
    """See that a split's folder has one for every class that is `needed`, and none but those `known` from training.

    Raises:
        DataError: naming the first that are missing, or too many.
    """
    there = class_names(place)
    if missing := sorted(set(needed) - set(there), key=needed.index):
        raise DataError(
            f"{place}: no folder for {len(missing)} of {len(needed)} classes: {first(missing)}; "
            "data.classes picks the classes to use"
        )
    if extra := sorted(set(there) - set(known)):
        raise DataError(
            f"{place}: class folders that the training split does not have: {first(extra)}; "
            "remove them or add their training images"
        )


def beside(train: Path, classes_in: Callable[[Path], int], count: int, layout: str) -> Path:
    """The folder beside `train` that has its classes, whatever its name.

    Where several have some, those with all `count` of them go first, and of these the ones named val...

    Raises:
        DataError: listing the candidates if none or several are left.
    """
    others = [as_on_disk(train.parent / name) for name in class_names(train.parent) if name != same(train.name)]
    held = {place: classes_in(place) for place in others}
    found = [place for place, classes in held.items() if classes]
    found = [place for place in found if held[place] == count] or found
    if len(found) > 1:
        found = [place for place in found if place.name.lower().startswith("val")] or found
    if not found:
        there = f"there are {first([place.name for place in others])}" if others else "there is none"
        raise DataError(
            f"{train.parent}: no folder beside {train.name} has its classes ({there}), so that there is no validation "
            f"split; data.val=FOLDER names one. Expected the layout\n{layout}"
        )
    if len(found) > 1:
        names = first([place.name for place in found])
        raise DataError(f"{train.parent}: several folders have the classes of {train.name}: {names}; pick data.val=...")
    return found[0]


def labelled_files(place: Path, classes: list[str]) -> LabelledFiles:
    """Every image below the class folders of a split's folder, class after class in the order of `classes`.

    Raises:
        DataError: if a class has none.
    """
    names = files_below(place, IMAGE_SUFFIXES, report_others=True)
    index_of = {name: index for index, name in enumerate(classes)}
    labels = np.array([index_of.get(same(name.partition("/")[0]), -1) for name in names], np.int32)
    return in_class_order(LabelledFiles(place, names, labels), classes)


def in_class_order(files: LabelledFiles, classes: list[str]) -> LabelledFiles:
    """The files with a label, class after class; those with -1 are left out.

    Raises:
        DataError: if a class has none.
    """
    places = np.flatnonzero(files.labels >= 0)
    counts = np.bincount(files.labels[places], minlength=len(classes))
    if missing := [classes[index] for index in np.flatnonzero(counts == 0)]:
        raise DataError(
            f"{files.root}: no images of {len(missing)} of {len(classes)} classes: {first(missing)}; add them, or "
            "leave the classes out with data.classes"
        )
    return files.at(places[np.argsort(files.labels[places], kind="stable")])
