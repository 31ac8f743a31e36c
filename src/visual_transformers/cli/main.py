"""Command line: Hydra composes the configuration, a job runs it, and user errors are printed as sentences."""

from __future__ import annotations

import errno
import os
import shutil
import sys
import tempfile
import traceback
from contextlib import suppress
from importlib import resources
from itertools import takewhile
from pathlib import Path
from typing import Any, ClassVar

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import MissingConfigException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, read_write
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from visual_transformers.cli.shorthands import expand
from visual_transformers.config.schema import explain_other_mode
from visual_transformers.config.validation import EXPLAINED
from visual_transformers.distributed.signals import raise_on_ctrl_c
from visual_transformers.errors import INTERRUPTED, OPEN_FILES_HINT, ConfigError, Interrupted, RunError, suggest
from visual_transformers.paths import expand_home, is_valid_folder_name
from visual_transformers.runs import sweep_dir


class Refused(BaseException):
    """Carrier of a user error through Hydra, which would print the command line before the message.

    It is no `Exception`, because Hydra catches those.
    """

    def __init__(self, error: Exception):
        super().__init__(str(error))
        self.error = error


def run(cfg: DictConfig) -> float | None:
    """Run one job. submitit pickles this function by name, so it must be importable.

    Raises:
        Refused: from a user error, of a job outside of a sweep.
    """
    from visual_transformers.cli import jobs  # imports torch, which --help does not need

    hydra_config = HydraConfig.get()
    directory = Path(hydra_config.runtime.output_dir)
    if hydra_config.job.chdir:
        os.chdir(hydra_config.runtime.cwd)
        remove_output(directory)
        raise Refused(
            ConfigError(
                "hydra.job.chdir=true: not supported, because paths are relative to the current folder. "
                f"Leave it out; results are in {hydra_config.runtime.output_dir}."
            )
        )
    try:
        if hydra_config.mode is RunMode.MULTIRUN:
            return jobs.run_sweep_job(cfg, hydra_config, directory)
        return jobs.run_job(cfg, hydra_config, directory)
    except EXPLAINED as error:
        if hydra_config.mode is RunMode.MULTIRUN:
            raise
        remove_output(directory)
        raise Refused(error) from error


