"""Loaders whose every sample is a function of (seed, epoch, index), whatever the number of workers and of processes."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.queues import Queue
from typing import Any

import numpy as np
import torch
from joblib import cpu_count  # heeds affinity and the quota of a container, as os.cpu_count does not
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from visual_transformers.data.datamodule import Samples
from visual_transformers.data.io.bad_files import NONE_ALLOWED, BadFiles
from visual_transformers.errors import MORE_FILES, BadFileError, RunError, UserError

Batch = tuple[Tensor, Tensor]


def processes(workers: int | None) -> int:
    """How many loader processes: as many as asked for, or for null one for each core that this process may use."""
    return cpu_count() if workers is None else workers


@dataclass(frozen=True)
class Loading:
    """How samples are fetched, and which.

    Args:
        workers: loader processes; 0 for none.
        pin_memory: whether batches lie in pinned memory, for a GPU.
        rank: which of several training processes this is.
        ranks: how many of them share every batch.
    """

    workers: int = 0
    pin_memory: bool = False
    rank: int = 0
    ranks: int = 1

    def loader(self, dataset: Dataset[Any], **options: Any) -> DataLoader[Any]:
        """A DataLoader with these settings."""
        if self.workers:
            _allow_open_files()
        return DataLoader(
            dataset,
            num_workers=self.workers,
            pin_memory=self.pin_memory,
            persistent_workers=self.workers > 0,
            worker_init_fn=_leave_signals_to_the_parent,
            generator=torch.Generator(),  # its own, or opening a loader would draw from the global random state
            **options,
        )


def parts_of_a_batch(size: int, parts: int) -> list[NDArray[np.int64]]:
    """The positions of each part of a batch that is cut into `parts`, or as many as it has samples."""
    return np.array_split(np.arange(size), min(parts, size))


class StepSampler(Sampler[list[tuple[int, int]]]):
    """Batches of (epoch, index) for the steps from `start` to `stop`: a new permutation every epoch.

    The last batch of an epoch holds what is left. Nothing is replayed to start in the middle. Of `ranks` processes
    each takes its share of every batch, and of each of the `parts` into which it is cut, so that together they take
    what one would.
    """

    def __init__(
        self,
        *,
        length: int,
        batch_size: int,
        seed: int,
        start: int,
        stop: int,
        parts: int = 1,
        rank: int = 0,
        ranks: int = 1,
    ):
        self.length, self.batch_size, self.seed, self.start, self.stop = length, batch_size, seed, start, stop
        self.parts, self.rank, self.ranks = parts, rank, ranks

    def __len__(self) -> int:
        return self.stop - self.start

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        steps_per_epoch = -(-self.length // self.batch_size)
        epoch, order = -1, np.empty(0, np.int64)
        for step in range(self.start, self.stop):
            if step // steps_per_epoch != epoch:
                epoch = step // steps_per_epoch
                order = np.random.default_rng([self.seed, epoch]).permutation(self.length)
            first = step % steps_per_epoch * self.batch_size
            batch = order[first : first + self.batch_size]
            cut = parts_of_a_batch(len(batch), self.parts)
            yield [(epoch, int(batch[position])) for part in cut for position in part[self.rank :: self.ranks]]


@contextmanager
def seeded(*numbers: int) -> Iterator[None]:
    """A context in which draws from torch's global random state on the CPU are a function of the numbers alone."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int(np.random.SeedSequence(numbers).generate_state(1)[0]))
        yield


class SeededSamples(Dataset[Any]):
    """Draws each sample's augmentation from (seed, epoch, index), and hands a user's error on as a value.

    An exception in a worker would reach the user as a traceback of two processes.
    """

    def __init__(self, samples: Samples, seed: int):
        self.samples, self.seed = samples, seed

    def __getitem__(self, key: tuple[int, int]) -> Any:
        epoch, index = key
        with seeded(self.seed, epoch, index):
            try:
                return self.samples[index]
            except UserError as error:
                return error


def training_batches(
    samples: Samples,
    *,
    batch_size: int,
    seed: int,
    start: int,
    stop: int,
    loading: Loading,
    parts: int = 1,
    bad_files: BadFiles = NONE_ALLOWED,
) -> Iterator[Batch | None]:
    """A process's share of each batch, for the steps from `start` to `stop`; smaller by the samples that are skipped.

    Yields:
        (images, targets), or None where the share holds no sample.

    Raises:
        DataError: on a file that cannot be used, naming it, unless it may be skipped.
    """
    steps = StepSampler(
        length=len(samples),
        batch_size=batch_size,
        seed=seed,
        start=start,
        stop=stop,
        parts=parts,
        rank=loading.rank,
        ranks=loading.ranks,
    )
    loader = loading.loader(SeededSamples(samples, seed), batch_sampler=steps, collate_fn=_collate)
    yield from _without_bad_files(loader, bad_files)


