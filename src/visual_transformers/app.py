"""The Hydra edge: compose, check, one call of the runner. Errors of a user come out as sentences."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from itertools import takewhile
from pathlib import Path
from typing import Any

import hydra
from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, OmegaConfBaseException

from visual_transformers import check_data, cost_report, explain, export, predict, profile, runner
from visual_transformers.config import ADOPTED, adopt, checked
from visual_transformers.errors import ConfigError, Interrupted, UserError, WeightsError, suggestion
from visual_transformers.models import weights
from visual_transformers.report import mode as report
from visual_transformers.settings import Config
from visual_transformers.training.launch import on_devices
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
USES_A_TRAINED_MODEL = ("test", "predict", "explain", "export")
TAKES_A_RUN_S_SETTINGS = (*USES_A_TRAINED_MODEL, "profile")
"""Modes that are about the model of the run in whose folder they leave their results."""
LONGEST_NAME = 80
EXPLAINED = (UserError, HydraException, OmegaConfBaseException, OSError)
"""Errors whose message says what a user can do; any other one of a job is a mistake of ours and keeps its traceback."""
INTERRUPTED = 130
"""Exit code of a run that was asked to stop, as of a shell's command after Ctrl-C."""


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
        Refused: from an error that its message explains. Of a sweep's job such an error comes as it is, for then Hydra
            goes on with the other jobs and says which one it was.
    """
    hydra_config = HydraConfig.get()
    try:
        return job(cfg, hydra_config)
    except EXPLAINED as error:
        leave_nothing(Path(hydra_config.runtime.output_dir))
        if hydra_config.mode is RunMode.MULTIRUN:
            raise
        raise Refused(error) from error


def job(cfg: DictConfig, hydra_config: HydraConf) -> float | None:
    """Check the configuration, and do what its mode says.

    Raises:
        UserError: if the configuration or the data cannot be used.
    """
    directory = Path(hydra_config.runtime.output_dir)
    overrides = list(hydra_config.overrides.task)
    choices = {str(group): str(option) for group, option in hydra_config.runtime.choices.items()}
    check_sweep_files(overrides, hydra_config.mode)
    if cfg.get("mode") in TAKES_A_RUN_S_SETTINGS:
        file = OmegaConf.select(cfg, "weights.file") or RunDirectory(directory).best
        if trained := trained_settings(str(file)):
            adopt(cfg, trained, overrides)
            choices = {}  # for the groups may be the trained model's
    config = checked(cfg, choices)
    work = MODES[config.mode]
    score = on_devices(work, config, directory) if config.mode in TOGETHER else work(config, directory)
    if config.mode == "profile" and hydra_config.mode is RunMode.MULTIRUN:
        cost_report.gather(Path(hydra_config.sweep.dir))
    return score


LEFT_BY_HYDRA = {".hydra", ".hydra/config.yaml", ".hydra/hydra.yaml", ".hydra/overrides.yaml", "multirun.yaml"}


def leave_nothing(folder: Path) -> None:
    """Take away the output folder of a command that was refused, if there is nothing in it but what Hydra wrote.

    The folders above it go too, as far as they are below the current one and empty.
    """
    folder, here = folder.absolute(), Path.cwd()
    others = (path for path in folder.rglob("*") if path.relative_to(folder).as_posix() not in LEFT_BY_HYDRA)
    if any(others) or here.is_relative_to(folder):
        return
    with suppress(OSError):  # there is no such folder, it is a link, or one above it is not empty
        shutil.rmtree(folder)
        for above in takewhile(lambda path: path != here and path.is_relative_to(here), folder.parents):
            above.rmdir()


def check_sweep_files(overrides: list[str], mode: RunMode | None) -> None:
    """See that a file of the group `sweep` is used for a sweep.

    Raises:
        ConfigError: if it is not, for its models would be passed over in silence.
    """
    if mode is not RunMode.MULTIRUN and (given := [text for text in overrides if text.startswith("+sweep=")]):
        raise ConfigError(f"{given[0]} is a sweep of several runs; start it with -m")


def trained_settings(file: str) -> dict[str, Any] | None:
    """The configuration that a weight file carries, or a published name stands for.

    None if there is no such file, it carries none, or is to be refused later.
    """
    if not weights.is_published(file) and not Path(file).is_file():
        return None
    try:
        return weights.read_about(file).get("config")
    except WeightsError:
        return None


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
        for argument in sys.argv[1:]:
            if argument.startswith(SWEEP_FOLDER):
                leave_nothing(Path(argument.removeprefix(SWEEP_FOLDER)))
        sys.exit(f"error: {explained(error)}")


def happened_in_the_job(error: Exception) -> bool:
    """Whether the configuration had been composed already when the error came up."""
    return any(frame.f_code is run.__code__ for frame, _ in traceback.walk_tb(error.__traceback__))


def completed(arguments: list[str]) -> list[str]:
    """The command line, with what Hydra leaves to be said.

    `weights=PATH` stands for `weights.file=PATH`, `resume=HOW` for `resume.checkpoint=HOW`, and `report=PATH` for
    `report.folders=[PATH]`; quotes around paths and globs that Hydra would read as lists or dictionaries; a trained
    run's own name, or a report's; a folder for a sweep; and resolved values for --cfg job.

    A sweep's folder is named by its overrides, so the same command finds it again. It is given as an override because
    every job of a sweep composes its own configuration, in which the sweep's overrides are no longer to be seen.
    """
    arguments = [quoted(_in_full(argument)) for argument in arguments]
    overrides = [argument for argument in arguments if "=" in argument and not argument.startswith("-")]
    sweeps = {"-m", "--multirun", "hydra.mode=MULTIRUN"} & set(arguments)
    added = name_of_the_trained_run(overrides) or name_of_a_report(overrides)
    if sweeps and not any(override.startswith((SWEEP_NAME, SWEEP_FOLDER)) for override in overrides):
        told_apart = [override for override in overrides if not override.startswith(NOT_IN_A_SWEEP_S_NAME)]
        added.append(f"{SWEEP_NAME}{slug(told_apart)}")
    first = arguments.index(overrides[0]) if overrides else len(arguments)
    arguments = [*arguments[:first], *added, *arguments[first:]]
    if "--cfg=job" in arguments or ({"--cfg", "-c"} & set(arguments) and "job" in arguments):
        arguments = [*arguments, "--resolve"]
    return arguments


def _in_full(argument: str) -> str:
    key, equals, value = argument.partition("=")
    return SHORT.get(key, key) + equals + value


SHORT = {"weights": "weights.file", "resume": "resume.checkpoint", "report": "report.folders"}


def quoted(argument: str) -> str:
    """An override whose value is a path or a glob, quoted for Hydra where it has brackets, blanks and the like.

    A comma stays as it is, for in a sweep it parts several values. A path where a list of them is expected becomes one.
    """
    key, equals, value = argument.partition("=")
    if key == PATH_LIST and value != "null" and not value.startswith("["):
        return f"{key}=[{_in_quotes(value)}]"
    return key + equals + _in_quotes(value) if key in PATHS else argument


def _in_quotes(path: str) -> str:
    if not re.search(r"[^\w/.*?~+%@,-]", path) or path.startswith(("'", '"')):
        return path
    return "'" + path.replace("'", "\\'") + "'"


PATHS = ("input", "weights.file", "distillation.weights", "resume.checkpoint", "data.root", "data.exclude", "name")
PATH_LIST = "report.folders"


def name_of_the_trained_run(overrides: list[str]) -> list[str]:
    """`name=...` for a command that uses the weights of a run as they are: its results belong in that run's folder."""
    given = dict(override.split("=", 1) for override in overrides)
    chosen = {"name", "+recipe", *ADOPTED} & set(given)
    if given.get("mode") not in USES_A_TRAINED_MODEL or chosen:
        return []
    trained = trained_settings(given.get("weights.file", "").strip("'\""))
    return [quoted(f"name={trained['name']}")] if trained else []


