"""Check a composed configuration and convert it to typed values.

The signature of what a `_target_` names is the schema of its node: keys, types and ranges. All problems are reported at
once, before anything is built.
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import is_dataclass, make_dataclass
from typing import Any, TypeVar

from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from visual_transformers.config import constraints
from visual_transformers.config.instantiate import (
    Kind,
    allowed_object,
    check_targets,
    kind_of,
    kind_of_argument,
    not_set,
    trusted,
)
from visual_transformers.config.limits import annotated_hints, literals, out_of_range, without_limits
from visual_transformers.config.schema import CONFIGS, Config, Node, explain_other_mode, keys_of_mode, sections
from visual_transformers.config.typed_text import as_typed, elements_as_typed
from visual_transformers.errors import ConfigError, UserError, suggest

Structured = TypeVar("Structured")
EXPLAINED = (UserError, HydraException, OmegaConfBaseException, OSError)
"""Errors whose message says what to do. Any other error of a job is a bug and keeps its traceback."""
SUPPLIED = {
    "model": {"num_classes"},
    "optimizer": {"params"},
    "schedule": {"optimizer", "steps_per_epoch", "total_steps"},
}
"""Arguments that the runner supplies; a configuration must not set them."""
TARGETS = ("task", "model", "data", "optimizer", "schedule", "hardware")
"""Groups with a `_target_`; `logger` has one per logger."""
OPTIONAL_TARGETS = ("distillation",)
"""Groups with a `_target_` that may be null."""
READS_DATA = ("train", "test", "check_data")
"""Modes that always open the data set. In the others, keys of the data set may be missing."""


def validate(cfg: DictConfig, choices: dict[str, str] | None = None, overrides: Sequence[str] = ()) -> Config:
    """Return the typed configuration.

    Args:
        cfg: the composed configuration; values are converted in place.
        choices: the chosen option of each group, if known.
        overrides: arguments of the command line, which hold strings as they were typed.

    Raises:
        ConfigError: with every problem that was found.
    """
    if cfg.get("mode") not in CONFIGS:
        raise ConfigError(f"mode={cfg.get('mode')}: expected one of {', '.join(CONFIGS)}")
    if missing := [key for key in keys_of_mode(cfg.mode) if key not in map(str, cfg.keys())]:
        raise ConfigError(
            f"mode={cfg.mode}: its keys are missing ({', '.join(missing)}). Choose the mode on the command line, or in "
            f"a file with `defaults: [override /mode: {cfg.mode}]`."
        )
    try:
        OmegaConf.resolve(cfg)
    except OmegaConfBaseException as error:
        key = next(_unresolved(cfg), None)
        raise ConfigError(f"{key}: {error}" if key else str(error)) from error
    if isinstance(cfg.get("weights"), str | None):  # weights=PATH is short for weights.file=PATH
        cfg.weights = {"file": cfg.get("weights"), "backbone_only": False}
    if isinstance(cfg.get("resume"), str):  # and resume=HOW for resume.checkpoint=HOW
        cfg.resume = {"checkpoint": cfg.get("resume"), "allow": []}
    choices = choices or {}
    typed = {key.lstrip("+"): value for key, _, value in (override.partition("=") for override in overrides)}
    trust = cfg.get("trust")
    if not isinstance(trust, ListConfig):
        raise ConfigError(f"trust={trust}: expected a list of packages, as [mypackage]")
    cfg.trust = trusted([str(package) for package in trust])
    if cfg.mode == "profile":
        _set_profile_defaults(cfg)
    if found := [*_problems(cfg, typed), *constraints.problems(cfg, choices)]:
        raise ConfigError("\n".join(found))
    everything: Node = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    return _structured(CONFIGS[cfg.mode], everything | {"everything": everything, "choices": choices})


def _set_profile_defaults(cfg: DictConfig) -> None:
    """Set the image size and the classes to those at which the paper counts the costs of the task's models."""
    with suppress(ConfigError, OmegaConfBaseException, AttributeError):  # reported as problems of the task
        task = allowed_object(cfg.task._target_, "task", trust=cfg.trust)
        for key in ("image_size", "classes"):
            if cfg.profile.get(key) is None:
                cfg.profile[key] = getattr(task, f"profile_{key}")


def _structured(kind: type[Structured], node: Node) -> Structured:
    """Build a dataclass from a node, with the dataclasses of its sections."""
    hints = typing.get_type_hints(kind)
    return kind(
        **{key: _structured(hints[key], value) if is_dataclass(hints[key]) else value for key, value in node.items()}
    )


def _unresolved(node: Any, path: str = "") -> Iterator[str]:
    """Yield each key whose interpolation cannot be resolved."""
    for key in node if isinstance(node, DictConfig) else range(len(node)):
        inner = f"{path}{key!s}"
        try:
            value = None if OmegaConf.is_missing(node, key) else node[key]
        except OmegaConfBaseException:
            yield inner
        else:
            if isinstance(value, DictConfig | ListConfig):
                yield from _unresolved(value, f"{inner}.")


def _problems(cfg: DictConfig, typed: Mapping[str, str]) -> Iterator[str]:
    """Yield the problems that one key has by itself."""
    config = CONFIGS[cfg.mode]
    section_types = sections(config)
    yield from _key_problems("", cfg, config, typed, supplied={"everything", "choices"})
    loggers = cfg.get("logger")
    chosen = [path for path in OPTIONAL_TARGETS if cfg.get(path) is not None]
    named = (f"logger.{name!s}" for name in (loggers if isinstance(loggers, DictConfig) else ()))
    paths = [*TARGETS, *chosen, *named] if cfg.mode != "report" else []
    for path in [*paths, *section_types]:
        node: Any = OmegaConf.select(cfg, path)
        if not isinstance(node, DictConfig):
            yield f"{path}={node!r}: expected a group of keys"
        elif section := section_types.get(path):
            yield from _key_problems(f"{path}.", node, section, typed)
        else:
            may_be_missing = path == "data" and cfg.mode not in READS_DATA
            try:
                check_targets(OmegaConf.to_container(node), path, kind_of(path), cfg.trust)  # type: ignore[arg-type]
            except ConfigError as error:
                yield str(error)
            else:
                yield from _target_problems(path, node, kind_of(path), cfg.trust, typed, may_be_missing=may_be_missing)


