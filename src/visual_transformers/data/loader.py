"""Loaders in which each sample depends only on (seed, epoch, index), for any number of workers and ranks."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.queues import Queue
from typing import Any

import numpy as np
import torch
from joblib import cpu_count  # respects CPU affinity and container quotas, unlike os.cpu_count
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from visual_transformers.data.datamodule import Samples
from visual_transformers.data.io.bad_files import NONE_ALLOWED, BadFiles
from visual_transformers.errors import OPEN_FILES_HINT, BadFileError, RunError, UserError

Batch = tuple[Tensor, Tensor]
GROUP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)
"""Signals that often reach all processes of a group at once."""
WORKER_ERRORS = ("DataLoader worker", "Too many open files", "received 0 items of ancdata")
"""Parts of torch's messages about a loader process that ended."""


def resolve_workers(workers: int | None) -> int:
    """Return the number of loader processes; null means one per core that this process may use."""
    return cpu_count() if workers is None else workers


@dataclass(frozen=True)
class LoaderOptions:
    """Settings of data loaders.

    Args:
        workers: loader processes; 0 loads in the main process.
        pin_memory: keep batches in pinned memory, for a GPU.
        rank: rank of this process.
        world_size: number of ranks that share each batch.
    """

    workers: int = 0
    pin_memory: bool = False
    rank: int = 0
    world_size: int = 1

    def build_loader(self, dataset: Dataset[Any], **options: Any) -> DataLoader[Any]:
        """Build a DataLoader with these settings."""
        if self.workers:
            _raise_open_file_limit()
        return DataLoader(
            dataset,
            num_workers=self.workers,
            pin_memory=self.pin_memory,
            persistent_workers=self.workers > 0,
            worker_init_fn=_init_worker,
            generator=torch.Generator(),  # without one, opening a loader would draw from the global random state
            **options,
        )


def split_micro_batches(size: int, count: int) -> list[NDArray[np.int64]]:
    """Split the positions of a batch into `count` micro-batches, or into fewer if it has fewer samples."""
    return np.array_split(np.arange(size), min(count, size))


@dataclass(kw_only=True, eq=False)
class StepSampler(Sampler[list[tuple[int, int]]]):
    """Batches of (epoch, index) for the steps from `start` to `stop`, with a new permutation every epoch.

    The last batch of an epoch holds the remaining samples. Starting in the middle replays nothing. Each rank takes its
    share of every micro-batch, so that all ranks together take the batches of a single process.
    """

    length: int
    batch_size: int
    seed: int
    start: int
    stop: int
    accumulate: int = 1
    rank: int = 0
    world_size: int = 1

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
            micro_batches = split_micro_batches(len(batch), self.accumulate)
            shares = (micro_batch[self.rank :: self.world_size] for micro_batch in micro_batches)
            yield [(epoch, int(batch[position])) for share in shares for position in share]


@contextmanager
def fork_seeded_rng(*numbers: int) -> Iterator[None]:
    """Fork torch's global CPU random state, and seed it by the numbers."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int(np.random.SeedSequence(numbers).generate_state(1)[0]))
        yield


class SeededSamples(Dataset[Any]):
    """Samples whose augmentation is drawn from (seed, epoch, index).

    A user's error is returned as a value: raised in a worker, it would reach the user as a traceback of two processes.
    """

    def __init__(self, samples: Samples, seed: int):
        self.samples, self.seed = samples, seed

    def __getitem__(self, key: tuple[int, int]) -> Any:
        epoch, index = key
        with fork_seeded_rng(self.seed, epoch, index):
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
    loading: LoaderOptions,
    accumulate: int = 1,
    bad_files: BadFiles = NONE_ALLOWED,
) -> Iterator[Batch | None]:
    """Yield this rank's (images, targets) of each step from `start` to `stop`, or None if it has no sample.

    Raises:
        DataError: naming an unusable file, unless it may be skipped.
    """
    steps = StepSampler(
        length=len(samples),
        batch_size=batch_size,
        seed=seed,
        start=start,
        stop=stop,
        accumulate=accumulate,
        rank=loading.rank,
        world_size=loading.world_size,
    )
    loader = loading.build_loader(SeededSamples(samples, seed), batch_sampler=steps, collate_fn=_collate)
    for batch, _ in _skip_bad_files(loader, bad_files):
        yield batch


class EvaluationBatches:
    """All samples in order, in batches of equal image size: nothing is padded, resized or left out.

    Each rank gets its share of every `batch_size * world_size` samples, and all ranks the same number of rounds.
    `skipped` is the number of samples that the last pass skipped.
    """

    def __init__(
        self, samples: Samples, *, batch_size: int, loading: LoaderOptions, bad_files: BadFiles = NONE_ALLOWED
    ):
        self.length, self.bad_files, self.skipped = len(samples), bad_files, 0
        total = batch_size * loading.world_size
        shares = (
            range(first + loading.rank, min(first + total, self.length), loading.world_size)
            for first in range(0, self.length, total)
        )
        self.loader = loading.build_loader(
            SeededSamples(samples, seed=0),
            batch_sampler=[[(0, index) for index in share] for share in shares],
            collate_fn=_collate_by_size,
        )

    def __iter__(self) -> Iterator[list[Batch]]:
        """Iterate over rounds: lists of batches of equal image size, empty if this rank has no share."""
        self.skipped = 0
        for batches, skipped in _skip_bad_files(self.loader, self.bad_files):
            self.skipped += skipped
            yield batches


def _skip_bad_files(loader: DataLoader[Any], bad_files: BadFiles) -> Iterator[tuple[Any, int]]:
    """Yield a loader's batches, with the number of skipped samples; raise errors that cannot be skipped."""
    with _block_signals():
        batches = iter(loader)
    try:
        for batch, errors in batches:
            skipped = len(errors)
            while errors:
                error = errors.pop()
                try:
                    if not (bad_files.allowed and isinstance(error, BadFileError)):
                        raise error
                    bad_files.skip(error)
                finally:
                    del error  # its traceback would keep this frame, and so the workers, until a garbage collection
            yield batch, skipped
    except RuntimeError as error:
        if explained := explain_worker_error(error):
            raise explained from error
        raise


