"""COCO-Stuff's categories by their official ids, and the label sets that number them for a model.

An id is 0 for an unlabeled pixel, 1 to 91 for a thing, 92 to 182 for stuff, 183 for 'other' (all things together, where
an encoding does not tell them apart), and 184 to 200 for stuff that the panoptic task merged.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from visual_transformers.data.normalization import IGNORE

LabelSet = Literal["stuff", "stuff_things", "stuff_merged"]

EMPTY_THINGS = frozenset({12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91})
"""Ids of the thing classes that were removed from COCO: no pixel ever has them."""
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
"""What the panoptic task made of 43 stuff classes, as cocodataset.org/#panoptic-eval lists it; ids 184 to 200."""
DROPPED = (
    "furniture-other", "metal", "plastic", "solid-other", "structural-other", "waterdrops", "textile-other", "cloth",
    "clothes", "plant-other", "wood", "ground-other",
)  # fmt: skip
"""The stuff classes that the panoptic task leaves unlabeled, by the same list."""


@cache
def names() -> dict[int, str]:
    """Class names by official id, 1 to 200; that of 183 is what Detectron2 calls it."""
    text = (files("visual_transformers.data.segmentation.coco") / "labels.txt").read_text(encoding="utf-8")
    single = {int(number): name for number, name in (line.split(": ", 1) for line in text.splitlines())}
    return single | {OTHER: "things"} | dict(enumerate(MERGED, OTHER + 1))


@cache
def merged_ids() -> dict[int, int]:
    """Into which panoptic category each of the 91 stuff ids went: itself, a merged one, or 0 for none."""
    parts = {part: number for number, merged in enumerate(MERGED, OTHER + 1) for part in MERGED[merged]}
    parts |= dict.fromkeys(DROPPED, 0)
    return {i: parts.get(names()[i], i) for i in STUFF}


@cache
def ids(label_set: LabelSet) -> list[int]:
    """Official ids of a label set's classes, in the order of the model's outputs."""
    merged = sorted(set(merged_ids().values()) - {0})
    return {"stuff": STUFF, "stuff_things": THINGS + STUFF, "stuff_merged": [OTHER, *merged]}[label_set]


def class_indices(label_set: LabelSet) -> NDArray[np.int64]:
    """The class index of every official id (201 of them), `IGNORE` where the label set has none."""
    indices = np.full(201, IGNORE)
    indices[ids(label_set)] = np.arange(len(ids(label_set)))
    if label_set == "stuff_merged":
        indices[THINGS] = indices[OTHER]
        indices[0] = IGNORE  # also where the dropped ones find themselves
        indices[STUFF] = indices[[merged_ids()[i] for i in STUFF]]
    return indices
