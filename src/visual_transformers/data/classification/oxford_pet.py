"""Oxford-IIIT Pet: photographs of 37 breeds of cats and dogs, listed with their breeds in two text files."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from torchvision import datasets

from visual_transformers.data.classification.base import ClassifiedData, LabelledFiles, Split, train_val_split
from visual_transformers.data.io.download import ensure_downloaded
from visual_transformers.data.io.exclude_list import is_excluded
from visual_transformers.data.io.file_listing import list_files
from visual_transformers.data.io.file_names import normalize_name
from visual_transformers.data.io.files import join_first
from visual_transformers.data.io.text_lists import read_lines
from visual_transformers.errors import DataError

FOLDER = "oxford-iiit-pet"
URLS = [f"https://www.robots.ox.ac.uk/~vgg/data/pets/data/{name}.tar.gz" for name in ("images", "annotations")]
LISTS = {"train": "trainval.txt", "val": "trainval.txt", "test": "test.txt"}
"""Published list of each split."""


@dataclass(kw_only=True)
class OxfordPet(ClassifiedData):
    """The 37 breeds, in the layout of torchvision's `OxfordIIITPet`; `mode=test` scores the published test split.

    Raises:
        DataError: if the data set is missing, or a list is not as published.
    """

    val_share: float = 0.2
    seed: int = 0
    download: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        root = Path(self.root)
        home = root if (root / "annotations").is_dir() else root / FOLDER
        self.images, annotations = home / "images", home / "annotations"
        ensure_downloaded(
            [self.images, annotations],
            urls=URLS,
            into=home,
            wanted=self.download,
            fetch=lambda: datasets.OxfordIIITPet(home.parent, download=True),
        )
        self.lists = {name: _read_list(annotations / name) for name in set(LISTS.values())}
        self.breeds = _name_breeds([entry for entries in self.lists.values() for entry in entries], annotations)

    @property
    def classes(self) -> list[str]:
        """Breeds in the order of the published labels."""
        return list(self.breeds.values())

    @property
    def has_test_split(self) -> bool:
        """True: it is published."""
        return True

    def list_split(self, split: Split) -> LabelledFiles:
        """List the images of the test list, or a split's part of `trainval`."""
        entries = self.lists[LISTS[split]]
        present = {normalize_name(name): name for name in list_files(self.images, (".jpg",))}
        names = [present.get(normalize_name(f"{name}.jpg"), f"{name}.jpg") for name, _ in entries]
        absent = sorted(set(names) - set(present.values()))
        if missing := [name for name in absent if not is_excluded(self.excluded, self.images / name)]:
            raise DataError(
                f"{self.images}: {len(missing)} of the {len(names)} images in {LISTS[split]} are missing: "
                f"{join_first(missing)}. Unpack {URLS[0]} again, or list them in the file of data.exclude."
            )
        index_of = {label: index for index, label in enumerate(self.breeds)}
        files = LabelledFiles(self.images, names, np.array([index_of[label] for _, label in entries], np.int32))
        return files if split == "test" else train_val_split(files, self.val_share, self.seed)[split == "val"]


def _read_list(path: Path) -> list[tuple[str, int]]:
    """Read image names and labels (from 1) from lines `NAME LABEL SPECIES BREED`; # begins a comment."""
    if not path.is_file():
        raise DataError(f"{path}: no such file. Unpack {URLS[1]} again.")
    entries = []
    for number, line in enumerate(read_lines(path), start=1):
        words = line.split()
        if not words or line.startswith("#"):
            continue
        if len(words) != 4 or "_" not in words[0] or not words[1].isdecimal():
            raise DataError(
                f"{path}, line {number}: {line[:60]!r} is not NAME LABEL SPECIES BREED. Unpack {URLS[1]} again."
            )
        entries.append((words[0], int(words[1])))
    if not entries:
        raise DataError(f"{path}: lists no images. Unpack {URLS[1]} again.")
    return entries


def _name_breeds(entries: list[tuple[str, int]], folder: Path) -> dict[int, str]:
    """Name the breed of each label after its images, e.g. american_bulldog_100."""
    pairs = sorted({(label, name.rpartition("_")[0].replace("_", " ").title()) for name, label in entries})
    for (label, breed), (next_label, other_breed) in pairwise(pairs):
        if label == next_label:
            raise DataError(
                f"{folder}: label {label} stands for {breed} as well as {other_breed}. Unpack {URLS[1]} again."
            )
    return dict(pairs)
