"""Oxford-IIIT Pet: photographs of 37 breeds of cats and dogs, listed with their breed in two text files."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from torchvision import datasets

from visual_transformers.data.classification.base import ClassifiedData, LabelledFiles, Split
from visual_transformers.data.classification.train_val_split import parted
from visual_transformers.data.io.download import ensure
from visual_transformers.data.io.exclude_list import is_excluded
from visual_transformers.data.io.file_listing import files_below
from visual_transformers.data.io.file_names import same
from visual_transformers.data.io.files import first
from visual_transformers.data.io.text_lists import lines
from visual_transformers.errors import DataError

FOLDER = "oxford-iiit-pet"
URLS = [f"https://www.robots.ox.ac.uk/~vgg/data/pets/data/{name}.tar.gz" for name in ("images", "annotations")]
LISTS = {"train": "trainval.txt", "val": "trainval.txt", "test": "test.txt"}
"""The published list that each split is taken from."""


@dataclass(kw_only=True)
class OxfordPet(ClassifiedData):
    """The 37 breeds, in the layout of torchvision's `OxfordIIITPet`; `mode=test` scores the published test split.

    Args:
        root: the folder that holds `oxford-iiit-pet`, or that folder itself.
        val_share: share of each breed's images of `trainval` that make the validation split.
        seed: picks these images; not the run's seed.
        download: fetch it into the root if it is not there.

    Raises:
        DataError: if it is not there, or a list is not as published.
    """

    val_share: float = 0.2
    seed: int = 0
    download: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        root = Path(self.root)
        self.home = root if (root / "annotations").is_dir() else root / FOLDER
        self.images, annotations = self.home / "images", self.home / "annotations"
        ensure(
            [self.images, annotations],
            urls=URLS,
            into=self.home,
            wanted=self.download,
            fetch=lambda: datasets.OxfordIIITPet(self.home.parent, download=True),
        )
        self.lists = {name: listed(annotations / name) for name in set(LISTS.values())}
        self.breeds = breeds([image for listed in self.lists.values() for image in listed], annotations)

    @property
    def classes(self) -> list[str]:
        """The breeds in the order of the published labels."""
        return list(self.breeds.values())

    @property
    def has_test_split(self) -> bool:
        """The published one."""
        return True

    def labelled(self, split: Split) -> LabelledFiles:
        """The images that a list names; of `trainval` the part that is asked for.

        Raises:
            DataError: if one is not there that is not to exclude.
        """
        images = self.lists[LISTS[split]]
        there = {same(name): name for name in files_below(self.images, (".jpg",))}
        names = [there.get(same(f"{name}.jpg"), f"{name}.jpg") for name, _ in images]
        absent = sorted(set(names) - set(there.values()))
        if missing := [name for name in absent if not is_excluded(self.excluded, self.images / name)]:
            raise DataError(
                f"{self.images}: {len(missing)} of the {len(names)} images in {LISTS[split]} are not there: "
                f"{first(missing)}; unpack {URLS[0]} again, or name them in the file of data.exclude"
            )
        index_of = {label: index for index, label in enumerate(self.breeds)}
        files = LabelledFiles(self.images, names, np.array([index_of[label] for _, label in images], np.int32))
        if split == "test":
            return files
        return parted(files, self.val_share, self.seed)[split == "val"]


def listed(path: Path) -> list[tuple[str, int]]:
    """Image names and labels (from 1) of a list, whose lines are `NAME LABEL SPECIES BREED`; # begins a comment.

    Raises:
        DataError: if there is no such file, it lists nothing, or a line is not so.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file; unpack {URLS[1]} again")
    found = []
    for number, line in enumerate(lines(path), start=1):
        words = line.split()
        if not words or line.startswith("#"):
            continue
        if len(words) != 4 or "_" not in words[0] or not words[1].isdecimal():
            raise DataError(f"{path}, line {number}: {line[:60]!r} is not NAME LABEL SPECIES BREED; unpack it again")
        found.append((words[0], int(words[1])))
    if not found:
        raise DataError(f"{path}: lists no images; unpack {URLS[1]} again")
    return found


def breeds(images: list[tuple[str, int]], lists: Path) -> dict[int, str]:
    """Names of the breeds by label, in its order: images are called by breed and number, as american_bulldog_100.

    Raises:
        DataError: if a label stands for two.
    """
    pairs = sorted({(label, name.rpartition("_")[0].replace("_", " ").title()) for name, label in images})
    for earlier, later in pairwise(pairs):
        if earlier[0] == later[0]:
            raise DataError(
                f"{lists}: label {later[0]} stands for {earlier[1]} as well as {later[1]}; unpack {URLS[1]} again"
            )
    return dict(pairs)
