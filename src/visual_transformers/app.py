"""The Hydra edge: compose, check, one call of the runner. Errors of a user come out as sentences."""

from __future__ import annotations

import hashlib
import os
import re
import sys
import traceback
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from visual_transformers import runner
from visual_transformers.config import checked, suggestion
from visual_transformers.errors import Interrupted, UserError

MODES = {"train": runner.train, "test": runner.test}
LONGEST_NAME = 80
EXPLAINED = (UserError, HydraException, OmegaConfBaseException, OSError)
"""Errors whose message says what a user can do; any other one of a job is a mistake of ours and keeps its traceback."""
INTERRUPTED = 130
"""Exit code of a run that was asked to stop, as of a shell's command after Ctrl-C."""


def run(cfg: DictConfig) -> float:
    """One job: a plain function of an importable module, for submitit pickles it by name."""
    config = checked(cfg)
    return MODES[config.mode](config, Path(HydraConfig.get().runtime.output_dir))


def main() -> None:
    """The command line, `python -m visual_transformers` or `visual-transformers`."""
    asked_for_traces = "HYDRA_FULL_ERROR" in os.environ
    sys.argv[1:] = completed(sys.argv[1:])
    os.environ["HYDRA_FULL_ERROR"] = "1"  # lets exceptions come through, so that we can say them better
    try:
        hydra.main(config_path="pkg://visual_transformers.conf", config_name="config", version_base="1.3")(run)()
    except KeyboardInterrupt as stop:
        print(stop if isinstance(stop, Interrupted) else "stopped at once, without saving", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except Exception as error:
        if asked_for_traces or (happened_in_the_job(error) and not isinstance(error, EXPLAINED)):
            raise
        sys.exit(f"error: {explained(error)}")


def happened_in_the_job(error: Exception) -> bool:
    """Whether the configuration had been composed already when the error came up."""
    return any(frame.f_code is run.__code__ for frame, _ in traceback.walk_tb(error.__traceback__))


def completed(arguments: list[str]) -> list[str]:
    """The command line, with what Hydra leaves to be said: a folder for a sweep, and resolved values for --cfg job.

    A sweep's folder is named by its overrides, so the same command finds it again. It is given as an override because
    every job of a sweep composes its own configuration, in which the sweep's overrides are no longer to be seen.
    """
    overrides = [argument for argument in arguments if "=" in argument and not argument.startswith("-")]
    sweeps = {"-m", "--multirun", "hydra.mode=MULTIRUN"} & set(arguments)
    if sweeps and not any("hydra.sweep.dir=" in override for override in overrides):
        first = arguments.index(overrides[0]) if overrides else len(arguments)
        told_apart = [override for override in overrides if not override.startswith(NOT_IN_A_SWEEP_S_NAME)]
        arguments = [*arguments[:first], f"hydra.sweep.dir=sweeps/{slug(told_apart)}", *arguments[first:]]
    if "--cfg=job" in arguments or ({"--cfg", "-c"} & set(arguments) and "job" in arguments):
        arguments = [*arguments, "--resolve"]
    return arguments


NOT_IN_A_SWEEP_S_NAME = ("mode=", "resume=", "hydra", "hardware", "logger")


def explained(error: Exception) -> str:
    """The message of an error; for a key that does not exist, with the keys that do."""
    message = str(error).split("\nConfig search path")[0]
    cause = error.__cause__
    if isinstance(cause, OmegaConfBaseException):
        message += f"\n{cause.msg}" if cause.msg and str(cause.msg) not in message else ""
        if cause.key is not None and cause.parent_node is not None and isinstance(cause.parent_node, DictConfig):
            message += suggestion(str(cause.key), map(str, cause.parent_node))
    return message


def slug(overrides: list[str]) -> str:
    """A folder name for a command's overrides: readable, another one for other overrides, and free of `=` and `,`.

    Those two would have to be quoted wherever a file of the sweep is named on a command line.
    """
    text = ",".join(overrides) or "defaults"
    name = re.sub(r"[^\w.+-]+", "_", text.replace("=", "-").replace(",", "+"))
    return f"{name[:LONGEST_NAME]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
