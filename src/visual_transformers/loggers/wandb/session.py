"""One start of a run as a session of W&B: how it is opened, what is logged, how it ends.

Sessions of one run have one id, and so are one run to W&B. Its history has a row for each record; rows that earlier
sessions have logged are left out, and those that they lost are made up for.
"""

from __future__ import annotations

import json
import secrets
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import wandb
from pydantic import ValidationError

from visual_transformers import atomic
from visual_transformers.errors import ConfigError
from visual_transformers.loggers.base import RunInfo
from visual_transformers.loggers.records import Moment, Record, charted, moment
from visual_transformers.loggers.wandb import media, transaction_log
from visual_transformers.loggers.wandb.worker_thread import in_a_line
from visual_transformers.runs.results import Results
from visual_transformers.runs.run_dir import RunDirectory

if TYPE_CHECKING:
    from visual_transformers.loggers.wandb import WandB

MODES = get_args(wandb.Settings.model_fields["mode"].annotation)
"""What W&B takes as WANDB_MODE."""
SUMMARY = ("best", "scores", "train_seconds", "skipped_samples", "parameters", "macs")
"""What W&B's summary has of a run's summary.json."""
FAILED, STOPPED = 1, 130
"""Exit codes by which W&B tells how a run ended; one that was stopped is marked as preempted before."""
FLUSH: dict[str, Any] = {"x_transaction_log_flush_interval": 1.0}
"""Seconds between two writings of W&B's log, 15 if W&B is left alone: what a process that is killed may lose."""


def mode_and_reason(asked: str) -> tuple[str, str]:
    """`online`, `offline` or `disabled`, and why if it is offline. Needs no network, and never asks for a key.

    Args:
        asked: one of these, or `auto`.
    """
    given: dict[str, Any] = {} if asked == "auto" else {"mode": asked}
    try:
        mode = wandb.setup(wandb.Settings(silent=True, **given)).settings.mode
        if mode in ("disabled", "offline", "dryrun"):
            return ("disabled" if mode == "disabled" else "offline"), "as asked"
        found = wandb.login(prompt=False, verify=False)
    except Exception as error:  # of many kinds, as by a key that cannot be one, or a variable that W&B does not take
        return "offline", in_a_line(error)
    return ("online", "") if found else ("offline", "there is no API key")


FIELDS = {"project": "project", "entity": "entity", "tags": "run_tags"}
"""Names in wandb.Settings of the keys that are validated."""


def check_keys(keys: Mapping[str, Any]) -> None:
    """See that W&B takes what names a run.

    Raises:
        ConfigError: naming the first key that it does not.
    """
    for key, value in keys.items():
        try:
            wandb.Settings(**{FIELDS[key]: value})
        except Exception as error:  # of pydantic and of W&B
            raise ConfigError(f"logger.wandb.{key}={value}: {_reason(error)}") from error
    for key in ("project", "entity"):
        if keys[key] == "" or "/" in (keys[key] or ""):
            raise ConfigError(f"logger.wandb.{key}={keys[key]}: expected a name without /")


