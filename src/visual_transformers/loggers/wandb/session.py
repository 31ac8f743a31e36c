"""Session of W&B: one start of a run, from opening the W&B run to its exit status.

All sessions of a run have one id, and are one W&B run. Its history has a row for each record. Rows that earlier
sessions have logged are left out, and those that they lost are logged again.
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
from visual_transformers.loggers.records import Record, RecordKey, record_key, rename_for_charts
from visual_transformers.loggers.wandb import media, transaction_log
from visual_transformers.loggers.wandb.worker_thread import summarize_error
from visual_transformers.runs.results import Results
from visual_transformers.runs.run_dir import RunDirectory

if TYPE_CHECKING:
    from visual_transformers.loggers.wandb import WandB

MODES = get_args(wandb.Settings.model_fields["mode"].annotation)
"""Values that W&B accepts for WANDB_MODE."""
FIELDS = {"project": "project", "entity": "entity", "tags": "run_tags"}
"""Fields of wandb.Settings that validate our keys."""
SUMMARY = ("best", "scores", "train_seconds", "skipped_samples", "parameters", "macs")
"""Keys of a run's summary.json that are copied to W&B's summary."""
FAILED, STOPPED = 1, 130
"""Exit codes; a stopped run is marked as preempted before."""
FLUSH_SETTING: dict[str, Any] = {"x_transaction_log_flush_interval": 1.0}
"""Seconds between two writes of W&B's log (15 by default), which a killed process may lose."""


def resolve_mode(mode: str) -> tuple[str, str]:
    """Return `online`, `offline` or `disabled`, and the reason for offline, without a network or a prompt for a key."""
    settings: dict[str, Any] = {} if mode == "auto" else {"mode": mode}
    try:
        resolved = wandb.setup(wandb.Settings(silent=True, **settings)).settings.mode
        if resolved in ("disabled", "offline", "dryrun"):
            return ("disabled" if resolved == "disabled" else "offline"), "as configured"
        has_key = wandb.login(prompt=False, verify=False)
    except Exception as error:  # many kinds, e.g. for a malformed key or a variable that W&B refuses
        return "offline", summarize_error(error)
    return ("online", "") if has_key else ("offline", "there is no API key")


def check_settings(settings: Mapping[str, Any]) -> None:
    """Validate the keys that name a run.

    Raises:
        ConfigError: for the first key that W&B refuses.
    """
    for key, value in settings.items():
        try:
            wandb.Settings(**{FIELDS[key]: value})
        except Exception as error:  # of pydantic and of W&B
            raise ConfigError(f"logger.wandb.{key}={value}: {_get_reason(error)}") from error
    for key in ("project", "entity"):
        if settings[key] == "" or "/" in (settings[key] or ""):
            raise ConfigError(f"logger.wandb.{key}={settings[key]}: expected a name without /")


def check_environment(environment: Mapping[str, str]) -> None:
    """Validate W&B's environment variables.

    Raises:
        ConfigError: for the first variable that W&B refuses.
    """
    for name, value in environment.items():
        if name.startswith("WANDB_") and name not in ("WANDB_MODE", "WANDB_API_KEY"):  # a bad key means offline
            try:
                wandb.Settings().update_from_env_vars({name: value})
            except Exception as error:  # of pydantic and of W&B
                raise ConfigError(f"{name}={value} (environment variable): {_get_reason(error)}") from error


def _get_reason(error: Exception) -> str:
    """Return the message of a validation error without pydantic's framing."""
    message = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
    return message.removeprefix("Value error, ").splitlines()[0]


