"""The Hydra edge: compose, check, one call of the runner. Errors of a user come out as sentences."""

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

from visual_transformers.cli.shorthands import completed
from visual_transformers.config.validation import EXPLAINED
from visual_transformers.distributed import stop_at_once
from visual_transformers.errors import INTERRUPTED, MORE_FILES, ConfigError, Interrupted, RunError, suggestion
from visual_transformers.paths import expand_home, makes_a_folder
from visual_transformers.runs import sweep_dir


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
    from visual_transformers.cli import jobs  # which imports torch, for which --help and the like need not wait

    hydra_config = HydraConfig.get()
    directory = Path(hydra_config.runtime.output_dir)
    if hydra_config.job.chdir:
        os.chdir(hydra_config.runtime.cwd)
        leave_nothing(directory)
        raise Refused(
            ConfigError(
                "hydra.job.chdir=true: paths are relative to the folder where the command is typed; results are in "
                f"{hydra_config.runtime.output_dir} anyway; leave it out"
            )
        )
    try:
        if hydra_config.mode is RunMode.MULTIRUN:
            return jobs.job_of_a_sweep(cfg, hydra_config, directory)
        return jobs.job(cfg, hydra_config, directory)
    except EXPLAINED as error:
        if hydra_config.mode is RunMode.MULTIRUN:
            raise
        leave_nothing(directory)
        raise Refused(error) from error