def check_variables(environment: Mapping[str, str]) -> None:
    """See that W&B takes its variables of the shell.

    Raises:
        ConfigError: naming the first that it does not.
    """
    for name, value in environment.items():
        if name.startswith("WANDB_") and name not in ("WANDB_MODE", "WANDB_API_KEY"):  # without a key it is offline
            try:
                wandb.Settings().update_from_env_vars({name: value})
            except Exception as error:  # as above
                raise ConfigError(f"{name}={value} (a variable of your shell): {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """Return the message of a validation error without pydantic's framing."""
    said = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
    return said.removeprefix("Value error, ").splitlines()[0]


class Session:
    """A session of W&B. Its methods are called one after another, and raise whatever W&B does.

    Args:
        keys: what is set of the logger.
        run: the run that starts or goes on.
        mode: `online`, `offline` or `disabled`.
        reason: why it is offline.
    """

    def __init__(self, keys: WandB, run: RunInfo, mode: str, reason: str):
        self.keys, self.info, self.mode, self.reason = keys, run, mode, reason
        self.folder = run.directory / "wandb"
        self.run: wandb.Run | None = None
        self.logged: set[Moment] = set()

    def open(self) -> None:
        """Open the W&B run, offline if the server does not answer, and log what earlier sessions lost."""
        if self.mode == "disabled":
            return
        transaction_log.remove_empty(self.folder)
        run_id = self._id()
        try:
            self.run = self._opened(run_id)
        except Exception as error:  # of many kinds: no network, no permission, another server
            if self.mode == "offline":
                raise
            self.mode, self.reason = "offline", in_a_line(error)
            wandb.teardown()  # or the id would still be in use
            self.run = self._opened(run_id)
        how_to_send = f"offline ({self.reason}); `wandb sync {self.folder}` sends it"
        print(f"W&B: {self.run.url if self.mode == 'online' else how_to_send}")
        on_server = self.run.starting_step if self.mode == "online" else None
        self.logged = transaction_log.logged(self.folder, run_id, on_server)
        self._define_curves(self.run)
        for record in self.info.earlier():
            self.record(record)

    def _id(self) -> str:
        """The run's id, kept in its folder; a new one if the run starts anew with other settings."""
        path = self.folder / "run.json"
        run = {"settings": self.info.about.get("settings"), "seed": self.info.about.get("seed")}
        if path.is_file():
            known = json.loads(path.read_text(encoding="utf-8"))
            run_id: str = known.pop("id")
            if self.info.step > 0 or known == run:
                return run_id
        run_id = secrets.token_hex(5)
        atomic.write_text(path, json.dumps({"id": run_id, **run}) + "\n")
        return run_id

    def _opened(self, run_id: str) -> wandb.Run:
        about, keys, folder = self.info.about, self.keys, self.info.directory
        sweep, timeout = about.get("sweep"), self.keys.timeout
        return wandb.init(
            project=keys.project,
            entity=keys.entity,
            name=f"{self.info.name} #{folder.name}" if sweep else self.info.name,
            group=keys.group or sweep,
            job_type=keys.job_type or ("sweep" if sweep else "train"),
            tags=keys.tags,
            config=self.info.config | {"about": about},
            dir=folder,
            id=run_id,
            resume="allow",
            mode=self.mode,  # type: ignore[arg-type]
            settings=wandb.Settings(
                silent=True,
                console="off",
                git_commit=(about.get("commit") or "").rstrip("+") or None,
                init_timeout=timeout,
                finish_timeout=timeout,
                finish_timeout_raises=True,
                **{key: value for key, value in FLUSH.items() if key in wandb.Settings.model_fields},
            ),
        )

    def _define_curves(self, run: wandb.Run) -> None:
        """Draw all curves over steps, and summarise validation scores by their best."""
        run.define_metric("step")
        run.define_metric("*", step_metric="step")
        for split in ("val", "val_ema"):
            run.define_metric(f"{split}/{self.info.metric}", step_metric="step", summary="max")
            run.define_metric(f"{split}/loss", step_metric="step", summary="min")

    def record(self, record: Record) -> None:
        """Log a record as a row, unless W&B has it."""
        self._log(charted(record))

    def _log(self, row: Record, more: Callable[[], dict[str, Any]] = dict) -> None:
        if self.run and moment(row) not in self.logged:
            self.run.log(row | more())
            self.logged.add(moment(row))

    def scores(self) -> None:
        """Log scores and pictures of the best weights."""
        if self.run:
            summary = json.loads((self.info.directory / "summary.json").read_text(encoding="utf-8"))
            self.run.summary.update({key: summary[key] for key in SUMMARY if key in summary})
            pictures = partial(media.pictures, self.info.directory, self.keys.attention)
            self._log({"kind": "pictures", "step": self.info.total_steps}, pictures)

    def tables(self, results: Results) -> None:
        """Log tables of the best weights, which W&B cannot do without the server if it is online."""
        self._log({"kind": "tables", "step": self.info.total_steps}, partial(media.tables, results))

    def upload_best(self) -> None:
        """Make the best weights an artifact; W&B sees whether it has them already."""
        if self.run:
            artifact = wandb.Artifact(f"best-{self.run.id}", type="model")
            artifact.add_file(str(RunDirectory(self.info.directory).best))
            self.run.log_artifact(artifact, aliases=["best"])

    def finish(self, error: BaseException | None) -> None:
        """Say how the run ended, and send the rest; what cannot be sent in time stays in the run's folder."""
        if not self.run:
            return
        if isinstance(error, KeyboardInterrupt):
            self.run.mark_preempting()
        elif error is not None:
            self.run.summary["error"] = (str(error).splitlines() or [type(error).__name__])[-1]
        code = 0 if error is None else STOPPED if isinstance(error, KeyboardInterrupt) else FAILED
        try:
            self.run.finish(exit_code=code)
        except TimeoutError:
            session = Path(self.run.settings.sync_dir)
            print(
                f"note: W&B was not sent all within {self.keys.timeout:g} s; `wandb sync --include-online {session}` "
                "sends the rest",
                file=sys.stderr,
            )

    def leave(self) -> None:
        """End W&B's own process, so that nothing is left to do, to wait for or to fail when this process ends."""
        wandb.teardown()
