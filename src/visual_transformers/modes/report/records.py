"""What a report needs of a run's metrics.jsonl, read fast: the scores of its epochs, and its pace.

A run of 300 epochs has thousands of records of steps and 300 of epochs. Lines of epochs are found by how they begin,
and no others are parsed; the pace is read from the file's end alone.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

EPOCH, STEP = b'{"kind": "epoch"', b'{"kind": "step"'
TAIL = 8_192
"""Bytes at the end of the file whose steps tell the pace."""
Series = NDArray[np.float64]


@dataclass
class Records:
    """The epochs of a run: numbers by name, each as long as `epoch` and NaN where a record lacks it."""

    epoch: Series = field(default_factory=lambda: np.empty(0))
    series: dict[str, Series] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Series:
        return self.series.get(name, np.full(len(self.epoch), np.nan))

    def validation(self, metric: str) -> Series:
        """A score on the validation split: of the raw weights or of their average, whichever is better."""
        return np.fmax(self[f"val/{metric}"], self[f"val_ema/{metric}"])


def read(path: Path, metric: str) -> Records:
    """The records of a metrics.jsonl; what is torn or foreign in it is passed over, and no file is no records."""
    try:
        content = path.read_bytes()
    except OSError:
        return Records()
    epochs = [record for record in _parsed(_lines(content, EPOCH)) if isinstance(record.get("epoch"), float)]
    names = ("train/loss", "val/loss", f"train/{metric}", f"val/{metric}", f"val_ema/{metric}")
    series = {name: _series([record.get(name) for record in epochs]) for name in names}
    return Records(
        _series([record["epoch"] for record in epochs]),
        {name: numbers for name, numbers in series.items() if not np.isnan(numbers).all()},
    )


def pace(path: Path) -> float | None:
    """Images per second in the last steps of a metrics.jsonl: their median, or None if they do not tell."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL))
            content = file.read()
    except OSError:
        return None
    paces = [number(record.get("images_per_second")) for record in _parsed(_lines(content, STEP))]
    known = [value for value in paces if value is not None]
    return median(known) if known else None


def _lines(content: bytes, beginning: bytes) -> list[bytes]:
    """The lines that begin so, but for a last one without its end."""
    found, start = [], content.find(beginning)
    while start >= 0 and (end := content.find(b"\n", start)) >= 0:
        found.append(content[start:end])
        start = content.find(beginning, end)
    return found


def _parsed(lines: list[bytes]) -> list[dict[str, Any]]:
    """Each line as a record; all at once, unless one of them is none."""
    try:
        records = json.loads(b"[" + b",".join(lines) + b"]")
    except ValueError:
        records = list(_one_by_one(lines))
    return [record for record in records if isinstance(record, dict)]


def _one_by_one(lines: list[bytes]) -> Iterator[dict[str, Any]]:
    for line in lines:
        try:
            yield json.loads(line)
        except ValueError:
            continue


def _series(values: list[Any]) -> Series:
    """Values as numbers, NaN where they are none or not finite."""
    try:
        numbers = np.array(values, np.float64)
    except (TypeError, ValueError, OverflowError):
        numbers = np.array([number(value) for value in values], np.float64)
    return np.where(np.isfinite(numbers), numbers, np.nan)


def number(value: Any) -> float | None:
    """A finite number, or None of anything else."""
    return value if isinstance(value, int | float) and abs(value) <= sys.float_info.max else None