class Sweep(Callback):
    """What Hydra calls when a sweep begins and ends: names it, and says at its end what became of its jobs."""

    folder: ClassVar[Path | None] = None
    """Of the sweep that this process has started."""

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Name the sweep by its overrides unless it has a name.

        The name becomes an override because every job composes its own configuration, in which those of the others are
        not to be seen.

        Raises:
            Refused: if the name that was given is none of a folder.
        """
        name = config.sweep.name
        if name is None:
            name = sweep_dir.name_of(config.hydra.overrides.task)
            with read_write(config), read_write(config.hydra):
                config.sweep.name = name
                config.hydra.overrides.task.append(f"sweep.name={name}")
        elif not makes_a_folder(str(name)):
            raise Refused(ConfigError(f"sweep.name={name}: expected the name of a folder below sweeps/"))
        Sweep.folder = Path(config.hydra.sweep.dir)

    @classmethod
    def print_outcomes(cls) -> None:
        """Print how the jobs stand that this process has started or found, if there are any."""
        if cls.folder and sweep_dir.LAUNCHED:
            sweep_dir.print_outcomes(cls.folder, sweep_dir.LAUNCHED)

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """Print how the jobs have ended.

        Raises:
            Refused: if one of them did not finish; Hydra would turn an `Exception` of a callback into a warning.
        """
        if config.mode == "profile":
            from visual_transformers.modes.profile import output  # as above

            output.gather(Path(config.hydra.sweep.dir))
        Sweep.print_outcomes()
        well = {"finished"} if config.sweep.wait else {"finished", "queued", "running"}
        if badly := [state for job in sweep_dir.LAUNCHED if (state := job.state) not in well]:
            then = "the same command goes on with them"
            if "failed" in badly and not config.sweep.retry_failed:
                then = "those that failed are left alone (sweep.retry_failed=false)"
            raise Refused(RunError(f"{len(badly)} of {len(sweep_dir.LAUNCHED)} jobs did not finish; {then}"))


LEFT_BY_HYDRA = {".hydra", ".hydra/config.yaml", ".hydra/hydra.yaml", ".hydra/overrides.yaml", "multirun.yaml"}


def leave_nothing(folder: Path) -> None:
    """Take away the output folder of a command that was refused, if there is nothing in it but what Hydra wrote.

    The folders above it go too, as far as they are below the current one and empty.
    """
    folder, here = folder.absolute(), Path.cwd()
    others = (path for path in (found.relative_to(folder) for found in folder.rglob("*")) if not left_by_hydra(path))
    if any(others) or here.is_relative_to(folder):
        return
    with suppress(OSError):  # there is no such folder, it is a link, or one above it is not empty
        shutil.rmtree(folder)
        for above in takewhile(lambda path: path != here and path.is_relative_to(here), folder.parents):
            above.rmdir()


def left_by_hydra(path: Path) -> bool:
    """Whether Hydra, or its launcher, left a file or folder of this path within that of a command."""
    return path.as_posix() in LEFT_BY_HYDRA or path.parts[0] == ".submitit"


def main() -> None:
    """The command line, `python -m visual_transformers` or `visual-transformers`."""
    for stream in (sys.stdout, sys.stderr):  # names of files need not be text of the terminal's encoding
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    stop_at_once.install()
    check_environment()
    asked_for_traces = "HYDRA_FULL_ERROR" in os.environ
    sys.argv[1:] = completed(sys.argv[1:])
    os.environ["HYDRA_FULL_ERROR"] = "1"  # lets exceptions come through, so that we can say them better
    try:
        hydra.main(config_path="pkg://visual_transformers.conf", config_name="config", version_base="1.3")(run)()
    except KeyboardInterrupt as stop:
        Sweep.print_outcomes()
        print(stop if isinstance(stop, Interrupted) else "stopped at once, without saving", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except (Exception, Refused) as stop:
        error = stop.error if isinstance(stop, Refused) else stop
        if not isinstance(stop, Refused | ConfigError):  # as of a sweeper that ends the sweep by a job's failure
            Sweep.print_outcomes()
        if asked_for_traces or (happened_in_the_job(error) and not isinstance(error, EXPLAINED)):
            raise
        if Sweep.folder:
            leave_nothing(Sweep.folder)
        sys.exit(f"error: {explained(error)}")


def check_environment() -> None:
    """Mend what the program inherits from a notebook or a container, and says nothing about.

    MPLBACKEND may name a backend of another program, and pictures are only written here. A user without a home folder,
    as in containers, would get a folder called ~.
    """
    os.environ["MPLBACKEND"] = "agg"
    if str(expand_home("~")) == "~":
        os.environ["HOME"] = tempfile.gettempdir()
        print(
            f"note: this user has no home folder, HOME is not set; {os.environ['HOME']} takes its place",
            file=sys.stderr,
        )


def of_a_key(error: BaseException | None) -> str | None:
    """What is said of a key that does not exist; None of another error."""
    if not isinstance(error, ConfigKeyError | ConfigAttributeError) or not isinstance(error.parent_node, DictConfig):
        return None
    path, known = str(error.full_key), [str(key) for key in error.parent_node]
    group = path.removesuffix(str(error.key))
    if group == "logger." and error.key in options_of("logger"):
        return f"{path}: is none of the loggers; name it among them, as in logger=[console,files,{error.key}]"
    if group == "hydra.launcher.":
        return f"{path}: no such key of this launcher; those of a cluster come with hardware=slurm and the like"
    return (
        f"{path}: no such key{suggestion(str(error.key), known, group=group)}\n"
        f"(+{path}=VALUE adds a key that the configuration does not have yet)"
    )


def options_of(group: str) -> list[str]:
    """The options of a group that this package has."""
    folder = resources.files("visual_transformers.conf") / group
    return sorted(path.name.removesuffix(".yaml") for path in folder.iterdir()) if folder.is_dir() else []


def happened_in_the_job(error: Exception) -> bool:
    """Whether the configuration had been composed already when the error came up."""
    return any(frame.f_code is run.__code__ for frame, _ in traceback.walk_tb(error.__traceback__))


def explained(error: Exception) -> str:
    """The message of an error; for an option or a key that does not exist, with those that do."""
    if isinstance(error, MissingConfigException) and "/" in (error.missing_cfg_file or ""):
        group, _, option = str(error.missing_cfg_file).rpartition("/")
        if options := error.options or options_of(group):
            return f"{group}={option}: no such option{suggestion(option, options)}"
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        return f"{error}; {MORE_FILES}, and hardware.workers=0 needs fewer"
    message, cause = str(error).split("\nConfig search path")[0], error.__cause__
    if said := of_a_key(cause):
        return said
    if "add --multirun" in message:
        message += "\n(and if hardware=... makes it a sweep: another key is mistaken, which --multirun will name)"
    if isinstance(cause, OmegaConfBaseException) and cause.msg and str(cause.msg) not in message:
        message += f"\n{cause.msg}"
    return message
