"""Validation images split off from the training images, where a data set has none of its own."""

from __future__ import annotations

import numpy as np

from visual_transformers.data.classification.base import LabelledFiles
from visual_transformers.errors import DataError


def parted(files: LabelledFiles, share: float, seed: int) -> tuple[LabelledFiles, LabelledFiles]:
    """Training and validation files: of each class the `share`, at least one, is held out for validation.

    The parts are a function of the seed and of how many files each class has, and keep the order of the files.

    Raises:
        DataError: if the share is none, the seed is negative, or a class has but one image.
    """
    if not 0 < share < 1:
        raise DataError(
            f"data.val_share={share}: must be above 0 and below 1, for it is a share of the training images"
        )
    if seed < 0:
        raise DataError(f"data.seed={seed}: must be at least 0")
    held = np.zeros(len(files.names), bool)
    for label in np.unique(files.labels):
        places = np.flatnonzero(files.labels == label)
        if len(places) < 2:
            raise DataError(
                f"{files.root / files.names[places[0]]}: the only image of its class, so that data.val_share={share} "
                "cannot split it; add another, or leave the class out"
            )
        count = min(max(round(share * len(places)), 1), len(places) - 1)
        held[np.random.default_rng([seed, label]).permutation(places)[:count]] = True
    return files.at(np.flatnonzero(~held)), files.at(np.flatnonzero(held))
