"""Interface of a logger, the run's metadata for loggers, and several loggers as one."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from visual_transformers.config.schema import Node
from visual_transformers.loggers.records import Record, read_records
from visual_transformers.runs.results import Results
from visual_transformers.runs.run_dir import METRICS


@dataclass(frozen=True)
class RunInfo:
    """Facts of a run that are known before its first record.

    Args:
        metric: score that selects the best weights.
        step: at which the run resumes; 0 for a new run.
        evaluated_step: of the last epoch that was scored.
        total_steps: at which the run ends.
        headline: one line for the console.
        metadata: of the run, as in its status.json under `about`.
    """

    name: str
    directory: Path
    metric: str
    step: int
    evaluated_step: int
    total_steps: int
    headline: str
    config: Node = field(default_factory=dict)
    metadata: Node = field(default_factory=dict)

    def read_earlier_records(self) -> list[Record]:
        """Read the run's records up to the step at which it resumes; those of repeated steps and epochs are dropped."""
        last = {"step": self.step, "epoch": self.evaluated_step}
        return [record for record in read_records(self.directory / METRICS) if record["step"] <= last[record["kind"]]]


class Logger:
    """Receives the records of a run. Every method does nothing unless a subclass overrides it."""

    library: ClassVar[str | None] = None
    """Optional package that the logger needs; the extra that installs it has the same name."""
    attention: int = 0
    """Most pictures for which the logger shows the token attention of a VT model."""

    def start(self, run: RunInfo) -> None:
        """Prepare for a run, before its first step."""

    def advance(self) -> None:
        """Count a step; must not read anything from the device."""

    def record(self, record: Record) -> None:
        """Log a record."""

    def record_results(self, results: Results) -> None:
        """Log the results of the best weights, whose files are in the run's folder by then."""

    def close(self, error: BaseException | None) -> None:
        """End, with the error or `Interrupted` that ended the run if there was one."""


class Loggers:
    """Several loggers as one context manager: starts them, and closes them however the run ends."""

    def __init__(self, loggers: list[Logger], run: RunInfo):
        self.loggers, self.run = loggers, run

    @property
    def attention(self) -> int:
        """Most pictures for which one of the loggers shows token attention."""
        return max((logger.attention for logger in self.loggers), default=0)

    def __enter__(self) -> Loggers:
        with ExitStack() as stack:
            for logger in self.loggers:
                logger.start(self.run)
                stack.push(partial(_close, logger))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._stack.__exit__(*exception)

    def advance(self) -> None:
        """Count a step."""
        for logger in self.loggers:
            logger.advance()

    def record(self, record: Record) -> None:
        """Log a record."""
        for logger in self.loggers:
            logger.record(record)

    def record_results(self, results: Results) -> None:
        """Log the results of the best weights."""
        for logger in self.loggers:
            logger.record_results(results)


def _close(logger: Logger, kind: Any, error: BaseException | None, trace: Any) -> None:
    logger.close(error)