def _target_problems(
    path: str, node: DictConfig, kind: Kind, trust: Sequence[str], typed: Mapping[str, str], *, may_be_missing: bool
) -> Iterator[str]:
    """Yield the problems of a node whose targets are allowed, and of the nodes in it."""
    found = allowed_object(node._target_, path, kind, trust)
    yield from _key_problems(f"{path}.", node, found, typed, SUPPLIED.get(path, set()), may_be_missing)
    for key, value in node.items_ex(resolve=False):
        if isinstance(value, DictConfig) and "_target_" in value:
            inner = f"{path}.{key!s}"
            wanted = kind_of_argument(found, str(key), trust)
            yield from _target_problems(inner, value, wanted, trust, typed, may_be_missing=may_be_missing)


def _key_problems(
    prefix: str,
    node: DictConfig,
    target: Callable[..., Any],
    typed: Mapping[str, str],
    supplied: Collection[str] = (),
    may_be_missing: bool = False,
) -> Iterator[str]:
    """Yield the problems of a node's keys under the signature of `target`; valid values are converted in place.

    `typed` holds values of the command line by key, `supplied` the arguments that the runner adds.
    """
    parameters = inspect.signature(target).parameters
    hints = annotated_hints(target)
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    present = [str(key) for key in node.keys()]  # noqa: SIM118 (`in` overlooks keys that are ???)
    for key in present:
        if key == "_target_" or (open_ended and key not in parameters):
            continue
        if key in supplied:
            yield f"{prefix}{key}: is supplied by the runner. Remove it."
        elif key not in parameters:
            known = [name for name in parameters if name not in supplied]
            other_mode = None if prefix else explain_other_mode(key)
            yield other_mode or f"{prefix}{key}: no such key{suggest(key, known, group=prefix)}"
        elif OmegaConf.is_missing(node, key):
            if not may_be_missing:
                yield not_set(f"{prefix}{key}")
        else:
            yield from _converted(prefix, node, key, hints.get(key, Any), typed.get(prefix + key))
    for key, parameter in parameters.items():
        required = parameter.default is parameter.empty and parameter.kind not in VARIADIC
        if required and key not in present and key not in supplied:
            yield f"{prefix}{key} is not set. Add +{prefix}{key}=VALUE to the command line."


VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def _converted(prefix: str, node: DictConfig, key: str, annotation: Any, typed: str | None) -> Iterator[str]:
    """Convert a value to its annotated type in place, or yield what is wrong with it."""
    annotation, limits = without_limits(annotation)
    value: Any = node[key]
    name = f"{prefix}{key}"
    if isinstance(value, ListConfig) and list[str] in (annotation, *typing.get_args(annotation)):
        if all(isinstance(element, str | int | float) for element in value):
            node[key] = elements_as_typed(value, typed)
            return
    elif typed is not None and "${" not in typed and annotation in (str, str | None):
        node[key] = value = as_typed(value, typed)
    if choices := literals(annotation):
        is_list = typing.get_origin(annotation) is list
        yield from _choice_problems(name, value, choices, limits if is_list else None)
        return
    expected = _config_type(annotation)
    try:
        holder = OmegaConf.structured(make_dataclass("Typed", [(key, expected)]))
        holder[key] = value
        node[key] = holder[key]
    except OmegaConfBaseException:
        yield f"{name}={value}: expected {_described(expected, value)}"
    else:
        yield from out_of_range(name, node[key], limits)


def _choice_problems(name: str, value: Any, choices: Sequence[Any], limits: Sequence[Any] | None) -> Iterator[str]:
    """Yield a problem if a value is none of the choices, or a list with `limits` has another element."""
    listed = ", ".join(map(str, choices))
    if limits is None:
        if isinstance(value, ListConfig | DictConfig) or value not in choices:
            yield f"{name}={value}: expected one of {listed}"
    elif not isinstance(value, ListConfig):
        yield f"{name}={value}: expected a list of {listed}, e.g. [{choices[0]}]"
    elif not set(value) <= set(choices) or any(True for _ in out_of_range(name, value, limits)):
        yield f"{name}=[{','.join(map(str, value))}]: expected {'one or more' if limits else 'some'} of {listed}"


def _described(expected: Any, value: Any) -> str:
    """Return the name of a type; of a list or a group, also how to write one."""
    if typing.get_origin(expected) is dict:
        return f"a {typing.get_args(expected)[1].__name__} for each name, as {{NAME: 0.5}}"
    if typing.get_origin(expected) is not list:
        return getattr(expected, "__name__", str(expected)).replace("None", "null")
    element = typing.get_args(expected)[0].__name__
    return f"a list of {element}" + ("" if isinstance(value, ListConfig) else f", as [{value}]")


def _config_type(annotation: Any) -> Any:
    """Return the part of an annotation that a configuration can hold: of `float | Tensor` float, of a Tensor Any."""
    primitives = (bool, int, float, str)
    if annotation in primitives:
        return annotation
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (list, dict) and arguments[-1] in primitives:
        return annotation
    if origin in (typing.Union, types.UnionType):
        held = [a for a in arguments if a in primitives]
        if len(held) == 1:
            return held[0] | None if type(None) in arguments else held[0]
    return Any
