"""COCO-Stuff 164k, with masks in any of the four encodings in which they are published."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from visual_transformers.data.dataset import Masks
from visual_transformers.data.io.file_index import FileIndex
from visual_transformers.data.labels import IGNORE_INDEX
from visual_transformers.data.segmentation.base import INVALID, LabelTable, MaskFiles, SplitFolders
from visual_transformers.data.segmentation.coco import panoptic, stuff_json
from visual_transformers.data.segmentation.coco.labels import (
    OTHER,
    STUFF,
    LabelSet,
    category_ids,
    category_names,
    class_indices,
)
from visual_transformers.data.segmentation.pairing import pair_by_id
from visual_transformers.errors import DataError

Encoding = Literal["stuffthingmaps", "pixelmaps", "stuff_json", "panoptic"]

LABEL_SETS: dict[Encoding, tuple[LabelSet, ...]] = {
    "stuffthingmaps": ("stuff", "stuff_things", "stuff_merged"),
    "pixelmaps": ("stuff", "stuff_merged"),  # all things are one category
    "stuff_json": ("stuff", "stuff_merged"),  # likewise
    "panoptic": ("stuff_merged",),  # stuff is merged already
}
"""Label sets that each encoding holds."""

MASKS: dict[Encoding, tuple[str, ...]] = {
    "stuffthingmaps": ("annotations/{}", "stuffthingmaps/{}", "stuffthingmaps_trainval2017/{}"),
    "pixelmaps": ("annotations/stuff_{}_pixelmaps", "stuff_{}_pixelmaps", "annotations/{}"),
    "stuff_json": ("annotations/stuff_{}.json", "stuff_{}.json"),
    "panoptic": ("annotations/panoptic_{}.json", "panoptic_{}.json"),
}
"""Default paths of the masks of train2017 or val2017, below the root."""


@dataclass(kw_only=True)
class CocoStuff(SplitFolders):
    """COCO images with COCO-Stuff's masks. Images and PNGs are found by their numbers, in nested folders too.

    Encodings: `stuffthingmaps` are PNGs with the official id minus 1 (things 0 to 90, stuff 91 to 181, unlabeled 255);
    `pixelmaps` are PNGs with the official id (stuff 92 to 182, 183 for all things together, 0 for unlabeled);
    `stuff_json` is a JSON file with the same ids, whose regions are run lengths or polygons; `panoptic` is a JSON file,
    and a folder of its name with PNGs of segments (things, merged stuff).

    Label sets: `stuff` has the 91 stuff classes and ignores things; `stuff_things` has all 171 classes; `stuff_merged`
    has the 53 stuff classes of the panoptic task after class 0, which is all things together, as in Detectron2.

    Raises:
        DataError: if the folder is missing, or the encoding does not hold the label set.
    """

    train_images: str | None = None
    train_masks: str | None = None
    val_images: str | None = None
    val_masks: str | None = None
    encoding: Encoding = "stuffthingmaps"
    label_set: LabelSet = "stuff"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.label_set not in LABEL_SETS[self.encoding]:
            able = [encoding for encoding, label_sets in LABEL_SETS.items() if self.label_set in label_sets]
            raise DataError(
                f"data.encoding={self.encoding} does not tell the classes of data.label_set={self.label_set} apart. "
                f"Use data.label_set={' or '.join(LABEL_SETS[self.encoding])}, or masks of data.encoding="
                f"{' or '.join(able)}."
            )

    @classmethod
    def category_ids(cls, settings: dict[str, Any]) -> list[int]:
        """Official ids of the configured label set; in `stuff_merged`, 183 is all things together."""
        return category_ids(settings.get("label_set", cls.label_set))

    @classmethod
    def classes_from_settings(cls, settings: dict[str, Any]) -> list[str]:
        """Class names of the configured label set."""
        return [category_names()[i] for i in cls.category_ids(settings)]

    @property
    def classes(self) -> list[str]:
        """Class names of the label set."""
        return self.classes_from_settings({"label_set": self.label_set})

    def find_pairs(self, split: str) -> tuple[FileIndex, Masks]:
        """Find images and masks; `test` is `val`, because COCO's test masks were never published."""
        images, masks = self.find_split(split)
        if self.encoding == "stuff_json":
            return stuff_json.read(masks, images, class_indices(self.label_set), self.layout())
        if self.encoding == "panoptic":
            return panoptic.read(masks, images, class_indices(self.label_set), self.layout(), self.excluded)
        files, pngs = pair_by_id(images, masks, self.layout(), self.excluded)
        return files, MaskFiles(pngs, self.label_table())

    def label_table(self) -> LabelTable:
        """Class index of each value of a PNG."""
        classes, entries = class_indices(self.label_set), np.full(256, INVALID)
        if self.encoding == "stuffthingmaps":
            entries[:182], entries[255] = classes[1:183], IGNORE_INDEX
            return LabelTable(entries, "in stuffthingmaps they are 0 to 181 or 255; is this data.encoding=pixelmaps?")
        known = [0, *STUFF, OTHER]
        entries[known] = classes[known]
        return LabelTable(entries, "in pixelmaps they are 92 to 183 or 0; is this data.encoding=stuffthingmaps?")

    def candidate_paths(self, split: str) -> tuple[list[str], list[str]]:
        """Configured paths, or else those in COCO's archives and in common copies of them, below the root."""
        train = split == "train"
        images, masks = (self.train_images, self.train_masks) if train else (self.val_images, self.val_masks)
        default_images, default_masks = self._default_paths("train2017" if train else "val2017")
        return default_images if images is None else [images], default_masks if masks is None else [masks]

    def _default_paths(self, folder: str) -> tuple[list[str], list[str]]:
        return [f"images/{folder}", folder], [path.format(folder) for path in MASKS[self.encoding]]

    def example_pair(self, images: str, masks: str) -> str:
        """Example of an image and its mask below these paths, for messages."""
        pngs = {"stuff_json": "", "panoptic": f" and {self.root}/{masks.removesuffix('.json')}/ID.png"}
        return f"{self.root}/{images}/ID.jpg with {self.root}/{masks}{pngs.get(self.encoding, '/ID.png')}"

    def layout(self) -> str:
        """Expected folders and files, for messages."""
        (_, *images), (_, *masks) = self._default_paths("train2017")
        return (
            f"{super().layout()}\nor, for the training split, images in {' or '.join(images)} and masks in "
            f"{' or '.join(masks)}; set other paths with data.train_images, train_masks, val_images and val_masks"
        )
