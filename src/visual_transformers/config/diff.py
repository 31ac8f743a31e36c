"""Differences between the settings of runs, and a digest of those that decide what a run learns."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from textwrap import shorten
from typing import Any, NamedTuple

from visual_transformers.config.schema import Node

FREE_TO_CHANGE = (
    "name", "mode", "trust", "resume", "weights", "logger", "input", "predict", "explain", "export", "profile",
    "check_data", "report", "sweep", "checkpoint", "debug.anomaly", "debug.trace_steps", "training.log_every",
    "training.samples", "training.skip_nonfinite", "data.root", "data.download", "data.eval_batch_size",
    "data.check_files", "data.on_error", "data.max_skipped", "hardware.device", "hardware.devices",
    "hardware.compile", "hardware.channels_last", "hardware.workers", "hardware.threads", "hardware.deterministic",
)  # fmt: skip
"""Settings that may change when a run resumes: they say where and how it runs, not what it learns."""
RENAMED = {
    "visual_transformers.data.reading.": "visual_transformers.data.io.reading.",
    "visual_transformers.training.hardware.": "visual_transformers.distributed.hardware.",
    "visual_transformers.training.schedules.": "visual_transformers.training.lr_schedules.",
}
"""Current prefixes of targets by those in the files of earlier runs."""
MAX_SHOWN = 200
"""Characters of a value in a message; a list of a thousand classes is one value."""


class Change(NamedTuple):
    """A setting that differs between two runs."""

    key: str
    then: Any
    now: Any

    def __str__(self) -> str:
        return f"{self.key}: {shorten(str(self.then), MAX_SHOWN)} -> {shorten(str(self.now), MAX_SHOWN)}"

    def within(self, allowed: list[str]) -> bool:
        """Return True if one of the keys is this setting or a section around it."""
        return any(self.key == key or self.key.startswith(f"{key}.") for key in allowed)


def current_name(target: Any) -> Any:
    """Return a target of an earlier run under its current name; any other value unchanged."""
    for earlier, current in RENAMED.items():
        if isinstance(target, str) and target.startswith(earlier):
            return current + target.removeprefix(earlier)
    return target


def changed_settings(then: Any, now: Any, path: str = "") -> Iterator[Change]:
    """Yield each setting that differs and is not free to change."""
    if path in FREE_TO_CHANGE:
        return
    if isinstance(then, dict) and isinstance(now, dict):
        for key in dict.fromkeys([*then, *now]):
            yield from changed_settings(then.get(key), now.get(key), f"{path}.{key}" if path else str(key))
    elif current_name(then) != now:
        yield Change(path, then, now)


def digest(settings: Node) -> str:
    """Return a short digest of the settings that decide what a run learns, except its seed.

    It includes the initial weights, although a resumed run no longer reads them.
    """
    free, debug = {*FREE_TO_CHANGE, "seed"} - {"weights"}, settings.get("debug")
    if not (isinstance(debug, dict) and debug.get("samples")):
        free.add("debug")  # earlier runs do not have debug.samples
    as_json = json.loads(json.dumps(without(settings, free), default=str))  # turns all keys into strings
    text = json.dumps(as_json, sort_keys=True)
    for earlier, current in RENAMED.items():  # so that a run has the same digest as before the renaming
        text = text.replace(f'"{current}', f'"{earlier}')
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def without(node: Any, keys: set[str], path: str = "") -> Any:
    """Return a node without the keys of these dotted paths."""
    if not isinstance(node, dict):
        return node
    inner = {key: f"{path}.{key}" if path else str(key) for key in node}
    return {key: without(value, keys, inner[key]) for key, value in node.items() if inner[key] not in keys}
