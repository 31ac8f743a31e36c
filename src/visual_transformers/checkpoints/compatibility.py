"""What is said of weights: how a file differs from a model, and what was loaded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

MAX_LISTED = 5
"""Names of each kind that a message lists."""


@dataclass
class Differences:
    """Names at which a file and a model do not agree; false if there are none.

    Args:
        missing: of the model, not in the file. A count of batches that batch norm saw is not missed: frozen batch
            norms have none, and it changes nothing.
        unexpected: of the file, not in the model.
        shapes: of both, with the file's shape and the model's.
    """

    missing: list[str]
    unexpected: list[str]
    shapes: dict[str, tuple[tuple[int, ...], tuple[int, ...]]]

    @classmethod
    def between(cls, wanted: dict[str, Tensor], given: dict[str, Tensor]) -> Differences:
        """Compare a model's tensors with a file's, both by the model's names."""
        return cls(
            missing=[name for name in wanted if name not in given and not counts_batches(name)],
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
        """One line for each kind of difference."""
        shapes = [f"{name} {theirs} in the file, {ours} in the model" for name, (theirs, ours) in self.shapes.items()]
        kinds = {"missing from the file": self.missing, "not in the model": self.unexpected, "of another shape": shapes}
        return "\n".join(f"  {len(names)} {kind}: {listed(names)}" for kind, names in kinds.items() if names)

    def only_shapes_of(self, prefixes: tuple[str, ...]) -> bool:
        """Whether nothing differs but the shapes of tensors whose names begin so."""
        return not self.missing and not self.unexpected and all(name.startswith(prefixes) for name in self.shapes)


@dataclass
class Loaded:
    """What was loaded; as text, a sentence and a line for whatever else should be known.

    Args:
        source: the file, or the name of published weights.
        names: of the model, loaded from there.
        kept: of the model, with the values they had.
        skipped: of the file, left out.
        notes: what else should be known.
    """

    source: Path
    names: list[str]
    kept: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"loaded {len(self.names)} tensors from {self.source}"]
        if self.kept:
            lines.append(f"{len(self.kept)} of the model keep their initial values: {grouped(self.kept)}")
        if self.skipped:
            lines.append(f"{len(self.skipped)} of the file are left out: {grouped(self.skipped)}")
        return "\n  ".join([*lines, *self.notes])


def counts_batches(name: str) -> bool:
    """Whether a tensor is batch norm's count of batches, which nothing here computes with."""
    return name.endswith("num_batches_tracked")


def listed(names: Sequence[str]) -> str:
    """The first few names."""
    return ", ".join(names[:MAX_LISTED]) + (", ..." if len(names) > MAX_LISTED else "")


def grouped(names: Iterable[str]) -> str:
    """Names by their first two parts, as in `branch.stages.* (18)`; one by itself in full."""
    names = list(names)
    first_two = [".".join(name.split(".")[:2]) for name in names]
    sizes = Counter(first_two)
    alone = dict(zip(first_two, names, strict=True))
    return listed([f"{group}.* ({size})" if size > 1 else alone[group] for group, size in sizes.items()])


def first_difference(theirs: Sequence[str], ours: Sequence[str]) -> str:
    """Where two lists of as many classes differ first; empty for lists that do not, or of unequal length."""
    if len(theirs) != len(ours):
        return ""
    where = ((i, a, b) for i, (a, b) in enumerate(zip(theirs, ours, strict=True)) if a != b)
    return next((f", first different at index {i}: {a!r} in the file, {b!r} in the data set" for i, a, b in where), "")