def name_of_a_report(overrides: list[str]) -> list[str]:
    """`name=report` for a report that has no other name, for it is about no single model."""
    given = dict(override.split("=", 1) for override in overrides)
    return ["name=report"] if given.get("mode") == "report" and "name" not in given else []


SWEEP_NAME, SWEEP_FOLDER = "sweep.name=", "hydra.sweep.dir="
NOT_IN_A_SWEEP_S_NAME = ("mode=", "resume.", "checkpoint.", "debug.", "hydra", "hardware", "logger", "sweep.")


def explained(error: Exception) -> str:
    """The message of an error; for an option or a key that does not exist, with those that do."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        group, _, option = error.missing_cfg_file.rpartition("/")
        return f"{group}={option}: no such option{suggestion(option, error.options)}"
    message, cause = str(error).split("\nConfig search path")[0], error.__cause__
    if isinstance(cause, ConfigAttributeError) and isinstance(cause.parent_node, DictConfig):
        return (
            f"{cause.full_key}: no such key{suggestion(str(cause.key), map(str, cause.parent_node))}\n"
            f"(+{cause.full_key}=VALUE adds a key that the configuration does not have yet)"
        )
    if isinstance(cause, OmegaConfBaseException) and cause.msg and str(cause.msg) not in message:
        message += f"\n{cause.msg}"
    return message


def slug(overrides: list[str]) -> str:
    """A folder name for a command's overrides: readable, another one for other overrides, and free of `=` and `,`.

    Those two would have to be quoted wherever a file of the sweep is named on a command line.
    """
    text = ",".join(overrides) or "defaults"
    name = re.sub(r"[^\w.+-]+", "_", text.replace("=", "-").replace(",", "+"))
    return f"{name[:LONGEST_NAME]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
