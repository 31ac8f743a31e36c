"""The command line as Hydra takes it: what a user may leave out or say shortly is filled in before Hydra reads it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from visual_transformers.config import ADOPTED
from visual_transformers.errors import WeightsError

USES_A_TRAINED_MODEL = ("test", "predict", "explain", "export")
"""Modes that work with a model that a run has trained."""


def completed(arguments: list[str]) -> list[str]:
    """The command line, with what Hydra leaves to be said.

    `weights=PATH` stands for `weights.file=PATH`, `resume=HOW` for `resume.checkpoint=HOW`, and `report=PATH` for
    `report.folders=[PATH]`; quotes around paths and globs that Hydra would read as lists or dictionaries; a trained
    run's own name, or a report's; and resolved values for --cfg job. `-m` comes first, for between overrides it would
    part them.
    """
    arguments = [quoted(_in_full(argument)) for argument in sorted(arguments, key=lambda text: text not in MULTIRUN)]
    overrides = [argument for argument in arguments if "=" in argument and not argument.startswith("-")]
    added = name_of_the_trained_run(overrides) or name_of_a_report(overrides)
    first = arguments.index(overrides[0]) if overrides else len(arguments)
    arguments = [*arguments[:first], *added, *arguments[first:]]
    if "--cfg=job" in arguments or ({"--cfg", "-c"} & set(arguments) and "job" in arguments):
        arguments = [*arguments, "--resolve"]
    return arguments


MULTIRUN = ("-m", "--multirun")


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


def trained_settings(file: str) -> dict[str, Any] | None:
    """The configuration that a weight file carries, or a published name stands for.

    None if there is no such file, it carries none, or is to be refused later.
    """
    from visual_transformers.models import weights  # which imports torch, and most commands name no file

    if not weights.is_published(file) and not Path(file).is_file():
        return None
    try:
        return weights.read_about(file).get("config")
    except WeightsError:
        return None
