"""Latency of a function: median and quartiles of repeated measurements."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Latency:
    """Median and quartiles of the seconds that one call takes, and the number of measurements."""

    median: float
    lower: float
    upper: float
    measurements: int


def measure_latency(work: Callable[[], object], *, seconds: float, repeats: int) -> Latency:
    """Time `work` after a warm-up, for at least `seconds` and at least `repeats` measurements.

    torch's Timer synchronizes a CUDA device before it reads the clock. If `work` takes far less than a millisecond,
    each measurement is the mean of several calls.
    """
    from torch.utils.benchmark import Timer  # slow to import, because it looks for compilers

    timer = Timer("work()", globals={"work": work}, num_threads=torch.get_num_threads())
    once = timer.timeit(1).median
    times = list(timer.blocked_autorange(min_run_time=max(seconds, repeats * once)).times)
    while len(times) < repeats:
        times += timer.blocked_autorange(min_run_time=(repeats - len(times)) * once).times
    lower, median, upper = torch.tensor(times, dtype=torch.float64).quantile(
        torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)
    )
    return Latency(median.item(), lower.item(), upper.item(), len(times))
