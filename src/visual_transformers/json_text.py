"""Strict JSON: non-finite numbers are written as `null`, because many readers refuse Python's `NaN`."""

from __future__ import annotations

import json
import math
from typing import Any


def dumps(value: Any, *, indent: int | None = None) -> str:
    """Serialize a value, with `null` for every non-finite number.

    Raises:
        TypeError: if the value contains a type that JSON lacks.
    """
    return json.dumps(_replace_nonfinite(value), indent=indent, allow_nan=False)


def _replace_nonfinite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _replace_nonfinite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_replace_nonfinite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
