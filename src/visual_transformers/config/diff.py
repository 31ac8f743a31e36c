"""Which settings make a run what it is: which are free to change, which differ in two runs, and a name for the rest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from textwrap import shorten
from typing import Any, NamedTuple

from visual_transformers.config.schema import Node

FREE_TO_CHANGE = (
    "name", "mode", "trust", "resume", "weights", "logger", "input", "predict", "export", "profile", "check_data",
    "report", "sweep", "checkpoint", "debug", "training.log_every", "training.samples", "training.skip_nonfinite",
    "data.root", "data.download", "data.eval_batch_size", "data.check_files", "data.on_error", "data.max_skipped",
    "hardware.device", "hardware.devices", "hardware.compile", "hardware.channels_last", "hardware.workers",
    "hardware.threads", "hardware.deterministic",
)  # fmt: skip
"""Settings that a resumed run may have other than when it stopped: they say where and how it runs, not what."""
LONGEST = 200
"""Characters of a value that are shown: a thousand classes are one."""


class Change(NamedTuple):
    """A setting that differs."""

    key: str
    then: Any
    now: Any

    def __str__(self) -> str:
        return f"{self.key}: {shorten(str(self.then), LONGEST)} -> {shorten(str(self.now), LONGEST)}"

    def within(self, allowed: list[str]) -> bool:
        """Whether one of the keys is this one, or the beginning of it."""
        return any(self.key == key or self.key.startswith(f"{key}.") for key in allowed)


def changed_settings(then: Any, now: Any, path: str = "") -> Iterator[Change]:
    """Each setting that differs and is not free to change."""
    if path in FREE_TO_CHANGE:
        return
    if isinstance(then, dict) and isinstance(now, dict):
        for key in dict.fromkeys([*then, *now]):
            yield from changed_settings(then.get(key), now.get(key), f"{path}.{key}" if path else str(key))
    elif then != now:
        yield Change(path, then, now)


def digest(settings: Node) -> str:
    """A short name for settings, of all that makes a run what it is but for its seed.

    The weights that it starts from do so too, though a run that goes on no longer reads them.
    """
    kept = without(settings, {*FREE_TO_CHANGE, "seed"} - {"weights"})
    as_json = json.loads(json.dumps(kept, default=str))  # whose keys are strings, and in one order
    return hashlib.sha256(json.dumps(as_json, sort_keys=True).encode()).hexdigest()[:12]


def without(node: Any, keys: set[str], path: str = "") -> Any:
    """A node, and those in it, without the keys of these dotted paths."""
    if not isinstance(node, dict):
        return node
    inner = {key: f"{path}.{key}" if path else str(key) for key in node}
    return {key: without(value, keys, inner[key]) for key, value in node.items() if inner[key] not in keys}
