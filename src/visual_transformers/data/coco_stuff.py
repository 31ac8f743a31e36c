"""COCO-Stuff 164k from its PNG pixel maps, in both published encodings."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import numpy as np

from visual_transformers.data.files import folder
from visual_transformers.data.index import FileIndex
from visual_transformers.data.masks import INVALID, LabelTable, MaskData, MaskFiles, pair
from visual_transformers.data.samples import Masks
from visual_transformers.data.transforms import IGNORE
from visual_transformers.errors import DataError

EMPTY_THINGS = frozenset({12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91})
"""Official ids of the thing classes that were removed from COCO: no pixel ever has them."""
THINGS = [i for i in range(1, 92) if i not in EMPTY_THINGS]
STUFF = list(range(92, 183))
IDS = {"stuff": STUFF, "stuff_things": THINGS + STUFF}
OTHER = 183
"""In the `stuff_*_pixelmaps` PNGs: everything that is not stuff."""


@cache
def names() -> dict[int, str]:
    """Class names by official id, 1 to 182."""
    text = (files("visual_transformers.data") / "coco_stuff_labels.txt").read_text(encoding="utf-8")
    return {int(number): name for number, name in (line.split(": ", 1) for line in text.splitlines())}


@dataclass(kw_only=True)
class CocoStuff(MaskData):
    """COCO images with COCO-Stuff's PNG pixel maps.

    In a `stuffthingmaps` PNG a pixel holds the official id minus 1 (things 0 to 90, stuff 91 to 181, unlabeled 255);
    in a `pixelmaps` PNG the official id itself (stuff 92 to 182, 183 for all things together, 0 for unlabeled).

    Args:
        root: the data set's folder.
        train_images, train_masks, val_images, val_masks: folders below it.
        encoding: how the PNGs hold the classes, `stuffthingmaps` or `pixelmaps`.
        label_set: `stuff` for the 91 stuff classes, things ignored; `stuff_things` for all 171 (needs stuffthingmaps).
    """

    root: str
    train_images: str = "images/train2017"
    train_masks: str = "annotations/train2017"
    val_images: str = "images/val2017"
    val_masks: str = "annotations/val2017"
    encoding: Literal["stuffthingmaps", "pixelmaps"] = "stuffthingmaps"
    label_set: Literal["stuff", "stuff_things"] = "stuff"

    def __post_init__(self) -> None:
        super().__post_init__()
        folder(Path(self.root), self._layout())
        if self.encoding == "pixelmaps" and self.label_set == "stuff_things":
            raise DataError(
                "data.encoding=pixelmaps holds no thing classes; use data.label_set=stuff, "
                "or the stuffthingmaps PNGs with data.encoding=stuffthingmaps"
            )

    @property
    def ids(self) -> list[int]:
        """Official ids of the classes, in the order of the model's outputs."""
        return IDS[self.label_set]

    @classmethod
    def category_ids(cls, settings: dict[str, Any]) -> list[int]:
        """Official ids of the label set that the settings name."""
        return IDS[settings.get("label_set", cls.label_set)]

    @classmethod
    def known_classes(cls, settings: dict[str, Any]) -> list[str]:
        """Class names of the label set that the settings name."""
        return [names()[i] for i in cls.category_ids(settings)]

    @property
    def classes(self) -> list[str]:
        """The label set's class names."""
        return [names()[i] for i in self.ids]

    def pairs(self, split: str) -> tuple[FileIndex, Masks]:
        """Image and mask files of `train` or `val`; `test` is `val`, for COCO's test masks were never published."""
        train = split == "train"
        images, masks = (self.train_images, self.train_masks) if train else (self.val_images, self.val_masks)
        root = Path(self.root)
        files, mask_files = pair(root / images, root / masks, self._layout(), excluded=self.excluded)
        return files, MaskFiles(mask_files, self.table())

    def table(self) -> LabelTable:
        """From the values of this encoding to class indices."""
        entries = np.full(256, INVALID)
        if self.encoding == "stuffthingmaps":
            entries[:182] = IGNORE
            entries[255] = IGNORE
            offset, remedy = -1, "in stuffthingmaps they are 0 to 181 or 255; is this data.encoding=pixelmaps?"
        else:
            entries[[0, OTHER, *STUFF]] = IGNORE
            offset, remedy = 0, "in pixelmaps they are 92 to 183 or 0; is this data.encoding=stuffthingmaps?"
        for index, official in enumerate(self.ids):
            entries[official + offset] = index
        return LabelTable(entries, lambda values: remedy)

    def _layout(self) -> str:
        return "\n".join(
            f"  {self.root}/{images}/ID.jpg with {self.root}/{masks}/ID.png"
            for images, masks in ((self.train_images, self.train_masks), (self.val_images, self.val_masks))
        )
