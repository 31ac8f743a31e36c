"""Records of a run: the scores at one step, as lines of metrics.jsonl and as points of charts."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

Record = dict[str, Any]
"""`kind` (`step` or `epoch`), `step`, `epoch`, and scores named `train/...` or `val/...`."""
RecordKey = tuple[str, int]
"""Kind and step, which identify a record."""


def record_key(record: Record) -> RecordKey:
    """Return the key of a record."""
    return record["kind"], record["step"]


def read_records(path: Path) -> list[Record]:
    """Read a metrics.jsonl; `null` becomes NaN, and an incomplete last line of a killed run is dropped."""
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line, object_hook=_restore_nan) for line in lines[:-1]]


def _restore_nan(record: Record) -> Record:
    return {name: math.nan if value is None else value for name, value in record.items()}


def rename_for_charts(record: Record) -> Record:
    """Rename an epoch's training scores, which must not share a curve with those of single steps."""
    if record["kind"] != "epoch":
        return record
    return {name.replace("train/", "train_epoch/", 1): value for name, value in record.items()}
