"""COCO-Stuff 164k, from any of the four forms in which its masks are published."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from visual_transformers.data.dataset import Masks
from visual_transformers.data.io.file_index import FileIndex
from visual_transformers.data.normalization import IGNORE
from visual_transformers.data.segmentation.base import INVALID, LabelTable, MaskFiles, SplitFolders
from visual_transformers.data.segmentation.coco import panoptic, stuff_json
from visual_transformers.data.segmentation.coco.labels import OTHER, STUFF, LabelSet, class_indices, ids, names
from visual_transformers.data.segmentation.pairing import pair_by_number
from visual_transformers.errors import DataError

Encoding = Literal["stuffthingmaps", "pixelmaps", "stuff_json", "panoptic"]

LABEL_SETS: dict[Encoding, tuple[LabelSet, ...]] = {
    "stuffthingmaps": ("stuff", "stuff_things", "stuff_merged"),
    "pixelmaps": ("stuff", "stuff_merged"),  # all things are one category there
    "stuff_json": ("stuff", "stuff_merged"),  # and here
    "panoptic": ("stuff_merged",),  # stuff is merged there already
}
"""What can be told apart in each encoding."""

MASKS: dict[Encoding, tuple[str, ...]] = {
    "stuffthingmaps": ("annotations/{}", "stuffthingmaps/{}", "stuffthingmaps_trainval2017/{}"),
    "pixelmaps": ("annotations/stuff_{}_pixelmaps", "stuff_{}_pixelmaps", "annotations/{}"),
    "stuff_json": ("annotations/stuff_{}.json", "stuff_{}.json"),
    "panoptic": ("annotations/panoptic_{}.json", "panoptic_{}.json"),
}
"""Where the masks of train2017 or val2017 usually are, below the root."""


@dataclass(kw_only=True)
class CocoStuff(SplitFolders):
    """COCO images with COCO-Stuff's masks. Images and PNGs are found by their numbers, in nested folders too.

    Args:
        root: the data set's folder.
        train_images, val_images: folders of images below it; null for `images/train2017` or `train2017`.
        train_masks, val_masks: folders of PNGs or JSON files below it; null for where the encoding's archive puts them.
        encoding: how the classes are held.
            `stuffthingmaps`: PNGs with the official id minus 1 (things 0 to 90, stuff 91 to 181, unlabeled 255);
            `pixelmaps`: PNGs with the official id (stuff 92 to 182, 183 for all things together, 0 for unlabeled);
            `stuff_json`: a JSON file with the same ids, whose regions are run lengths or polygons;
            `panoptic`: a JSON file, and a folder of its name with PNGs of segments (things, merged stuff).
        label_set: `stuff` for the 91 stuff classes, things ignored; `stuff_things` for all 171; `stuff_merged` for the
            53 stuff classes of the panoptic task behind class 0, which is all things together, as Detectron2 has it.

    Raises:
        DataError: if the folder is missing, or the encoding does not hold the label set.
    """

    encoding: Encoding = "stuffthingmaps"
    label_set: LabelSet = "stuff"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.label_set not in LABEL_SETS[self.encoding]:
            able = [encoding for encoding, label_sets in LABEL_SETS.items() if self.label_set in label_sets]
            raise DataError(
                f"data.encoding={self.encoding} does not tell the classes of data.label_set={self.label_set} apart; "
                f"use data.label_set={' or '.join(LABEL_SETS[self.encoding])}, or masks of data.encoding="
                f"{' or '.join(able)}"
            )

    @classmethod
    def category_ids(cls, settings: dict[str, Any]) -> list[int]:
        """Official ids of the label set that the settings name; of `stuff_merged`, 183 is all things together."""
        return ids(settings.get("label_set", cls.label_set))

    @classmethod
    def known_classes(cls, settings: dict[str, Any]) -> list[str]:
        """Names of the label set that the settings name."""
        return [names()[i] for i in cls.category_ids(settings)]

    @property
    def classes(self) -> list[str]:
        """The label set's class names."""
        return self.known_classes({"label_set": self.label_set})

    def pairs(self, split: str) -> tuple[FileIndex, Masks]:
        """Images and masks of `train` or `val`; `test` is `val`, for COCO's test masks were never published."""
        images, masks = self.places(split)
        if self.encoding == "stuff_json":
            return stuff_json.read(masks, images, class_indices(self.label_set), self.layout())
        if self.encoding == "panoptic":
            return panoptic.read(masks, images, class_indices(self.label_set), self.layout(), self.excluded)
        files, pngs = pair_by_number(images, masks, self.layout(), self.excluded)
        return files, MaskFiles(pngs, self.table())

    def table(self) -> LabelTable:
        """From the values of PNGs to class indices."""
        classes, entries = class_indices(self.label_set), np.full(256, INVALID)
        if self.encoding == "stuffthingmaps":
            entries[:182], entries[255] = classes[1:183], IGNORE
            return LabelTable(entries, "in stuffthingmaps they are 0 to 181 or 255; is this data.encoding=pixelmaps?")
        known = [0, *STUFF, OTHER]
        entries[known] = classes[known]
        return LabelTable(entries, "in pixelmaps they are 92 to 183 or 0; is this data.encoding=stuffthingmaps?")

    def usual(self, split: str) -> tuple[list[str], list[str]]:
        """Where COCO's archives, and those who use them, put things."""
        year = "train2017" if split == "train" else "val2017"
        return [f"images/{year}", year], [place.format(year) for place in MASKS[self.encoding]]

    def examples(self, images: str, masks: str) -> str:
        """Both have the same number."""
        json_masks = {"stuff_json": "", "panoptic": f" and {self.root}/{masks.removesuffix('.json')}/ID.png"}
        return f"{self.root}/{images}/ID.jpg with {self.root}/{masks}{json_masks.get(self.encoding, '/ID.png')}"

    def layout(self) -> str:
        """The usual places, and the keys for others."""
        (_, *images), (_, *masks) = self.usual("train")
        return (
            f"{super().layout()}\nor, of the training split, images in {' or '.join(images)} and masks in "
            f"{' or '.join(masks)}; data.train_images, train_masks, val_images and val_masks name other places"
        )
