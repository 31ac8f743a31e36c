"""Differences between a weight file and a model, and the report on loaded and unused tensors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from visual_transformers.data.io.files import join_first


@dataclass
class Differences:
    """Keys in which a file and a model differ; false if there are none.

    Args:
        missing: keys of the model that the file lacks, without batch norm's batch counters: frozen batch norms have
            none, and nothing is computed from them.
        unexpected: keys of the file that the model lacks.
        shapes: shapes in the file and in the model, of the keys that both have.
    """

    missing: list[str]
    unexpected: list[str]
    shapes: dict[str, tuple[tuple[int, ...], tuple[int, ...]]]

    @classmethod
    def compare(cls, wanted: dict[str, Tensor], given: dict[str, Tensor]) -> Differences:
        """Compare a model's tensors with a file's, both under the model's keys."""
        return cls(
            missing=[name for name in wanted if name not in given and not is_batch_counter(name)],
            unexpected=[name for name in given if name not in wanted],
            shapes={
                name: (tuple(given[name].shape), tuple(tensor.shape))
                for name, tensor in wanted.items()
                if name in given and given[name].shape != tensor.shape
            },
        )

    def __bool__(self) -> bool:
        return bool(self.missing or self.unexpected or self.shapes)

    def __str__(self) -> str:
        shapes = [f"{name} {file} in the file, {model} in the model" for name, (file, model) in self.shapes.items()]
        kinds = {"missing from the file": self.missing, "not in the model": self.unexpected, "of another shape": shapes}
        return "\n".join(f"  {len(names)} {kind}: {join_first(names)}" for kind, names in kinds.items() if names)

    def only_shapes_of(self, prefixes: tuple[str, ...]) -> bool:
        """Return True if only shapes differ, and only of tensors with one of the prefixes."""
        return not self.missing and not self.unexpected and all(name.startswith(prefixes) for name in self.shapes)


@dataclass
class LoadReport:
    """Report on loaded and unused tensors; as text, a sentence and a line for each note.

    Args:
        source: the file, or the name of published weights.
        loaded: keys of the model that were loaded.
        not_loaded: keys of the model that keep their initial values.
        unused: keys of the file that were not loaded.
        notes: sentences.
    """

    source: Path
    loaded: list[str]
    not_loaded: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"loaded {len(self.loaded)} tensors from {self.source}"]
        if self.not_loaded:
            lines.append(f"{len(self.not_loaded)} of the model keep their initial values: {_group(self.not_loaded)}")
        if self.unused:
            lines.append(f"{len(self.unused)} of the file are left out: {_group(self.unused)}")
        return "\n  ".join([*lines, *self.notes])


def is_batch_counter(name: str) -> bool:
    """Return True for batch norm's `num_batches_tracked`, from which this package computes nothing."""
    return name.endswith("num_batches_tracked")


def _group(names: list[str]) -> str:
    """Group names by their first two components, e.g. `branch.stages.* (18)`; a single name stays whole."""
    prefixes = [".".join(name.split(".")[:2]) for name in names]
    last_names = dict(zip(prefixes, names, strict=True))
    sizes = Counter(prefixes).items()
    return join_first([f"{prefix}.* ({size})" if size > 1 else last_names[prefix] for prefix, size in sizes])


def describe_first_difference(in_file: Sequence[str], in_data: Sequence[str]) -> str:
    """Describe the first index at which two lists of classes differ; empty if only their lengths do."""
    if len(in_file) != len(in_data):
        return ""
    pairs = ((i, a, b) for i, (a, b) in enumerate(zip(in_file, in_data, strict=True)) if a != b)
    return next((f", first different at index {i}: {a!r} in the file, {b!r} in the data set" for i, a, b in pairs), "")
