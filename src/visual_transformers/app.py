"""The Hydra edge: compose, check, one call of the runner. Errors of a user come out as sentences."""

from __future__ import annotations

import hashlib
import os
import re
import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from visual_transformers import runner
from visual_transformers.config import checked, suggestion
from visual_transformers.errors import UserError

MODES = {"train": runner.train, "test": runner.test}
LONGEST_NAME = 80


def run(cfg: DictConfig) -> float:
    """One job: a plain function of an importable module, for submitit pickles it by name."""
    config = checked(cfg)
    return MODES[config.mode](config, Path(HydraConfig.get().runtime.output_dir))


def main() -> None:
    """The command line, `python -m visual_transformers` or `visual-transformers`."""
    if {"--cfg", "job"} <= set(sys.argv):  # show the values that a run would have
        sys.argv.append("--resolve")
    asked_for_traces = "HYDRA_FULL_ERROR" in os.environ
    os.environ["HYDRA_FULL_ERROR"] = "1"  # lets exceptions come through, so that we can say them better
    try:
        hydra.main(config_path="pkg://visual_transformers.conf", config_name="config", version_base="1.3")(run)()
    except KeyboardInterrupt:
        sys.exit("stopped at once; the same command goes on from the last checkpoint")
    except (UserError, HydraException, OmegaConfBaseException) as error:
        if asked_for_traces:
            raise
        sys.exit(f"error: {explained(error)}")


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
    """A folder name for a command's overrides: readable, and another one for other overrides."""
    text = ",".join(overrides) or "defaults"
    name = re.sub(r"[^\w=,.+-]+", "_", text)
    if name == text and len(name) <= LONGEST_NAME:
        return name
    return f"{name[:LONGEST_NAME]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


OmegaConf.register_new_resolver("slug", lambda overrides: slug(list(overrides)), replace=True)
