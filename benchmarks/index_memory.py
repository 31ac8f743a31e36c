"""What an index of 1.28 million files costs in memory, in the main process and in each loader process.

`python benchmarks/index_memory.py` builds the index of a synthetic ImageNet twice, as the suite does and as a list of
(path, class) as torchvision's ImageFolder has it, opens two loader processes on each and looks at every entry once. It
prints the private memory (what a process shares with no other) that this adds to each of them. Linux alone.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from visual_transformers.data.io.file_index import FileIndex

CLASSES, PER_CLASS, WORKERS, CHUNK = 1000, 1280, 2, 4000


def names() -> list[str]:
    """1.28 million names as ImageNet has them."""
    return [f"train/n{c:08d}/n{c:08d}_{i}.JPEG" for c in range(CLASSES) for i in range(PER_CLASS)]


def private_memory() -> float:
    """MiB that this process shares with no other."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024


class Entries(Dataset[Any]):
    """Looks at entries from all over, as a shuffled epoch does; tells the process and its private memory around it."""

    def __init__(self, entries: Sequence[Any]):
        self.entries = entries

    def __len__(self) -> int:
        return len(self.entries) // CHUNK

    def __getitem__(self, chunk: int) -> tuple[int, float, float]:
        before = private_memory()
        for index in range(chunk, len(self.entries), len(self)):
            str(self.entries[index])
        return os.getpid(), before, private_memory()


def measure(name: str, make: Callable[[], Sequence[Any]]) -> None:
    """Print what the entries add to the main process and to the worker processes."""
    gc.collect()
    before = private_memory()
    entries = make()
    gc.collect()
    held = private_memory() - before
    first: dict[int, float] = {}
    last: dict[int, float] = {}
    loader = DataLoader(Entries(entries), batch_size=None, num_workers=WORKERS)
    for process, earlier, later in loader:
        first.setdefault(process, earlier)
        last[process] = later
    grown = [last[process] - first[process] for process in first]
    print(f"{name:30s} main process {held:6.0f} MiB, each loader process another {max(grown):6.0f} MiB")


WAYS: dict[str, Callable[[], Sequence[Any]]] = {
    "FileIndex": lambda: FileIndex("/data", names()),
    "list of (path, class)": lambda: [(f"/data/{name}", place // PER_CLASS) for place, name in enumerate(names())],
}


def main() -> None:
    """Measure both ways, one process each, so that neither finds memory that the other left."""
    torch.set_num_threads(1)
    print(f"{CLASSES * PER_CLASS} entries, {WORKERS} loader processes")
    for name, make in WAYS.items():
        sys.stdout.flush()
        if not (child := os.fork()):
            measure(name, make)
            sys.stdout.flush()
            os._exit(0)
        os.waitpid(child, 0)


if __name__ == "__main__":
    main()