class EvaluationBatches:
    """Every sample once and in order, in batches of equal image size: nothing is padded, resized or left out.

    `skipped` is the number of samples that the last pass skipped. Of several processes each gets its share of every
    `batch_size * ranks` samples, and all of them equally many rounds.
    """

    def __init__(self, samples: Samples, *, batch_size: int, loading: Loading, bad_files: BadFiles = NONE_ALLOWED):
        self.length, self.bad_files, self.skipped = len(samples), bad_files, 0
        together = batch_size * loading.ranks
        shares = (
            range(first + loading.rank, min(first + together, self.length), loading.ranks)
            for first in range(0, self.length, together)
        )
        self.loader = loading.loader(
            SeededSamples(samples, seed=0),
            batch_sampler=[[(0, index) for index in share] for share in shares],
            collate_fn=_collate_by_size,
        )

    def __iter__(self) -> Iterator[list[Batch]]:
        """A round at a time: batches of equal image size, none where this process has no share."""
        self.skipped = 0
        yield from _without_bad_files(self.loader, self.bad_files, self._count)

    def _count(self) -> None:
        self.skipped += 1


def _without_bad_files(
    loader: DataLoader[Any], bad_files: BadFiles, skipped: Callable[[], None] = lambda: None
) -> Iterator[Any]:
    """What the loader collates, once the errors among it are dealt with."""
    with _held_back():
        batches = iter(loader)
    for batch, errors in _explained(batches):
        while errors:
            error = errors.pop()
            try:
                if not (bad_files.allowed and isinstance(error, BadFileError)):
                    raise error
                bad_files.skip(error)
            finally:
                del error  # or its traceback would keep this frame, and with it the workers, until a garbage collection
            skipped()
        yield batch


def _explained(batches: Iterator[Any]) -> Iterator[Any]:
    """Yield the batches of a loader, and explain the death of a worker.

    Raises:
        RunError: from torch's error.
    """
    try:
        yield from batches
    except RuntimeError as error:
        if explained := death_of_a_worker(error):
            raise explained from error
        raise


def death_of_a_worker(error: BaseException) -> RunError | None:
    """Return what to say of torch's error for a loader process that ended; None for any other error.

    torch raises it wherever the main process happens to be.
    """
    said = str(error)
    if not isinstance(error, RuntimeError) or not any(sign in said for sign in DEATHS):
        return None
    why = "perhaps the memory ran out (see dmesg)"
    if "Bus error" in said:
        size = shutil.disk_usage("/dev/shm").total / 2**20
        why = f"shared memory ran out: /dev/shm has {size:.0f} MiB, `docker run --shm-size=8g` gives it more"
    elif "open files" in said or "ancdata" in said:
        why = f"too many files are open, {MORE_FILES}"
    return RunError(f"a loader process ended: {why}. hardware.workers=0 loads without such processes.")


DEATHS = ("DataLoader worker", "Too many open files", "received 0 items of ancdata")
"""Parts of torch's messages for it."""


def _parted(samples: list[Any]) -> tuple[list[Any], list[UserError]]:
    errors = [sample for sample in samples if isinstance(sample, UserError)]
    return [sample for sample in samples if not isinstance(sample, UserError)], errors


def _collate(samples: list[Any]) -> tuple[Any, list[UserError]]:
    good, errors = _parted(samples)
    return default_collate(good) if good else None, errors


def _collate_by_size(samples: list[Any]) -> tuple[list[Any], list[UserError]]:
    good, errors = _parted(samples)
    groups: dict[Any, list[Any]] = defaultdict(list)
    for sample in good:
        groups[sample[0].shape].append(sample)
    return [tuple(default_collate(group)) for group in groups.values()], errors


def _end_the_worker(error: Exception, _: object) -> None:
    """End a worker that cannot send a batch: by itself it would go on, and its parent would wait for ever."""
    print(f"error: a loader process cannot send a batch: {error}{_advice(error)}", file=sys.stderr, flush=True)
    os._exit(1)


def _advice(error: Exception) -> str:
    """Return the remedy for a failed send, as the end of a message."""
    if "AF_UNIX path too long" in str(error):
        return f"; the folder of temporary files is {tempfile.gettempdir()}, set TMPDIR to a shorter one, as /tmp"
    if "Too many open files" in str(error):
        return f"; {MORE_FILES}"
    return ""


def _allow_open_files() -> None:
    """Let this process and its workers open as many files as the system allows: each batch that waits takes some."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


OF_A_GROUP = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)
"""Signals that often reach all processes of a group at once."""


@contextmanager
def _held_back() -> Iterator[None]:
    """A context in which such signals wait: one that came while workers start would end them before they can tell."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, OF_A_GROUP)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _leave_signals_to_the_parent(worker: int) -> None:
    """Leave the process group, which Ctrl-C and often SIGTERM reach as a whole: the parent decides when to stop.

    What came before is forgotten. SIGTERM is not ignored from then on, for by it the parent ends a worker when nobody
    waits for its samples any more. SLURM's warning is: it reaches every process of a job.
    """
    os.setpgid(0, 0)
    Queue._on_queue_feeder_error = staticmethod(_end_the_worker)  # type: ignore[attr-defined]
    for number in OF_A_GROUP:
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, OF_A_GROUP)
