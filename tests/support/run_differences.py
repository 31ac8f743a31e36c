"""What two runs of the same command left that is not the same, but for times."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

TIMES = {"seconds", "train_seconds", "images_per_second"}
"""Keys of what cannot be the same twice."""

Records = list[dict[str, Any]]


def differences(whole: Path, other: Path) -> list[str]:
    """All that differs between two runs' folders: weights, states and numbers bit for bit, records line by line."""
    found: list[str] = []
    for name, read in READERS.items():
        try:
            one, two = (read(folder / name) for folder in (whole, other))
        except (OSError, ValueError, RuntimeError) as error:
            found.append(f"{name}: {error}")
        else:
            compare = of_records if name == "metrics.jsonl" else unequal
            found += compare(one, two, name)
    return [f"{other}: {line}" for line in found]


def of_records(whole: Records, other: Records, where: str) -> Iterator[str]:
    """Records that stand twice, are missing, too many, in another order, or different."""
    keys, others = ([f"{record['kind']} {record['step']}" for record in records] for records in (whole, other))
    yield from (f"{where}: {key} stands {n} times" for key, n in Counter(others).items() if n > 1)
    yield from (f"{where}: {key} is missing" for key in keys if key not in others)
    yield from (f"{where}: {key} is too many" for key in others if key not in keys)
    if keys == others:
        for key, one, two in zip(keys, whole, other, strict=True):
            yield from unequal(one, two, f"{where}: {key}")
    elif sorted(keys) == sorted(others):
        yield f"{where}: the records are in another order"


def unequal(one: Any, two: Any, where: str) -> Iterator[str]:
    """Places at which two nested values differ; floats by all their digits, tensors by their bits."""
    if isinstance(one, dict) and isinstance(two, dict):
        for key in [*one, *(key for key in two if key not in one)]:
            if key not in TIMES:
                yield from unequal(one.get(key, "missing"), two.get(key, "missing"), f"{where}: {key}")
    elif isinstance(one, list | tuple) and isinstance(two, list | tuple) and len(one) == len(two):
        for place, pair in enumerate(zip(one, two, strict=True)):
            yield from unequal(*pair, f"{where}: {place}")
    elif isinstance(one, torch.Tensor) and isinstance(two, torch.Tensor):
        if one.dtype != two.dtype or one.shape != two.shape:
            yield f"{where}: {one.dtype} {tuple(one.shape)} and {two.dtype} {tuple(two.shape)}"
        elif not torch.equal(*(tensor.contiguous().reshape(-1).view(torch.uint8) for tensor in (one, two))):
            yield f"{where}: {int((one != two).sum())} of {one.numel()} numbers differ"
    elif repr(one) != repr(two):
        yield f"{where}: {one!r} and {two!r}"


def _safetensors(path: Path) -> dict[str, Any]:
    """The tensors, and the metadata, whose values are JSON."""
    with safe_open(path, "pt") as file:
        names, metadata = file.keys(), {key: json.loads(text) for key, text in file.metadata().items()}
        return {name: file.get_tensor(name) for name in names} | {"metadata": metadata}


READERS: dict[str, Callable[[Path], Any]] = {
    "checkpoints/last.pt": lambda path: torch.load(path, weights_only=True),
    "checkpoints/best.safetensors": _safetensors,
    "metrics.jsonl": lambda path: [json.loads(line) for line in path.read_text().splitlines()],
    "metrics.csv": lambda path: path.read_text().splitlines(),
    "classes.csv": lambda path: path.read_text().splitlines(),
    "summary.json": lambda path: json.loads(path.read_text()),
}
"""What a finished run leaves, and how each file is read to be compared."""
