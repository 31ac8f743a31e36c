"""Logger to Weights & Biases, online or offline."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Literal

from annotated_types import Ge, Gt

from visual_transformers.errors import ConfigError, Interrupted
from visual_transformers.loggers.base import Logger, RunInfo
from visual_transformers.loggers.records import Record
from visual_transformers.loggers.wandb.worker_thread import BackgroundWorker
from visual_transformers.runs.results import Results

PATIENCE = 60.0
"""Seconds that W&B may take at the end of a run in addition to `timeout`: some of its calls have their own timeouts."""
PATIENCE_WHEN_REQUEUED = 20.0
"""The same for a job that its scheduler is about to kill, and that must be requeued before."""


@dataclass
class WandB(Logger):
    """Log each record as a row of W&B's history, with configuration, pictures, tables and the exit status.

    All calls of W&B run in a thread: training neither waits for them nor fails by their errors, and `wandb` is imported
    only for runs with this logger. Without an API key or an answer of the server, the run is kept offline.
    """

    project: str = "visual_transformers"
    entity: str | None = None
    mode: Literal["auto", "online", "offline", "disabled"] = "auto"
    group: str | None = None
    job_type: str | None = None
    tags: list[str] = field(default_factory=list)
    upload_best: bool = False
    attention: Annotated[int, Ge(0)] = 4
    timeout: Annotated[float, Gt(0)] = 30.0

    def start(self, run: RunInfo) -> None:
        """Open the W&B run in the background; a resumed run keeps its W&B run.

        Raises:
            ConfigError: if `mode` is online without an API key, or W&B refuses a setting or an environment variable.
        """
        from visual_transformers.loggers.wandb import session

        given, known = os.environ.get("WANDB_MODE"), session.MODES
        if given and given not in known:
            raise ConfigError(f"WANDB_MODE={given} (environment variable): expected one of {', '.join(known)}")
        session.check_settings({"project": self.project, "entity": self.entity, "tags": self.tags})
        session.check_environment(os.environ)
        mode, reason = session.resolve_mode(self.mode)
        if self.mode == "online" and mode == "offline":
            raise ConfigError(f"logger.wandb.mode=online: {reason}. Log in with `wandb login`, or set WANDB_API_KEY")
        self.session = session.Session(self, run, mode, reason)
        self.worker = BackgroundWorker("W&B")
        self.worker.submit(self.session.open)

    def record(self, record: Record) -> None:
        """Log a row."""
        self.worker.submit(partial(self.session.record, record))

    def record_results(self, results: Results) -> None:
        """Log scores, pictures and tables, and upload the best weights if `upload_best` is set."""
        self.worker.submit(self.session.log_scores)
        self.worker.submit(partial(self.session.log_tables, results))
        if self.upload_best:
            self.worker.submit(self.session.upload_best)

    def close(self, error: BaseException | None) -> None:
        """Finish the W&B run as finished, failed or preempted."""
        self.worker.submit(partial(self.session.finish, error))
        self.worker.submit(self.session.shut_down)
        is_requeued = isinstance(error, Interrupted) and error.by_scheduler
        if not self.worker.close(PATIENCE_WHEN_REQUEUED if is_requeued else 2 * self.timeout + PATIENCE):
            print("note: W&B does not answer; the run ends without it", file=sys.stderr)
