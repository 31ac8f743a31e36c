"""Statistics of many samples: faults, notes, and exact sums for class balance, mean and standard deviation."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from visual_transformers.data.dataset import count_targets
from visual_transformers.data.io.reading import Note
from visual_transformers.modes.check_data.inspection import DIGEST_BYTES, Fault, Inspection


class Statistics:
    """Statistics of `length` samples, added in their order; unusable samples count in no sum.

    Args:
        length: number of samples that will be added.
        classes: number of classes.

    Attributes:
        faults: reasons why samples cannot be used.
        notes: (length,) bytes of `Note`.
        digests: (length, 16) bytes, the hashes of the images.
        histogram: (3, 256), pixels by channel and value.
        target_counts: (classes + 1,), images or pixels of each class; the last are ignored pixels.
        image_counts: (classes,), images of each class, or with a pixel of it.
    """

    def __init__(self, length: int, classes: int):
        self.faults: list[Fault] = []
        self.notes = np.zeros(length, np.uint8)
        self.digests = np.zeros((length, DIGEST_BYTES), np.uint8)
        self.histogram = np.zeros((3, 256), np.int64)
        self.target_counts = np.zeros(classes + 1, np.int64)
        self.image_counts = np.zeros(classes, np.int64)
        self._added = 0

    def __len__(self) -> int:
        return self._added

    def add_sample(self, sample: Inspection) -> None:
        """Add one sample."""
        self.faults += sample.faults
        self.notes[self._added] = sample.notes
        self.digests[self._added] = np.frombuffer(sample.digest, np.uint8)
        self._added += 1
        if sample.faults or sample.picture is None or sample.target is None:
            return
        self.histogram += np.reshape(sample.picture.histogram(), (3, 256))
        counts = count_targets(sample.target, len(self.image_counts))
        self.target_counts += counts
        self.image_counts += counts[:-1] > 0

    def merge(self, other: Statistics) -> None:
        """Add the samples of other statistics."""
        added = slice(self._added, self._added + len(other))
        self.notes[added], self.digests[added] = other.notes, other.digests
        self._added += len(other)
        self.faults += other.faults
        self.histogram += other.histogram
        self.target_counts += other.target_counts
        self.image_counts += other.image_counts

    def find_noted(self, note: Note) -> NDArray[np.int64]:
        """Return the indices of the samples with a note."""
        return np.flatnonzero(self.notes & note)


def compute_mean_and_std(histogram: NDArray[np.int64]) -> tuple[list[float], list[float]]:
    """Compute mean and standard deviation of each channel's pixels, scaled to 0 to 1, from counts (3, 256) by value.

    The integer arithmetic makes them independent of the order of addition. They are NaN without pixels.
    """
    means, deviations = [], []
    for counts in histogram.tolist():
        pixels = sum(counts)
        total = sum(value * count for value, count in enumerate(counts))
        squares = sum(value * value * count for value, count in enumerate(counts))
        means.append(total / pixels / 255 if pixels else math.nan)
        deviations.append(math.sqrt((pixels * squares - total**2) / pixels**2) / 255 if pixels else math.nan)
    return means, deviations


def group_equal_images(splits: list[Statistics]) -> Iterator[list[tuple[int, int]]]:
    """Yield groups of two or more usable images with equal content, as (split, index) in order."""
    usable = np.concatenate([split.notes & Note.UNUSABLE == 0 for split in splits])
    split = np.repeat(np.arange(len(splits)), [len(split) for split in splits])[usable]
    index = np.concatenate([np.arange(len(split)) for split in splits])[usable]
    keys = np.concatenate([split.digests for split in splits])[usable].view(np.uint64)
    order = np.lexsort(keys.T)  # stable, so that equal images stay in order
    keys = keys[order]
    starts = 1 + np.flatnonzero((keys[1:] != keys[:-1]).any(axis=1))  # of all groups except the first
    groups = [group for group in np.split(order, starts) if len(group) > 1]
    for group in sorted(groups, key=lambda group: int(group[0])):
        yield list(zip(split[group].tolist(), index[group].tolist(), strict=True))