class Session:
    """Session of W&B. Its methods run one after another, and raise W&B's errors."""

    def __init__(self, settings: WandB, run: RunInfo, mode: str, reason: str):
        self.settings, self.info, self.mode, self.reason = settings, run, mode, reason
        self.folder = run.directory / "wandb"
        self.run: wandb.Run | None = None
        self.logged: set[RecordKey] = set()

    def open(self) -> None:
        """Open the W&B run, offline if the server does not answer, and log the records that earlier sessions lost."""
        if self.mode == "disabled":
            return
        transaction_log.remove_empty(self.folder)
        run_id = self._get_run_id()
        try:
            self.run = self._init_run(run_id)
        except Exception as error:  # many kinds: no network, no permission, another server
            if self.mode == "offline":
                raise
            self.mode, self.reason = "offline", summarize_error(error)
            wandb.teardown()  # otherwise the id would still be in use
            self.run = self._init_run(run_id)
        offline = f"offline ({self.reason}); `wandb sync {self.folder}` sends it"
        print(f"W&B: {self.run.url if self.mode == 'online' else offline}")
        on_server = self.run.starting_step if self.mode == "online" else None
        self.logged = transaction_log.find_logged(self.folder, run_id, on_server)
        self.run.define_metric("step")
        self.run.define_metric("*", step_metric="step")
        for split in ("val", "val_ema"):
            self.run.define_metric(f"{split}/{self.info.metric}", step_metric="step", summary="max")
            self.run.define_metric(f"{split}/loss", step_metric="step", summary="min")
        for record in self.info.read_earlier_records():
            self.record(record)

    def _get_run_id(self) -> str:
        """Return the run's id from its folder; a new one if the run starts anew with other settings."""
        path = self.folder / "run.json"
        run = {key: self.info.metadata.get(key) for key in ("settings", "seed")}
        if path.is_file():
            known = json.loads(path.read_text(encoding="utf-8"))
            run_id: str = known.pop("id")
            if self.info.step > 0 or known == run:
                return run_id
        run_id = secrets.token_hex(5)
        atomic.write_text(path, json.dumps({"id": run_id, **run}) + "\n")
        return run_id

    def _init_run(self, run_id: str) -> wandb.Run:
        metadata, settings, folder = self.info.metadata, self.settings, self.info.directory
        sweep = metadata.get("sweep")
        return wandb.init(
            project=settings.project,
            entity=settings.entity,
            name=f"{self.info.name} #{folder.name}" if sweep else self.info.name,
            group=settings.group or sweep,
            job_type=settings.job_type or ("sweep" if sweep else "train"),
            tags=settings.tags,
            config=self.info.config | {"about": metadata},
            dir=folder,
            id=run_id,
            resume="allow",
            mode=self.mode,  # type: ignore[arg-type]
            settings=wandb.Settings(
                silent=True,
                console="off",
                git_commit=(metadata.get("commit") or "").rstrip("+") or None,
                init_timeout=settings.timeout,
                finish_timeout=settings.timeout,
                finish_timeout_raises=True,
                **{key: value for key, value in FLUSH_SETTING.items() if key in wandb.Settings.model_fields},
            ),
        )

    def record(self, record: Record) -> None:
        """Log a record as a row, unless W&B has it."""
        self._log(rename_for_charts(record))

    def _log(self, row: Record, make_media: Callable[[], dict[str, Any]] = dict) -> None:
        if self.run and record_key(row) not in self.logged:
            self.run.log(row | make_media())
            self.logged.add(record_key(row))

    def log_scores(self) -> None:
        """Log scores and pictures of the best weights."""
        if self.run:
            summary = json.loads((self.info.directory / "summary.json").read_text(encoding="utf-8"))
            self.run.summary.update({key: summary[key] for key in SUMMARY if key in summary})
            pictures = partial(media.collect_pictures, self.info.directory, self.settings.attention)
            self._log({"kind": "pictures", "step": self.info.total_steps}, pictures)

    def log_tables(self, results: Results) -> None:
        """Log tables of the best weights, for which an online W&B needs the server."""
        self._log({"kind": "tables", "step": self.info.total_steps}, partial(media.collect_tables, results))

    def upload_best(self) -> None:
        """Upload the best weights as an artifact, unless W&B has them."""
        if self.run:
            artifact = wandb.Artifact(f"best-{self.run.id}", type="model")
            artifact.add_file(str(RunDirectory(self.info.directory).best))
            self.run.log_artifact(artifact, aliases=["best"])

    def finish(self, error: BaseException | None) -> None:
        """Set the exit status and send pending records; those that cannot be sent in time stay in the run's folder."""
        if not self.run:
            return
        code = 0
        if isinstance(error, KeyboardInterrupt):
            self.run.mark_preempting()
            code = STOPPED
        elif error is not None:
            self.run.summary["error"] = (str(error).splitlines() or [type(error).__name__])[-1]
            code = FAILED
        try:
            self.run.finish(exit_code=code)
        except TimeoutError:
            session = Path(self.run.settings.sync_dir)
            print(
                f"note: W&B could not send everything within {self.settings.timeout:g} s; "
                f"`wandb sync --include-online {session}` sends the rest",
                file=sys.stderr,
            )

    def shut_down(self) -> None:
        """Stop W&B's own process, so that this process ends without waiting for it."""
        wandb.teardown()
