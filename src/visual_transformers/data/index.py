"""Names of files by the million: one buffer of bytes, in place of a list of strings.

Every string of a list has a reference count that loader processes write to, so that each of them ends up with a copy
of the whole list. The buffer is a tensor, which processes share however they are started.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray


class FileIndex(Sequence[Path]):
    """Files below a folder, in the order given.

    Args:
        root: the folder.
        names: paths below it, with `/` between folders.
    """

    def __init__(self, root: str | Path, names: Sequence[str]):
        self.root = Path(root)
        encoded = [name.encode("utf-8", "surrogateescape") for name in names]
        self._text = torch.frombuffer(bytearray(b"".join(encoded) or b"\0"), dtype=torch.uint8)
        ends = np.cumsum([len(name) for name in encoded], dtype=np.int64)
        self._ends = torch.from_numpy(np.concatenate([np.zeros(1, np.int64), ends]))

    def __len__(self) -> int:
        return len(self._ends) - 1

    def name(self, index: int) -> str:
        """The path below the root.

        Raises:
            IndexError: if there is no such file.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        start, end = self._ends.numpy()[index % len(self) : index % len(self) + 2]
        return _decoded(self._text.numpy()[start:end].tobytes())

    def subset(self, places: NDArray[np.int64]) -> FileIndex:
        """The files at some places, in that order."""
        return FileIndex(self.root, [self.name(int(place)) for place in places])

    def names(self) -> Iterator[str]:
        """All paths below the root."""
        text, ends = self._text.numpy().tobytes(), self._ends.tolist()
        return (_decoded(text[start:end]) for start, end in pairwise(ends))

    def __getitem__(self, index: int) -> Path:  # type: ignore[override]  # of a slice nobody has need
        return self.root / self.name(index)


def _decoded(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")