class Sweep(Callback):
    """Hydra callback that names a sweep at its start and prints the state of its jobs at its end."""

    folder: ClassVar[Path | None] = None
    """Folder of the sweep that this process started."""

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Name the sweep by its overrides unless it has a name.

        The name becomes an override, because every job composes its own configuration and does not see the others'.

        Raises:
            Refused: if the given name is no valid folder name.
        """
        name = config.sweep.name
        if name is None:
            name = sweep_dir.make_sweep_name(config.hydra.overrides.task)
            with read_write(config), read_write(config.hydra):
                config.sweep.name = name
                config.hydra.overrides.task.append(f"sweep.name={name}")
        elif not is_valid_folder_name(str(name)):
            raise Refused(ConfigError(f"sweep.name={name}: expected the name of a folder below sweeps/"))
        Sweep.folder = Path(config.hydra.sweep.dir)

    @classmethod
    def print_outcomes(cls) -> None:
        """Print the state of the jobs that this process started or found, if there are any."""
        if cls.folder and sweep_dir.LAUNCHED_JOBS:
            sweep_dir.print_outcomes(cls.folder, sweep_dir.LAUNCHED_JOBS)

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """Print the state of the jobs.

        Raises:
            Refused: if one of them did not finish; Hydra would turn an `Exception` of a callback into a warning.
        """
        if config.mode == "profile":
            from visual_transformers.modes.profile import output  # imports torch

            output.gather(Path(config.hydra.sweep.dir))
        Sweep.print_outcomes()
        expected = {"finished"} if config.sweep.wait else {"finished", "queued", "running"}
        if others := [state for job in sweep_dir.LAUNCHED_JOBS if (state := job.state) not in expected]:
            advice = "The same command resumes them."
            if "failed" in others and not config.sweep.retry_failed:
                advice = "Failed jobs are not started again because of sweep.retry_failed=false."
            raise Refused(RunError(f"{len(others)} of {len(sweep_dir.LAUNCHED_JOBS)} jobs did not finish. {advice}"))


FILES_OF_HYDRA = {".hydra", ".hydra/config.yaml", ".hydra/hydra.yaml", ".hydra/overrides.yaml", "multirun.yaml"}


def remove_output(folder: Path) -> None:
    """Remove the output folder of a refused command if it holds only files of Hydra.

    Empty folders above it are removed too, up to the current folder.
    """
    folder, here = folder.absolute(), Path.cwd()
    others = (path for path in (found.relative_to(folder) for found in folder.rglob("*")) if not is_of_hydra(path))
    if any(others) or here.is_relative_to(folder):
        return
    with suppress(OSError):  # the folder is missing or a link, or one above it is not empty
        shutil.rmtree(folder)
        for above in takewhile(lambda path: path != here and path.is_relative_to(here), folder.parents):
            above.rmdir()


def is_of_hydra(path: Path) -> bool:
    """Return True for a path in an output folder that Hydra or its launcher wrote."""
    return path.as_posix() in FILES_OF_HYDRA or path.parts[0] == ".submitit"


def main() -> None:
    """Run the command line, `python -m visual_transformers` or `visual-transformers`."""
    for stream in (sys.stdout, sys.stderr):  # the terminal's encoding may lack letters of file names
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    raise_on_ctrl_c()
    check_environment()
    shows_traceback = "HYDRA_FULL_ERROR" in os.environ
    sys.argv[1:] = expand(sys.argv[1:])
    os.environ["HYDRA_FULL_ERROR"] = "1"  # makes Hydra raise its errors, which are then printed below
    try:
        hydra.main(config_path="pkg://visual_transformers.conf", config_name="config", version_base="1.3")(run)()
    except KeyboardInterrupt as stop:
        Sweep.print_outcomes()
        print(stop if isinstance(stop, Interrupted) else "stopped without saving", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except (Exception, Refused) as stop:
        error = stop.error if isinstance(stop, Refused) else stop
        if not isinstance(stop, Refused | ConfigError):  # e.g. a sweeper that ends the sweep when a job fails
            Sweep.print_outcomes()
        if shows_traceback or (is_from_job(error) and not isinstance(error, EXPLAINED)):
            raise
        if Sweep.folder:
            remove_output(Sweep.folder)
        sys.exit(f"error: {explain(error)}")


def check_environment() -> None:
    """Set environment variables that notebooks and containers leave unusable.

    MPLBACKEND may name a backend of a notebook, but figures are only written to files here. Without HOME, as in some
    containers, libraries would make a folder called ~.
    """
    os.environ["MPLBACKEND"] = "agg"
    if str(expand_home("~")) == "~":
        os.environ["HOME"] = tempfile.gettempdir()
        print(
            f"note: HOME is not set and this user has no home folder; using {os.environ['HOME']}",
            file=sys.stderr,
        )


def explain_key_error(error: BaseException | None) -> str | None:
    """Return the message for a key that does not exist; None for another error."""
    if not isinstance(error, ConfigKeyError | ConfigAttributeError) or not isinstance(error.parent_node, DictConfig):
        return None
    path, known = str(error.full_key), [str(key) for key in error.parent_node]
    group = path.removesuffix(str(error.key))
    if group == "logger." and error.key in options_of("logger"):
        return f"{path}: this logger is not chosen. Choose it with logger=[console,files,{error.key}]."
    if group == "hydra.launcher.":
        return f"{path}: no such key of this launcher. Those of a cluster come with hardware=slurm."
    if not group and (message := explain_other_mode(path)):
        return message
    return (
        f"{path}: no such key{suggest(str(error.key), known, group=group)}\n"
        f"(+{path}=VALUE adds a key that the configuration does not have yet)"
    )


def options_of(group: str) -> list[str]:
    """Return the options of a group of this package."""
    folder = resources.files("visual_transformers.conf") / group
    return sorted(path.name.removesuffix(".yaml") for path in folder.iterdir()) if folder.is_dir() else []


def is_from_job(error: Exception) -> bool:
    """Return True if an error was raised after the configuration was composed."""
    return any(frame.f_code is run.__code__ for frame, _ in traceback.walk_tb(error.__traceback__))


def explain(error: Exception) -> str:
    """Return the message of an error; for an unknown option or key, with similar ones."""
    if isinstance(error, MissingConfigException) and "/" in (error.missing_cfg_file or ""):
        group, _, option = str(error.missing_cfg_file).rpartition("/")
        if options := error.options or options_of(group):
            return f"{group}={option}: no such option{suggest(option, options)}"
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        return f"{error}; {OPEN_FILES_HINT}, and hardware.workers=0 needs fewer"
    message, cause = str(error).split("\nConfig search path")[0], error.__cause__
    if key_message := explain_key_error(cause):
        return key_message
    if "add --multirun" in message:
        message += "\n(if hardware=... makes it a sweep already, another key is wrong; --multirun shows which)"
    if isinstance(cause, OmegaConfBaseException) and cause.msg and str(cause.msg) not in message:
        message += f"\n{cause.msg}"
    return message
