"""Run one job: check its composed configuration and call the function of its mode."""

from __future__ import annotations

import sys
import traceback
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from hydra.conf import HydraConf
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from visual_transformers.cli.shorthands import USES_TRAINED_MODEL, trained_settings
from visual_transformers.config.adoption import adopt
from visual_transformers.config.diff import changed_settings
from visual_transformers.config.schema import Config
from visual_transformers.config.validation import EXPLAINED, validate
from visual_transformers.distributed import environment
from visual_transformers.errors import ConfigError, InUseError
from visual_transformers.runs import requeue, status, sweep_dir
from visual_transformers.runs.run_dir import RunDirectory

if TYPE_CHECKING:
    from visual_transformers.distributed.launch import Work

DISTRIBUTED_MODES = ("train", "test")
"""Modes that run on several processes."""
USES_SETTINGS_OF_RUN = (*USES_TRAINED_MODEL, "profile")
"""Modes that take the model of the run in whose folder they write their results."""


def run_job(cfg: DictConfig, hydra_config: HydraConf, directory: Path) -> float | None:
    """Check the configuration, and run its mode.

    Raises:
        UserError: if the configuration or the data cannot be used.
    """
    config = validate_job(cfg, hydra_config, directory)
    work = import_mode(config.mode)
    if config.mode in DISTRIBUTED_MODES:
        from visual_transformers.distributed.launch import run_on_devices  # imports torch, which a report does not need

        work = partial(run_on_devices, work)
    elif not environment.is_main_process():
        return None
    try:
        return work(config, directory)
    except RuntimeError as error:
        from visual_transformers.data.loader import explain_worker_error

        if explained := explain_worker_error(error):
            raise explained from error
        raise


def import_mode(mode: str) -> Work:
    """Import the function that a mode runs: `runner.train`, `runner.test`, or `run` of the module of its name."""
    if mode in DISTRIBUTED_MODES:
        return getattr(import_module("visual_transformers.runner"), mode)
    return import_module(f"visual_transformers.modes.{mode}").run


def run_sweep_job(cfg: DictConfig, hydra_config: HydraConf, directory: Path) -> float | None:
    """Run a job of a sweep, and write its end to status.json; a training writes its own.

    An error is printed to the job's own log and raised again, because Hydra keeps it and continues with the next job.
    """
    environment.export_torchrun_env()
    trains = cfg.mode == sweep_dir.TRAIN
    folder = directory if trains else directory / str(cfg.mode)
    try:
        with requeue.requeue_on_interrupt(directory):
            score = run_job(cfg, hydra_config, directory)
    except Exception as error:  # on any rank, because possibly only one of them knows the reason
        if not isinstance(error, InUseError):  # then the status belongs to the process that holds the run's lock
            status.write_failure(folder, error)
        print(f"error: {error}" if isinstance(error, EXPLAINED) else traceback.format_exc().rstrip(), file=sys.stderr)
        raise
    if not trains and environment.is_main_process():
        status.write(folder, "finished", score=score)
    return score


def validate_job(cfg: DictConfig, hydra_config: HydraConf, directory: Path) -> Config:
    """Return the checked configuration of a job, with the settings of the trained model that it uses.

    Raises:
        ConfigError: with every problem that was found.
    """
    overrides = list(hydra_config.overrides.task)
    choices = {str(group): str(option) for group, option in hydra_config.runtime.choices.items() if option is not None}
    if hydra_config.mode is not RunMode.MULTIRUN and "study" in choices:
        raise ConfigError(f"study={choices['study']} compares several runs. Start it with -m.")
    if cfg.get("mode") in USES_SETTINGS_OF_RUN:
        file = OmegaConf.select(cfg, "weights.file") or RunDirectory(directory).best
        if trained := trained_settings(str(file)):
            adopt(cfg, trained, overrides, str(file))
            choices = {}  # the groups may be the trained model's
    return validate(cfg, choices, overrides)


def check_same_settings(config: Config, directory: Path) -> None:
    """Check that a finished run has the settings of a configuration.

    Raises:
        ConfigError: if it has not; lists the differences.
    """
    then = yaml.safe_load((directory / "config.yaml").read_text(encoding="utf-8"))
    changed = [c for c in changed_settings(then, config.everything) if not c.within(config.resume.allow)]
    if changed:
        raise ConfigError(
            f"{directory} was trained with other settings:\n"
            + "\n".join(f"  {change}" for change in changed)
            + "\nGive this sweep another name with sweep.name=NAME, or train again with resume=never."
        )
