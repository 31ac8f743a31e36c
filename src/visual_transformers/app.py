"""The Hydra edge: compose, check, one call of the runner. Errors of a user come out as sentences."""

from __future__ import annotations

import os
import shutil
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from itertools import takewhile
from pathlib import Path
from typing import Any, ClassVar

import hydra
import yaml
from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, read_write
from omegaconf.errors import ConfigAttributeError, OmegaConfBaseException

from visual_transformers import check_data, cost_report, explain, export, predict, profile, runner, sweeps
from visual_transformers.command_line import USES_A_TRAINED_MODEL, completed, trained_settings
from visual_transformers.config import adopt, checked
from visual_transformers.errors import (
    ConfigError,
    Interrupted,
    InUseError,
    RunError,
    UserError,
    suggestion,
)
from visual_transformers.report import mode as report
from visual_transformers.settings import Config
from visual_transformers.training import distributed, preemption, status
from visual_transformers.training.checkpoint import changed_settings
from visual_transformers.training.launch import on_devices
from visual_transformers.training.preemption import INTERRUPTED
from visual_transformers.training.rundir import RunDirectory

MODES: dict[str, Callable[[Config, Path], float | None]] = {
    "train": runner.train,
    "test": runner.test,
    "predict": predict.predict,
    "explain": explain.explain,
    "export": export.export,
    "profile": profile.profile,
    "check_data": check_data.check_data,
    "report": report.report,
}
TOGETHER = ("train", "test")
"""Modes that several processes do together."""
TAKES_A_RUN_S_SETTINGS = (*USES_A_TRAINED_MODEL, "profile")
"""Modes that are about the model of the run in whose folder they leave their results."""
EXPLAINED = (UserError, HydraException, OmegaConfBaseException, OSError)
"""Errors whose message says what a user can do; any other one of a job is a mistake of ours and keeps its traceback."""


class Refused(BaseException):
    """Carries the error of a run past Hydra, which would print the command line before it.

    No `Exception`, for Hydra keeps those.
    """

    def __init__(self, error: Exception):
        super().__init__(str(error))
        self.error = error


def run(cfg: DictConfig) -> float | None:
    """One job: a plain function of an importable module, for submitit pickles it by name.

    Raises:
        Refused: from an error that its message explains, of a job that is no part of a sweep.
    """
    hydra_config = HydraConfig.get()
    directory = Path(hydra_config.runtime.output_dir)
    try:
        if hydra_config.mode is RunMode.MULTIRUN:
            return job_of_a_sweep(cfg, hydra_config, directory)
        return job(cfg, hydra_config, directory)
    except EXPLAINED as error:
        if hydra_config.mode is RunMode.MULTIRUN:
            raise
        leave_nothing(directory)
        raise Refused(error) from error


def job(cfg: DictConfig, hydra_config: HydraConf, directory: Path) -> float | None:
    """Check the configuration, and do what its mode says.

    Raises:
        UserError: if the configuration or the data cannot be used.
    """
    config = configured(cfg, hydra_config, directory)
    work = MODES[config.mode]
    return on_devices(work, config, directory) if config.mode in TOGETHER else work(config, directory)


def job_of_a_sweep(cfg: DictConfig, hydra_config: HydraConf, directory: Path) -> float | None:
    """The same, whose end stands in a status for whoever looks at the sweep; a training keeps one by itself.

    An error is said here, where the job's own log has it, as well as raised: Hydra keeps it, and goes on.
    """
    trains = cfg.mode == sweeps.TRAIN
    place = directory if trains else directory / str(cfg.mode)
    try:
        with preemption.given_back(directory):
            score = job(cfg, hydra_config, directory)
    except Exception as error:
        if distributed.is_first():
            if not isinstance(error, InUseError):  # the state is that of the process that works on the run
                status.failed(place, error)
            said = f"error: {error}" if isinstance(error, EXPLAINED) else traceback.format_exc().rstrip()
            print(said, file=sys.stderr)
        raise
    if not trains and distributed.is_first():
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
            adopt(cfg, trained, overrides)
            choices = {}  # for the groups may be the trained model's
    return checked(cfg, choices)


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


