"""Labels: the ignore index, and class indices of mirrored images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

IGNORE_INDEX = 255
"""Label of pixels that are ignored in loss and scores, in every data set."""


def build_mirror_table(count: int, pairs: Sequence[tuple[int, int]]) -> Tensor:
    """Build a table (count,) from class index to its index in a mirrored image, which swaps each pair."""
    table = torch.arange(count)
    for one, other in pairs:
        table[one], table[other] = other, one
    return table
