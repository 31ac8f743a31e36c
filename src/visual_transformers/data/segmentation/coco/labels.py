"""COCO-Stuff's categories by their official ids, and the label sets that map them to class indices.

An id is 0 for an unlabeled pixel, 1 to 91 for a thing, 92 to 182 for stuff, 183 for 'other' (all things together, in
encodings that do not tell them apart), and 184 to 200 for stuff that the panoptic task merged.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from visual_transformers.data.labels import IGNORE_INDEX

LabelSet = Literal["stuff", "stuff_things", "stuff_merged"]

EMPTY_THINGS = frozenset({12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91})
"""Ids of thing classes that were removed from COCO: no pixel has them."""
THINGS = [i for i in range(1, 92) if i not in EMPTY_THINGS]
STUFF = list(range(92, 183))
OTHER = 183

MERGED = {
    "tree-merged": ("branch", "tree", "bush", "leaves"),
    "fence-merged": ("cage", "fence", "railing"),
    "ceiling-merged": ("ceiling-tile", "ceiling-other"),
    "sky-other-merged": ("clouds", "sky-other", "fog"),
    "cabinet-merged": ("cupboard", "cabinet"),
    "table-merged": ("desk-stuff", "table"),
    "floor-other-merged": ("floor-marble", "floor-other", "floor-tile"),
    "pavement-merged": ("floor-stone", "pavement"),
    "mountain-merged": ("hill", "mountain"),
    "grass-merged": ("moss", "grass", "straw"),
    "dirt-merged": ("mud", "dirt"),
    "paper-merged": ("napkin", "paper"),
    "food-other-merged": ("salad", "vegetable", "food-other"),
    "building-other-merged": ("skyscraper", "building-other"),
    "rock-merged": ("stone", "rock"),
    "wall-other-merged": ("wall-other", "wall-concrete", "wall-panel"),
    "rug-merged": ("mat", "rug", "carpet"),
}
"""The panoptic task's classes 184 to 200, merged from 43 stuff classes (list: cocodataset.org/#panoptic-eval)."""
DROPPED = (
    "furniture-other", "metal", "plastic", "solid-other", "structural-other", "waterdrops", "textile-other", "cloth",
    "clothes", "plant-other", "wood", "ground-other",
)  # fmt: skip
"""Stuff classes that the panoptic task leaves unlabeled, from the same list."""


@cache
def category_names() -> dict[int, str]:
    """Class names by official id, 1 to 200; that of 183 is from Detectron2."""
    text = (files("visual_transformers.data.segmentation.coco") / "labels.txt").read_text(encoding="utf-8")
    single = {int(number): name for number, name in (line.split(": ", 1) for line in text.splitlines())}
    return single | {OTHER: "things"} | dict(enumerate(MERGED, OTHER + 1))


@cache
def merged_ids() -> dict[int, int]:
    """Panoptic category of each of the 91 stuff ids: itself, a merged one, or 0 for none."""
    parts = {part: number for number, merged in enumerate(MERGED, OTHER + 1) for part in MERGED[merged]}
    parts |= dict.fromkeys(DROPPED, 0)
    return {i: parts.get(category_names()[i], i) for i in STUFF}


@cache
def category_ids(label_set: LabelSet) -> list[int]:
    """Official ids of a label set's classes, in the order of the class indices."""
    merged = sorted(set(merged_ids().values()) - {0})
    return {"stuff": STUFF, "stuff_things": THINGS + STUFF, "stuff_merged": [OTHER, *merged]}[label_set]


def class_indices(label_set: LabelSet) -> NDArray[np.int64]:
    """Class index of every official id, (201,); the ignore index if the label set has none."""
    indices = np.full(201, IGNORE_INDEX)
    indices[category_ids(label_set)] = np.arange(len(category_ids(label_set)))
    if label_set == "stuff_merged":
        indices[THINGS] = indices[OTHER]
        indices[0] = IGNORE_INDEX  # also for dropped classes, whose merged id is 0
        indices[STUFF] = indices[[merged_ids()[i] for i in STUFF]]
    return indices
