"""Fast reading of a run's metrics.jsonl: scores of the epochs, and throughput.

A run of 300 epochs has thousands of step records and 300 epoch records. Only lines that start like an epoch record are
parsed, and the throughput is read from the end of the file.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

EPOCH, STEP = b'{"kind": "epoch"', b'{"kind": "step"'
TAIL = 8_192
"""Bytes at the end of the file from which the throughput is read."""
Series = NDArray[np.float64]


@dataclass
class Records:
    """Epochs of a run: series of numbers by name, each as long as `epoch`, NaN where a record lacks the number."""

    epoch: Series = field(default_factory=lambda: np.empty(0))
    series: dict[str, Series] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Series:
        return self.series.get(name, np.full(len(self.epoch), np.nan))

    def get_validation(self, metric: str) -> Series:
        """Return a validation score: of the raw weights or of their EMA, whichever is better."""
        return np.fmax(self[f"val/{metric}"], self[f"val_ema/{metric}"])


def read(path: Path, metric: str) -> Records:
    """Read the epoch records of a metrics.jsonl; damaged lines are skipped, and a missing file is empty."""
    try:
        content = path.read_bytes()
    except OSError:
        return Records()
    epochs = [record for record in _parse(_find_lines(content, EPOCH)) if isinstance(record.get("epoch"), float)]
    names = ("train/loss", "val/loss", f"train/{metric}", f"val/{metric}", f"val_ema/{metric}")
    epoch, *series = (
        np.array([finite_number(record.get(name)) for record in epochs], np.float64) for name in ("epoch", *names)
    )
    return Records(epoch, dict(zip(names, series, strict=True)))


def read_images_per_second(path: Path) -> float | None:
    """Read the median throughput of the last steps of a metrics.jsonl; None if it is unknown."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL))
            content = file.read()
    except OSError:
        return None
    values = [finite_number(record.get("images_per_second")) for record in _parse(_find_lines(content, STEP))]
    known = [value for value in values if value is not None]
    return median(known) if known else None


def _find_lines(content: bytes, start: bytes) -> list[bytes]:
    """Return the lines that start so, without an incomplete last line."""
    lines, begin = [], content.find(start)
    while begin >= 0 and (end := content.find(b"\n", begin)) >= 0:
        lines.append(content[begin:end])
        begin = content.find(start, end)
    return lines


def _parse(lines: list[bytes]) -> list[dict[str, Any]]:
    """Parse all lines at once, which is twice as fast; only if one is damaged, line by line."""
    try:
        records = json.loads(b"[" + b",".join(lines) + b"]")
    except ValueError:
        return [record for line in lines for record in _parse([line])] if len(lines) > 1 else []
    return [record for record in records if isinstance(record, dict)]


def finite_number(value: Any) -> float | None:
    """Return the value if it is a finite number, otherwise None."""
    return value if isinstance(value, int | float) and abs(value) <= sys.float_info.max else None
