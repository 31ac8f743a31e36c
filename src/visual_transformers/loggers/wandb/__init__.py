"""Progress on Weights & Biases, online or offline."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

from visual_transformers.errors import ConfigError, Interrupted
from visual_transformers.loggers.base import Logger, RunInfo
from visual_transformers.loggers.records import Record
from visual_transformers.loggers.wandb.worker_thread import Background
from visual_transformers.runs.results import Results

PATIENCE = 60.0
"""Seconds that W&B may take when a run ends, beside `timeout`: some of its calls wait by a measure of their own."""
PATIENCE_WHEN_WARNED = 20.0
"""The same of a job that its scheduler wants ended, which is to be given back before it is killed."""


@dataclass
class WandB(Logger):
    """The records as W&B's history, a row each, with configuration, pictures, tables and how the run ended.

    All calls of W&B are made in a thread: a training neither waits for them nor ends by their errors, and `wandb` is
    not imported unless a run has this logger. Where there is no key or no answer, the run is kept offline.

    Args:
        project: to which the run belongs.
        entity: user or team that owns the project; null for the key's own.
        mode: `online` needs a key, `offline`, `disabled`, or `auto`: what WANDB_MODE says, and without it online if
            there is a key.
        group: under which runs are shown together; null for the sweep's name.
        job_type: what kind of run of its group this is; null for `sweep` in a sweep, and `train` else.
        tags: of the run.
        upload_best: whether best.safetensors is uploaded as an artifact.
        attention: pictures, at most, with where the visual tokens of a VT model look.
        timeout: seconds to wait for the server's first answer, and at the end for what is not sent yet.
    """

    project: str = "visual_transformers"
    entity: str | None = None
    mode: Literal["auto", "online", "offline", "disabled"] = "auto"
    group: str | None = None
    job_type: str | None = None
    tags: list[str] = field(default_factory=list)
    upload_best: bool = False
    attention: int = 4
    timeout: float = 30.0

    def start(self, run: RunInfo) -> None:
        """Open the W&B run in the background: this one's, if it goes on.

        Raises:
            ConfigError: if it is to be online, and there is no key, or W&B does not take a key or a variable.
        """
        from visual_transformers.loggers.wandb import session

        given, known = os.environ.get("WANDB_MODE"), session.MODES
        if given and given not in known:
            raise ConfigError(f"WANDB_MODE={given} (a variable of your shell): expected one of {', '.join(known)}")
        session.check_keys({"project": self.project, "entity": self.entity, "tags": self.tags})
        session.check_variables(os.environ)
        mode, reason = session.mode_and_reason(self.mode)
        if self.mode == "online" and mode == "offline":
            raise ConfigError(f"logger.wandb.mode=online: {reason}; log in with `wandb login`, or set WANDB_API_KEY")
        self.session = session.Session(self, run, mode, reason)
        self.background = Background("W&B")
        self.background.do(self.session.open)

    def record(self, record: Record) -> None:
        """Log a row."""
        self.background.do(partial(self.session.record, record))

    def results(self, results: Results) -> None:
        """Log scores, pictures and tables, and upload the best weights if that is asked for."""
        self.background.do(self.session.scores)
        self.background.do(partial(self.session.tables, results))
        if self.upload_best:
            self.background.do(self.session.upload_best)

    def close(self, error: BaseException | None) -> None:
        """End the W&B run as this one ended: finished, failed, or to be continued."""
        self.background.do(partial(self.session.finish, error))
        self.background.do(self.session.leave)
        warned = isinstance(error, Interrupted) and error.by_scheduler
        if not self.background.close(PATIENCE_WHEN_WARNED if warned else 2 * self.timeout + PATIENCE):
            print("note: W&B does not answer; the run ends without it", file=sys.stderr)
