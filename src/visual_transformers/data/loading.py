"""Loaders whose every sample is a function of (seed, epoch, index), whatever the number of workers."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from visual_transformers.data.module import Samples
from visual_transformers.errors import UserError

Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Loading:
    """How samples are fetched: worker processes (0 for none) and whether to pin memory for a GPU."""

    workers: int = 0
    pin_memory: bool = False

    def loader(self, dataset: Dataset[Any], **options: Any) -> DataLoader[Any]:
        """A DataLoader with these settings."""
        return DataLoader(
            dataset,
            num_workers=self.workers,
            pin_memory=self.pin_memory,
            persistent_workers=self.workers > 0,
            worker_init_fn=_leave_signals_to_the_parent,
            generator=torch.Generator(),  # its own, or opening a loader would draw from the global random state
            **options,
        )


class StepSampler(Sampler[list[tuple[int, int]]]):
    """Batches of (epoch, index) for the steps from `start` to `stop`: a new permutation every epoch.

    The last batch of an epoch holds what is left. Nothing is replayed to start in the middle.
    """

    def __init__(self, *, length: int, batch_size: int, seed: int, start: int, stop: int):
        self.length, self.batch_size, self.seed, self.start, self.stop = length, batch_size, seed, start, stop

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
            yield [(epoch, int(index)) for index in order[first : first + self.batch_size]]


class SeededSamples(Dataset[Any]):
    """Draws each sample's augmentation from (seed, epoch, index), and hands a user's error on as a value.

    An exception in a worker would reach the user as a traceback of two processes.
    """

    def __init__(self, samples: Samples, seed: int):
        self.samples, self.seed = samples, seed

    def __getitem__(self, key: tuple[int, int]) -> Any:
        epoch, index = key
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(
                int(np.random.SeedSequence([self.seed, epoch, index]).generate_state(1)[0])
            )
            try:
                return self.samples[index]
            except UserError as error:
                return error


def training_batches(
    samples: Samples, *, batch_size: int, seed: int, start: int, stop: int, loading: Loading
) -> Iterator[Batch]:
    """One (images, targets) a step, for the steps from `start` to `stop`.

    Raises:
        DataError: on a file that cannot be used, naming it.
    """
    steps = StepSampler(length=len(samples), batch_size=batch_size, seed=seed, start=start, stop=stop)
    loader = loading.loader(SeededSamples(samples, seed), batch_sampler=steps, collate_fn=_collate)
    return _raising(loader)


class EvaluationBatches:
    """Every sample once and in order, in batches of equal image size: nothing is padded, resized or left out."""

    def __init__(self, samples: Samples, *, batch_size: int, loading: Loading):
        self.length = len(samples)
        self.loader = loading.loader(
            SeededSamples(samples, seed=0),
            sampler=[(0, index) for index in range(len(samples))],
            batch_size=batch_size,
            collate_fn=_collate_by_size,
        )

    def __iter__(self) -> Iterator[Batch]:
        for groups in _raising(self.loader):
            yield from groups


def _raising(loader: DataLoader[Any]) -> Iterator[Any]:
    for batch in loader:
        if isinstance(batch, UserError):
            try:
                raise batch
            finally:
                del batch  # or its traceback would keep this frame, and with it the workers, until a garbage collection
        yield batch


def _collate(samples: list[Any]) -> Any:
    error = next((sample for sample in samples if isinstance(sample, UserError)), None)
    return error or default_collate(samples)


def _collate_by_size(samples: list[Any]) -> Any:
    groups: dict[Any, list[Any]] = defaultdict(list)
    for sample in samples:
        if isinstance(sample, UserError):
            return sample
        groups[sample[0].shape].append(sample)
    return [tuple(default_collate(group)) for group in groups.values()]


def _leave_signals_to_the_parent(worker: int) -> None:
    """Leave the process group, which Ctrl-C and often SIGTERM reach as a whole: the parent decides when to stop.

    The signals are not ignored, for the parent ends a worker by SIGTERM when nobody waits for its samples any more.
    """
    os.setpgid(0, 0)
