"""A trace of some steps by torch's profiler, for chrome://tracing or Perfetto."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, schedule

from visual_transformers.loggers import Logger

WARMUP = 5
"""Steps before the trace: the first ones allocate, compile and choose algorithms."""


@dataclass
class Trace(Logger):
    """A logger that records `steps` optimizer steps after the first few of this start, and leaves `path`."""

    path: Path
    steps: int

    def start(self, run: object) -> None:
        """Start the profiler, which waits."""
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]
        self.profiler = profile(
            activities=activities,
            schedule=schedule(wait=WARMUP - 1, warmup=1, active=self.steps, repeat=1),
            on_trace_ready=self._leave,
        )
        self.profiler.start()

    def _leave(self, profiler: profile) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        profiler.export_chrome_trace(str(self.path))

    def advance(self) -> None:
        """Tell the profiler that a step is over."""
        self.profiler.step()

    def close(self, error: BaseException | None) -> None:
        """Stop the profiler; a trace that was cut short is left too."""
        self.profiler.stop()
