"""One job: from a composed configuration to one call of the function that does what its mode says."""

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

from visual_transformers.cli.shorthands import USES_A_TRAINED_MODEL, trained_settings
from visual_transformers.config.adoption import adopt
from visual_transformers.config.diff import changed_settings
from visual_transformers.config.schema import Config
from visual_transformers.config.validation import EXPLAINED, checked
from visual_transformers.distributed import environment
from visual_transformers.errors import ConfigError, InUseError
from visual_transformers.runs import requeue, status, sweep_dir
from visual_transformers.runs.run_dir import RunDirectory

if TYPE_CHECKING:
    from visual_transformers.distributed.launch import Work

TOGETHER = ("train", "test")
"""Modes that several processes do together."""
TAKES_A_RUN_S_SETTINGS = (*USES_A_TRAINED_MODEL, "profile")
"""Modes that are about the model of the run in whose folder they leave their results."""


def job(cfg: DictConfig, hydra_config: HydraConf, directory: Path) -> float | None:
    """Check the configuration, and do what its mode says.

    Raises:
        UserError: if the configuration or the data cannot be used.
    """
    config = configured(cfg, hydra_config, directory)
    work = function_of(config.mode)
    if config.mode in TOGETHER:
        from visual_transformers.distributed.launch import on_devices  # torch, for which a report need not wait

        work = partial(on_devices, work)
    elif not environment.is_first():
        return None
    try:
        return work(config, directory)
    except RuntimeError as error:
        from visual_transformers.data.loader import death_of_a_worker

        if explained := death_of_a_worker(error):
            raise explained from error
        raise


def function_of(mode: str) -> Work:
    """Import the function that a mode runs: `runner.train`, `runner.test`, or `run` of the module of its name."""
    if mode in TOGETHER:
        return getattr(import_module("visual_transformers.runner"), mode)
    return import_module(f"visual_transformers.modes.{mode}").run


def job_of_a_sweep(cfg: DictConfig, hydra_config: HydraConf, directory: Path) -> float | None:
    """The same, whose end stands in a status for whoever looks at the sweep; a training keeps one by itself.

    An error is said here, where the job's own log has it, as well as raised: Hydra keeps it, and goes on.
    """
    environment.name_tasks_as_torchrun_does()
    trains = cfg.mode == sweep_dir.TRAIN
    place = directory if trains else directory / str(cfg.mode)
    try:
        with requeue.given_back(directory):
            score = job(cfg, hydra_config, directory)
    except Exception as error:  # of any process: another one than the first may be the only one that knows why
        if not isinstance(error, InUseError):  # the state is that of the process that works on the run
            status.failed(place, error)
        print(f"error: {error}" if isinstance(error, EXPLAINED) else traceback.format_exc().rstrip(), file=sys.stderr)
        raise
    if not trains and environment.is_first():
        status.write(place, "finished", score=score)
    return score


def configured(cfg: DictConfig, hydra_config: HydraConf, directory: Path) -> Config:
    """The checked configuration of a job in that directory, with the settings of the trained model that it uses.

    Raises:
        ConfigError: listing every problem that was found.
    """
    overrides = list(hydra_config.overrides.task)
    choices = {str(group): str(option) for group, option in hydra_config.runtime.choices.items()}
    check_sweep_files(overrides, hydra_config.mode)
    if cfg.get("mode") in TAKES_A_RUN_S_SETTINGS:
        file = OmegaConf.select(cfg, "weights.file") or RunDirectory(directory).best
        if trained := trained_settings(str(file)):
            adopt(cfg, trained, overrides, str(file))
            choices = {}  # for the groups may be the trained model's
    return checked(cfg, choices, overrides)


def check_same_settings(config: Config, directory: Path) -> None:
    """See that a finished run is what a configuration would train.

    Raises:
        ConfigError: if it is not; lists what differs.
    """
    then = yaml.safe_load((directory / "config.yaml").read_text(encoding="utf-8"))
    changed = [c for c in changed_settings(then, config.everything) if not c.within(config.resume.allow)]
    if changed:
        raise ConfigError(
            f"{directory} was trained with other settings:\n"
            + "\n".join(f"  {change}" for change in changed)
            + "\ngive this sweep another name (sweep.name=...), or train anew (resume=never)"
        )


def check_sweep_files(overrides: list[str], mode: RunMode | None) -> None:
    """See that a file of the group `sweep` is used for a sweep.

    Raises:
        ConfigError: if it is not, for its models would be passed over in silence.
    """
    if mode is not RunMode.MULTIRUN and (given := [text for text in overrides if text.startswith("+sweep=")]):
        raise ConfigError(f"{given[0]} is a sweep of several runs; start it with -m")