def explain_worker_error(error: BaseException) -> RunError | None:
    """Explain torch's error about a loader process that ended; return None for any other error.

    torch may raise it anywhere in the main process, not only while a batch is loaded.
    """
    message = str(error)
    if not isinstance(error, RuntimeError) or not any(part in message for part in WORKER_ERRORS):
        return None
    reason = "perhaps out of memory (see dmesg)"
    if "Bus error" in message:
        size = shutil.disk_usage("/dev/shm").total / 2**20
        reason = f"out of shared memory: /dev/shm has {size:.0f} MiB. Raise it, e.g. with `docker run --shm-size=8g`"
    elif "open files" in message or "ancdata" in message:
        reason = f"too many open files: {OPEN_FILES_HINT}"
    return RunError(f"a loader process ended: {reason}. Setting hardware.workers=0 loads without such processes.")


def _split_errors(samples: list[Any]) -> tuple[list[Any], list[UserError]]:
    errors = [sample for sample in samples if isinstance(sample, UserError)]
    return [sample for sample in samples if not isinstance(sample, UserError)], errors


def _collate(samples: list[Any]) -> tuple[Any, list[UserError]]:
    good, errors = _split_errors(samples)
    return default_collate(good) if good else None, errors


def _collate_by_size(samples: list[Any]) -> tuple[list[Any], list[UserError]]:
    good, errors = _split_errors(samples)
    groups: dict[Any, list[Any]] = defaultdict(list)
    for sample in good:
        groups[sample[0].shape].append(sample)
    return [tuple(default_collate(group)) for group in groups.values()], errors


def _raise_open_file_limit() -> None:
    """Let this process and its workers open as many files as the system allows: each waiting batch needs some."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


@contextmanager
def _block_signals() -> Iterator[None]:
    """Delay the signals of a group: one that came while workers start would end them before they can ignore it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, GROUP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _init_worker(worker: int) -> None:
    """Leave the process group, which Ctrl-C and often SIGTERM reach as a whole: the parent decides when to stop.

    Blocked signals that came before are dropped. After that, SIGTERM ends the worker, because the parent uses it to end
    unneeded workers; SLURM's warning (SIGUSR2) stays ignored, because it reaches every process of a job.
    """
    os.setpgid(0, 0)
    Queue._on_queue_feeder_error = staticmethod(_exit_worker)  # type: ignore[attr-defined]
    for number in GROUP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, GROUP_SIGNALS)


def _exit_worker(error: Exception, _: object) -> None:
    """Exit a worker that cannot send a batch; otherwise its parent would wait forever."""
    advice = ""
    if "AF_UNIX path too long" in str(error):
        advice = f". The folder of temporary files is {tempfile.gettempdir()}; set TMPDIR to a shorter one, e.g. /tmp"
    elif "Too many open files" in str(error):
        advice = f". {OPEN_FILES_HINT}"
    print(f"error: a loader process cannot send a batch: {error}{advice}", file=sys.stderr, flush=True)
    os._exit(1)
