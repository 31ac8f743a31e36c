"""Rewrite the command line before Hydra reads it: short forms, quotes, and settings that follow from others."""

from __future__ import annotations

from typing import Any

from visual_transformers.config.adoption import ADOPTED
from visual_transformers.config.schema import CONFIGS, explain_other_mode
from visual_transformers.config.typed_text import as_hydra_reads, as_text, bare, in_quotes
from visual_transformers.errors import WeightsError

USES_TRAINED_MODEL = ("test", "predict", "explain", "export")
"""Modes that use a model trained by a run."""
MULTIRUN = ("-m", "--multirun")
CLUSTERS = ("hardware=slurm", "hardware=submitit", "hydra.mode=MULTIRUN")
"""Prefixes of arguments that make every command a sweep."""
SHORT = {
    "weights": "weights.file",
    "resume": "resume.checkpoint",
    "report": "report.folders",
    "+recipe": "recipe",
    "+sweep": "study",
}
"""Short and earlier forms of keys."""


def expand(arguments: list[str]) -> list[str]:
    """Return the command line as Hydra needs it.

    `weights=PATH` stands for `weights.file=PATH`, `resume=HOW` for `resume.checkpoint=HOW`, `report=PATH` for
    `report.folders=[PATH]`, and `+recipe=NAME` for `recipe=NAME`. Text that Hydra would misread is quoted. The name of
    a trained run or of a report is added, keys that the composed settings may lack get `++`, and `--cfg job` prints
    resolved values. `-m` is moved first: between overrides, argparse would split them into two groups.
    """
    arguments = sorted(arguments, key=lambda text: text not in MULTIRUN)
    sweeps = any(argument in MULTIRUN or argument.startswith(CLUSTERS) for argument in arguments)
    arguments = [as_hydra_reads(_long_form(argument), sweeps=sweeps) for argument in arguments]
    overrides = [argument for argument in arguments if _is_override(argument)]
    if sweeps and _by_key(overrides).get("mode") not in CONFIGS:
        arguments = [_of_any_mode(argument) for argument in arguments]
    if trained := _trained_model(overrides):
        arguments = [_may_be_new(argument, trained) for argument in arguments]
    added = _name_of_trained_run(overrides, trained) or _name_of_report(overrides)
    first = next((place for place, argument in enumerate(arguments) if _is_override(argument)), len(arguments))
    arguments = [*arguments[:first], *added, *arguments[first:]]
    if "--cfg=job" in arguments or ({"--cfg", "-c"} & set(arguments) and "job" in arguments):
        arguments = [*arguments, "--resolve"]
    return arguments


def _is_override(argument: str) -> bool:
    """Return True for `key=value`, and False for an option such as `--config-dir=PATH`."""
    return "=" in argument and not argument.startswith("-")


def _long_form(argument: str) -> str:
    key, equals, value = argument.partition("=")
    if key == "report" and value != "null" and not value.startswith("["):
        value = f"[{in_quotes(bare(value))}]"
    return SHORT.get(key, key) + equals + value


def _trained_model(overrides: list[str]) -> dict[str, Any] | None:
    """Return the configuration of the trained model that a command uses, if a file carries one."""
    given = _by_key(overrides)
    if given.get("mode") not in (*USES_TRAINED_MODEL, "profile"):
        return None
    file = bare(given["weights.file"]) if "weights.file" in given else f"runs/{bare(given.get('name', ''))}"
    return trained_settings(file) if "name" in given or "weights.file" in given else None


def _by_key(overrides: list[str]) -> dict[str, str]:
    return dict(override.split("=", 1) for override in overrides)


def _may_be_new(override: str, trained: dict[str, Any]) -> str:
    """Mark the override of a key that a trained model's settings have, but possibly not the composed ones."""
    group, _, key = override.partition("=")[0].partition(".")
    node = trained.get(group)
    is_known = group in ADOPTED and isinstance(node, dict) and key.partition(".")[0] in node
    return f"++{override}" if is_known else override


def _of_any_mode(override: str) -> str:
    """Mark the override of a key that only some modes have: Hydra first composes a sweep over modes without them."""
    key = override.partition("=")[0].partition(".")[0]
    return f"++{override}" if _is_override(override) and explain_other_mode(key) else override


def _name_of_trained_run(overrides: list[str], trained: dict[str, Any] | None) -> list[str]:
    """Return `name=...` for a command that uses the weights of a run as they are: results go to that run's folder."""
    given = _by_key(overrides)
    chosen = {"name", "recipe", *ADOPTED} & set(given)
    if not trained or chosen or given["mode"] not in USES_TRAINED_MODEL:
        return []
    return [f"name={as_text(trained['name'])}"]


def _name_of_report(overrides: list[str]) -> list[str]:
    """Return `name=report` for a report without a name, because it is of no single model."""
    given = _by_key(overrides)
    return ["name=report"] if given.get("mode") == "report" and "name" not in given else []


def trained_settings(file: str) -> dict[str, Any] | None:
    """Return the configuration that a weight file carries, or that a published name stands for.

    None if there is no such file, it carries none, or it cannot be read, which is reported when it is used.
    """
    if not file:
        return None
    from visual_transformers.checkpoints import weights  # imports torch, which most commands do not need here

    if not weights.is_published(file) and not weights.resolve_path(file).is_file():
        return None
    try:
        return weights.read_metadata(file).get("config")
    except WeightsError:
        return None