class Sweep(Callback):
    """What Hydra calls when a sweep begins and ends: names it, and says at its end what became of its jobs."""

    folder: ClassVar[Path | None] = None
    """Of the sweep that this process has started."""

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Name the sweep by its overrides unless it has a name.

        The name becomes an override because every job composes its own configuration, in which those of the others are
        not to be seen.
        """
        if config.sweep.name is None:
            name = sweeps.name_of(config.hydra.overrides.task)
            with read_write(config), read_write(config.hydra):
                config.sweep.name = name
                config.hydra.overrides.task.append(f"sweep.name={name}")
        Sweep.folder = Path(config.hydra.sweep.dir)

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """Print how the jobs have ended.

        Raises:
            Refused: if one of them did not finish; Hydra would turn an `Exception` of a callback into a warning.
        """
        folder = Path(config.hydra.sweep.dir)
        if config.mode == "profile":
            cost_report.gather(folder)
        sweeps.print_outcomes(folder, sweeps.LAUNCHED)
        open_ended = [job for job in sweeps.LAUNCHED if job.state != "finished"]
        if open_ended and config.sweep.wait:
            raise Refused(RunError(f"{len(open_ended)} of {len(sweeps.LAUNCHED)} jobs did not finish; {AGAIN}"))


AGAIN = "the same command goes on with them"


LEFT_BY_HYDRA = {".hydra", ".hydra/config.yaml", ".hydra/hydra.yaml", ".hydra/overrides.yaml", "multirun.yaml"}


def leave_nothing(folder: Path) -> None:
    """Take away the output folder of a command that was refused, if there is nothing in it but what Hydra wrote.

    The folders above it go too, as far as they are below the current one and empty.
    """
    folder, here = folder.absolute(), Path.cwd()
    left = (path.relative_to(folder) for path in folder.rglob("*"))
    if any(
        path.as_posix() not in LEFT_BY_HYDRA and path.parts[0] != ".submitit" for path in left
    ) or here.is_relative_to(folder):
        return
    with suppress(OSError):  # there is no such folder, it is a link, or one above it is not empty
        shutil.rmtree(folder)
        for above in takewhile(lambda path: path != here and path.is_relative_to(here), folder.parents):
            above.rmdir()


def left_by_hydra(path: Path) -> bool:
    """Whether Hydra, or its launcher, left a file or folder of this path within that of a command."""
    return path.as_posix() in LEFT_BY_HYDRA or path.parts[0] == ".submitit"


def check_sweep_files(overrides: list[str], mode: RunMode | None) -> None:
    """See that a file of the group `sweep` is used for a sweep.

    Raises:
        ConfigError: if it is not, for its models would be passed over in silence.
    """
    if mode is not RunMode.MULTIRUN and (given := [text for text in overrides if text.startswith("+sweep=")]):
        raise ConfigError(f"{given[0]} is a sweep of several runs; start it with -m")


def main() -> None:
    """The command line, `python -m visual_transformers` or `visual-transformers`."""
    for stream in (sys.stdout, sys.stderr):  # names of files need not be text of the terminal's encoding
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    asked_for_traces = "HYDRA_FULL_ERROR" in os.environ
    sys.argv[1:] = completed(sys.argv[1:])
    os.environ["HYDRA_FULL_ERROR"] = "1"  # lets exceptions come through, so that we can say them better
    try:
        hydra.main(config_path="pkg://visual_transformers.conf", config_name="config", version_base="1.3")(run)()
    except KeyboardInterrupt as stop:
        print(stop if isinstance(stop, Interrupted) else "stopped at once, without saving", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except (Exception, Refused) as stop:
        error = stop.error if isinstance(stop, Refused) else stop
        if asked_for_traces or (happened_in_the_job(error) and not isinstance(error, EXPLAINED)):
            raise
        if Sweep.folder:
            leave_nothing(Sweep.folder)
        sys.exit(f"error: {explained(error)}")


def happened_in_the_job(error: Exception) -> bool:
    """Whether the configuration had been composed already when the error came up."""
    return any(frame.f_code is run.__code__ for frame, _ in traceback.walk_tb(error.__traceback__))


def explained(error: Exception) -> str:
    """The message of an error; for an option or a key that does not exist, with those that do."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        group, _, option = error.missing_cfg_file.rpartition("/")
        return f"{group}={option}: no such option{suggestion(option, error.options)}"
    message, cause = str(error).split("\nConfig search path")[0], error.__cause__
    if "add --multirun" in message:
        message += "\n(and if hardware=... makes it a sweep: another key is mistaken, which --multirun will name)"
    if isinstance(cause, ConfigAttributeError) and isinstance(cause.parent_node, DictConfig):
        return (
            f"{cause.full_key}: no such key{suggestion(str(cause.key), map(str, cause.parent_node))}\n"
            f"(+{cause.full_key}=VALUE adds a key that the configuration does not have yet)"
        )
    if isinstance(cause, OmegaConfBaseException) and cause.msg and str(cause.msg) not in message:
        message += f"\n{cause.msg}"
    return message
