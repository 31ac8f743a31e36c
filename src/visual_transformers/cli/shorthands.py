"""The command line as Hydra takes it: what a user may leave out or say shortly is filled in before Hydra reads it."""

from __future__ import annotations

from typing import Any

from visual_transformers.config.adoption import ADOPTED
from visual_transformers.config.typed_text import as_hydra_reads, as_text, bare, in_quotes
from visual_transformers.errors import WeightsError

USES_A_TRAINED_MODEL = ("test", "predict", "explain", "export")
"""Modes that work with a model that a run has trained."""


def completed(arguments: list[str]) -> list[str]:
    """The command line, with what Hydra leaves to be said.

    `weights=PATH` stands for `weights.file=PATH`, `resume=HOW` for `resume.checkpoint=HOW`, and `report=PATH` for
    `report.folders=[PATH]`; quotes around texts that Hydra would read as something else; a trained run's own name, or a
    report's; keys of a trained model's settings that the composed ones lack; and resolved values for --cfg job. `-m`
    comes first, for between overrides it would part them.
    """
    arguments = sorted(arguments, key=lambda text: text not in MULTIRUN)
    sweeps = any(argument in MULTIRUN or argument.startswith(CLUSTERS) for argument in arguments)
    arguments = [as_hydra_reads(_in_full(argument), sweeps=sweeps) for argument in arguments]
    overrides = [argument for argument in arguments if _is_override(argument)]
    if trained := _trained_model(overrides):
        arguments = [_may_be_new(argument, trained) for argument in arguments]
    added = name_of_the_trained_run(overrides, trained) or name_of_a_report(overrides)
    first = next((place for place, argument in enumerate(arguments) if _is_override(argument)), len(arguments))
    arguments = [*arguments[:first], *added, *arguments[first:]]
    if "--cfg=job" in arguments or ({"--cfg", "-c"} & set(arguments) and "job" in arguments):
        arguments = [*arguments, "--resolve"]
    return arguments


MULTIRUN = ("-m", "--multirun")
CLUSTERS = ("hardware=slurm", "hardware=submitit", "hydra.mode=MULTIRUN")
"""How arguments begin with which every command is a sweep."""


def _is_override(argument: str) -> bool:
    """Return True for `key=value`, and False for an option such as `--config-dir=PATH`."""
    return "=" in argument and not argument.startswith("-")


def _in_full(argument: str) -> str:
    key, equals, value = argument.partition("=")
    if key == "report" and value != "null" and not value.startswith("["):
        value = f"[{in_quotes(bare(value))}]"
    return SHORT.get(key, key) + equals + value


SHORT = {"weights": "weights.file", "resume": "resume.checkpoint", "report": "report.folders"}


def _given(overrides: list[str]) -> dict[str, str]:
    """Values as they were typed, by their keys."""
    return dict(override.split("=", 1) for override in overrides)


def _trained_model(overrides: list[str]) -> dict[str, Any] | None:
    """The configuration of the trained model that a command uses, if it names one that carries one."""
    given = _given(overrides)
    if given.get("mode") not in (*USES_A_TRAINED_MODEL, "profile"):
        return None
    file = bare(given["weights.file"]) if "weights.file" in given else f"runs/{bare(given.get('name', ''))}"
    return trained_settings(file) if "name" in given or "weights.file" in given else None


def _may_be_new(override: str, trained: dict[str, Any]) -> str:
    """An override of a key that a trained model's settings have, for which the composed ones may have no place."""
    group, _, key = override.partition("=")[0].partition(".")
    node = trained.get(group)
    return (
        f"++{override}" if group in ADOPTED and isinstance(node, dict) and key.partition(".")[0] in node else override
    )


def name_of_the_trained_run(overrides: list[str], trained: dict[str, Any] | None) -> list[str]:
    """`name=...` for a command that uses the weights of a run as they are: its results belong in that run's folder."""
    given = _given(overrides)
    chosen = {"name", "+recipe", *ADOPTED} & set(given)
    if not trained or chosen or given["mode"] not in USES_A_TRAINED_MODEL:
        return []
    return [f"name={as_text(trained['name'])}"]


def name_of_a_report(overrides: list[str]) -> list[str]:
    """`name=report` for a report that has no other name, for it is about no single model."""
    given = _given(overrides)
    return ["name=report"] if given.get("mode") == "report" and "name" not in given else []


def trained_settings(file: str) -> dict[str, Any] | None:
    """The configuration that a weight file carries, or a published name stands for.

    None if there is no such file, it carries none, or is to be refused later.
    """
    if not file:
        return None
    from visual_transformers.checkpoints import weights  # which imports torch, and most commands name no file

    if not weights.is_published(file) and not weights.located(file).is_file():
        return None
    try:
        return weights.read_about(file).get("config")
    except WeightsError:
        return None
