"""Records: the numbers of one moment of a run, as they stand in metrics.jsonl and as other loggers chart them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

Record = dict[str, Any]
"""Numbers of one moment: `kind` (`step` or `epoch`), `step`, `epoch`, and `train/...` or `val/...` scores."""
Moment = tuple[str, int]
"""What tells records apart: kind and step."""


def moment(record: Record) -> Moment:
    """Of which moment a record is."""
    return record["kind"], record["step"]


def read_records(path: Path) -> list[Record]:
    """The records of a metrics.jsonl; a last line that was cut off when the run died is left out."""
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line, object_hook=_with_nan) for line in lines[:-1]]


def _with_nan(record: Record) -> Record:
    """A record whose numbers that are not finite, `null` in JSON, are numbers again."""
    return {name: math.nan if value is None else value for name, value in record.items()}


def charted(record: Record) -> Record:
    """A record under the names of curves: an epoch's training scores are another curve than those between two steps."""
    if record["kind"] != "epoch":
        return record
    return {name.replace("train/", "train_epoch/", 1): value for name, value in record.items()}
