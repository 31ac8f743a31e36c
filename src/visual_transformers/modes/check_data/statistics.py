"""What was found of many samples: faults, and sums from which balance, mean and deviation follow exactly."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from visual_transformers.data.dataset import target_counts
from visual_transformers.data.io.reading import Note
from visual_transformers.modes.check_data.inspection import DIGEST_BYTES, Fault, Inspected


class Findings:
    """What was found of `length` samples in their order; samples that cannot be used count in no sum.

    Args:
        length: how many samples will be added.
        classes: how many classes there are.

    Attributes:
        faults: why samples cannot be used.
        notes: a byte of `Note` each.
        digests: (length, 16) bytes, the hashes of the images.
        values: (3, 256), how many pixels have each value, by channel.
        targets: (classes + 1,), images of each class, or pixels; the last for pixels that are ignored.
        images: (classes,), images of each class, or with a pixel of it.
    """

    def __init__(self, length: int, classes: int):
        self.faults: list[Fault] = []
        self.notes = np.zeros(length, np.uint8)
        self.digests = np.zeros((length, DIGEST_BYTES), np.uint8)
        self.values = np.zeros((3, 256), np.int64)
        self.targets = np.zeros(classes + 1, np.int64)
        self.images = np.zeros(classes, np.int64)
        self._added = 0

    def __len__(self) -> int:
        return self._added

    def take(self, sample: Inspected) -> None:
        """Add one sample."""
        self.faults += sample.faults
        self.notes[self._added] = sample.notes
        self.digests[self._added] = np.frombuffer(sample.digest, np.uint8)
        self._added += 1
        if sample.faults or sample.picture is None or sample.target is None:
            return
        self.values += np.reshape(sample.picture.histogram(), (3, 256))
        counts = target_counts(sample.target, len(self.images))
        self.targets += counts
        self.images += counts[:-1] > 0

    def add(self, other: Findings) -> None:
        """Add the samples that follow."""
        place = slice(self._added, self._added + len(other))
        self.notes[place], self.digests[place] = other.notes, other.digests
        self._added += len(other)
        self.faults += other.faults
        self.values += other.values
        self.targets += other.targets
        self.images += other.images

    def noted(self, note: Note) -> NDArray[np.int64]:
        """The places of the samples with a note."""
        return np.flatnonzero(self.notes & note)

    @property
    def usable(self) -> int:
        """How many samples can be used."""
        return len(self) - len(self.noted(Note.UNUSABLE))


def mean_and_deviation(values: NDArray[np.int64]) -> tuple[list[float], list[float]]:
    """Of all pixels, for each channel, in 0 to 1 as ImageNet's are given, from counts (3, 256) of their values.

    They come from whole numbers, so that no order of adding changes them; NaN without pixels.
    """
    means, deviations = [], []
    for counts in values.tolist():
        pixels = sum(counts)
        total = sum(value * count for value, count in enumerate(counts))
        squares = sum(value * value * count for value, count in enumerate(counts))
        means.append(total / pixels / 255 if pixels else math.nan)
        deviations.append(math.sqrt((pixels * squares - total**2) / pixels**2) / 255 if pixels else math.nan)
    return means, deviations


def equal_images(parts: list[Findings]) -> Iterator[list[tuple[int, int]]]:
    """Groups of two or more usable images with equal content: (part, place) of each, in order."""
    usable = np.concatenate([part.notes & Note.UNUSABLE == 0 for part in parts])
    part = np.repeat(np.arange(len(parts)), [len(part) for part in parts])[usable]
    place = np.concatenate([np.arange(len(part)) for part in parts])[usable]
    keys = np.concatenate([part.digests for part in parts])[usable].view(np.uint64)
    order = np.lexsort(keys.T)  # it is stable, so that equal ones stay in order
    keys = keys[order]
    begins = 1 + np.flatnonzero((keys[1:] != keys[:-1]).any(axis=1))  # of every group but the first
    groups = [found for found in np.split(order, begins) if len(found) > 1]
    for found in sorted(groups, key=lambda group: int(group[0])):
        yield list(zip(part[found].tolist(), place[found].tolist(), strict=True))
