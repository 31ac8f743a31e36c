"""Millions of file names and annotations in one byte buffer in place of a list of objects.

Loader processes write to the reference count of every object in a list, so each would end up with a copy of the whole
list. The buffer is a tensor, which processes share with any start method.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray


class PackedBytes(Sequence[bytes]):
    """Sequence of byte strings of any length, copied from `rows`."""

    def __init__(self, rows: Sequence[bytes]):
        self._bytes = torch.frombuffer(bytearray().join(rows) or bytearray(1), dtype=torch.uint8)
        ends = np.cumsum([len(row) for row in rows], dtype=np.int64)
        self._ends = torch.from_numpy(np.concatenate([np.zeros(1, np.int64), ends]))

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: int) -> bytes:  # type: ignore[override]  # slices are not needed
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        start, end = self._ends.numpy()[index % len(self) : index % len(self) + 2]
        return self._bytes.numpy()[start:end].tobytes()

    def __iter__(self) -> Iterator[bytes]:
        """Iterate over all rows, much faster than by index."""
        text = self._bytes.numpy().tobytes()
        return (text[start:end] for start, end in pairwise(self._ends.tolist()))

    def subset(self, indices: NDArray[np.int64]) -> PackedBytes:
        """Return the rows at some indices, in that order."""
        return PackedBytes([self[int(index)] for index in indices])


class FileIndex(Sequence[Path]):
    """Sequence of the files `names`, paths below the folder `root` with `/` between folders."""

    def __init__(self, root: str | Path, names: Sequence[str]):
        self.root = Path(root)
        self._names = PackedBytes([name.encode("utf-8", "surrogateescape") for name in names])

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> Path:  # type: ignore[override]  # slices are not needed
        return self.root / self.name(index)

    def name(self, index: int) -> str:
        """Return the path of a file below the root."""
        return self._names[index].decode("utf-8", "surrogateescape")

    def names(self) -> Iterator[str]:
        """Iterate over all paths below the root."""
        return (name.decode("utf-8", "surrogateescape") for name in self._names)

    def subset(self, indices: NDArray[np.int64]) -> FileIndex:
        """Return the files at some indices, in that order."""
        return FileIndex(self.root, [self.name(int(index)) for index in indices])
