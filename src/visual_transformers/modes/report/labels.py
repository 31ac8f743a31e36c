"""What tells rows of the same model, data and recipe apart: the settings in which they differ."""

from __future__ import annotations

import json
from collections.abc import Iterable

from visual_transformers.config.diff import FREE_TO_CHANGE
from visual_transformers.config.schema import Node
from visual_transformers.modes.report.groups import Group

TARGET = "._target_"
NOT_TOLD = {*FREE_TO_CHANGE, "seed"} - {"weights", "data.root"}
"""Settings that do not tell rows apart. Where weights and data came from does."""


def tell_apart(groups: Iterable[Group]) -> None:
    """Give `settings` to those that would be called the same; only of these is the configuration read."""
    namesakes: dict[object, list[Group]] = {}
    for group in groups:
        namesakes.setdefault((group.subject, group.model, group.recipe), []).append(group)
    for alike in namesakes.values():
        if len(alike) > 1:
            _name(alike)


def _name(groups: list[Group]) -> None:
    configs = [group.runs[0].config for group in groups]
    differing = [key for key in dict.fromkeys(key for config in configs for key in config) if _differs(key, configs)]
    keys = [key for key in differing if not _within(key, NOT_TOLD)]
    parts = {key.removesuffix(TARGET) for key in keys if key.endswith(TARGET)}
    kept = [key for key in keys if all(key in c for c in configs) or not _within(key.rpartition(".")[0], parts)]
    for group, config in zip(groups, configs, strict=True):
        group.settings = " ".join(_said(key, config[key]) for key in kept if key in config)
    texts = [group.settings for group in groups]
    for group in groups:
        if texts.count(group.settings) > 1:
            images = group.fact("training_samples")
            told = f"({images:g} images)" if images else f"({group.runs[0].text('settings')})"
            group.settings = f"{group.settings} {told}".lstrip()


def _within(key: str, sections: Iterable[str]) -> bool:
    """Whether a key is one of the sections or below one of them."""
    return any(key == section or key.startswith(f"{section}.") for section in sections)


def _differs(key: str, configs: list[Node]) -> bool:
    values = [repr(config.get(key)) for config in configs]
    return any(value != values[0] for value in values)


def _said(key: str, value: object) -> str:
    """A setting as one would give it; for what is built, the name of its class."""
    if key.endswith(TARGET):
        return f"{key.removesuffix(TARGET)}={str(value).rpartition('.')[2]}"
    shown = value if isinstance(value, str) else json.dumps(value, default=str)
    return f"{key}={shown}".replace(" ", "")
