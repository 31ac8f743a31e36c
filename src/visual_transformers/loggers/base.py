"""What a logger is told of a run, and many loggers as one."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar

from visual_transformers.config.schema import Node
from visual_transformers.loggers.records import Record, read_records
from visual_transformers.runs.results import Results
from visual_transformers.runs.run_dir import METRICS


@dataclass(frozen=True)
class RunInfo:
    """What a logger may want to know of a run before its first record: where it goes on, and what is known by then.

    Args:
        name: of the run.
        directory: its folder.
        metric: the score by which the best weights are picked.
        step: from which it goes on; 0 at its start.
        evaluated_step: of the last epoch that was scored.
        total_steps: at which it ends.
        headline: one line for people.
        config: the resolved configuration, as plain containers.
        about: what `about.about` says of the run.
    """

    name: str
    directory: Path
    metric: str
    step: int
    evaluated_step: int
    total_steps: int
    headline: str
    config: Node = field(default_factory=dict)
    about: Node = field(default_factory=dict)

    def earlier(self) -> list[Record]:
        """The records of an earlier part of the run, but for what comes again: later steps, and epochs not scored."""
        known = {"step": self.step, "epoch": self.evaluated_step}
        return [record for record in read_records(self.directory / METRICS) if record["step"] <= known[record["kind"]]]


class Logger:
    """Receives the records of a run; whatever a logger has no use for does nothing."""

    library: ClassVar[str | None] = None
    """What must be installed for it and is not always: the package's name, which is also the extra's."""
    attention: int = 0
    """Pictures, at most, for which it wants to show where the visual tokens of a VT model look."""

    def start(self, run: RunInfo) -> None:
        """Before the first step."""

    def advance(self) -> None:
        """After every step; must not read anything from the device."""

    def record(self, record: Record) -> None:
        """At every record."""

    def results(self, results: Results) -> None:
        """Once the best weights were scored; the run's folder has the results' files by then."""

    def close(self, error: BaseException | None) -> None:
        """When the run ends, or is stopped (`Interrupted`) or fails by an error."""


class Loggers:
    """Many loggers as one; a context that opens them for a run and closes them however it ends."""

    def __init__(self, loggers: list[Logger], run: RunInfo):
        self.loggers, self.run = loggers, run

    @property
    def attention(self) -> int:
        """Pictures, at most, for which any of them wants to show where visual tokens look."""
        return max((logger.attention for logger in self.loggers), default=0)

    def __enter__(self) -> Loggers:
        with ExitStack() as started:
            for logger in self.loggers:
                logger.start(self.run)
                started.push(_closing(logger))
            self._started = started.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._started.__exit__(kind, error, trace)

    def advance(self) -> None:
        """After every step."""
        for logger in self.loggers:
            logger.advance()

    def record(self, record: Record) -> None:
        """At every record."""
        for logger in self.loggers:
            logger.record(record)

    def results(self, results: Results) -> None:
        """When the best weights were scored."""
        for logger in self.loggers:
            logger.results(results)


def _closing(logger: Logger) -> Any:
    def close(kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        logger.close(error)

    return close
