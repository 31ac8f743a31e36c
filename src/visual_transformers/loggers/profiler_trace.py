"""Trace of some steps by torch's profiler, for chrome://tracing or Perfetto."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, schedule

from visual_transformers.loggers.base import Logger

WARMUP = 5
"""Steps before the trace: the first ones allocate memory, compile and select algorithms."""


@dataclass
class Trace(Logger):
    """Trace `steps` optimizer steps after the warm-up, and write the trace to `path`."""

    path: Path
    steps: int

    def start(self, run: object) -> None:
        """Start the profiler, which skips the warm-up."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]
        self.profiler = profile(
            activities=activities,
            schedule=schedule(wait=WARMUP - 1, warmup=1, active=self.steps, repeat=1),
            on_trace_ready=lambda profiler: profiler.export_chrome_trace(str(self.path)),
        )
        self.profiler.start()

    def advance(self) -> None:
        """Count a step."""
        self.profiler.step()

    def close(self, error: BaseException | None) -> None:
        """Stop the profiler; an incomplete trace is written too."""
        self.profiler.stop()
