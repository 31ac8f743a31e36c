"""From a composed configuration to checked, typed values.

The signature of what `_target_` names is the schema of its node: one place says which keys there are and of
which type. All problems of a configuration are reported at once, before anything is built.
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import make_dataclass
from typing import Any, Literal

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
    type_hints,
)
from visual_transformers.config.schema import NESTED, SECTIONS, Config, Node
from visual_transformers.config.typed_text import as_typed, elements_as_typed
from visual_transformers.errors import ConfigError, UserError, suggestion

EXPLAINED = (UserError, HydraException, OmegaConfBaseException, OSError)
"""Errors whose message says what a user can do; any other one of a job is a mistake of ours and keeps its traceback."""
SUPPLIED = {
    "model": {"num_classes"},
    "optimizer": {"params"},
    "schedule": {"optimizer", "steps_per_epoch", "total_steps"},
}
"""Arguments that the runner gives, and a configuration must not."""
TARGETS = ("task", "model", "data", "optimizer", "schedule", "hardware")
"""Groups whose node has a `_target_`; `logger` has one for each of its loggers."""
OPTIONAL_TARGETS = ("distillation",)
"""Such groups that a configuration may do without."""
READS_DATA = ("train", "test", "check_data")
"""Modes that always open the data set. The others may do without it, and so without the keys that lead to it."""


def checked(cfg: DictConfig, choices: dict[str, str] | None = None, overrides: Sequence[str] = ()) -> Config:
    """The typed configuration.

    Args:
        cfg: as it is composed.
        choices: the options of the groups, where they are known.
        overrides: of the command line, which tell texts as they were typed.

    Raises:
        ConfigError: listing every problem that was found.
    """
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
    if found := [*_problems(cfg, typed), *constraints.problems(cfg, choices)]:
        raise ConfigError("\n".join(found))
    everything: Node = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    sections = {name: section(**everything[name]) for name, section in SECTIONS.items()}
    return Config(**everything | sections | {"everything": everything, "choices": choices})


def _unresolved(node: Any, path: str = "") -> Iterator[str]:
    """Each key whose value refers to something that is not there."""
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
    """What is wrong with the keys, each by itself."""
    yield from _key_problems("", cfg, Config, typed, given={"everything", "choices"})
    loggers = cfg.get("logger")
    chosen = [path for path in OPTIONAL_TARGETS if cfg.get(path) is not None]
    builds = cfg.get("mode") != "report"
    named = (f"logger.{name!s}" for name in (loggers if isinstance(loggers, DictConfig) else ()))
    paths = [*TARGETS, *chosen, *named] if builds else []
    sections = SECTIONS | NESTED
    for path in [*paths, *sections]:
        node: Any = OmegaConf.select(cfg, path)
        if not isinstance(node, DictConfig):
            yield f"{path}={node!r}: expected a group of keys"
        elif path in sections:
            yield from _key_problems(f"{path}.", node, sections[path], typed)
        else:
            spared = path == "data" and cfg.get("mode") not in READS_DATA
            try:
                check_targets(OmegaConf.to_container(node), path, kind_of(path), cfg.trust)  # type: ignore[arg-type]
            except ConfigError as error:
                yield str(error)
            else:
                yield from _target_problems(path, node, kind_of(path), cfg.trust, typed, may_be_missing=spared)


def _target_problems(
    path: str, node: DictConfig, kind: Kind, trust: Sequence[str], typed: Mapping[str, str], *, may_be_missing: bool
) -> Iterator[str]:
    """Problems of the keys of a node whose targets are allowed, and of the nodes in it."""
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
    given: Collection[str] = (),
    may_be_missing: bool = False,
) -> Iterator[str]:
    """Problems of a node's keys against the signature of `target`; values that fit are converted in place.

    `typed` are values of the command line by key, `given` are arguments that the suite supplies. Keys that are ??? are
    no problem if they `may_be_missing`.
    """
    parameters = inspect.signature(target).parameters
    hints = type_hints(target)
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    present = [str(key) for key in node.keys()]  # noqa: SIM118 (`in` overlooks keys that are ???)
    for key in present:
        if key == "_target_" or (open_ended and key not in parameters):
            continue
        if key in given:
            yield f"{prefix}{key}: is given by the suite itself; remove it"
        elif key not in parameters:
            known = [name for name in parameters if name not in given]
            yield f"{prefix}{key}: no such key{suggestion(key, known, group=prefix)}"
        elif OmegaConf.is_missing(node, key):
            if not may_be_missing:
                yield not_set(f"{prefix}{key}")
        else:
            yield from _converted(prefix, node, key, hints.get(key, Any), typed.get(prefix + key))
    for key, parameter in parameters.items():
        required = parameter.default is parameter.empty and parameter.kind not in VARIADIC
        if required and key not in present and key not in given:
            yield f"{prefix}{key} is not set; give it on the command line as +{prefix}{key}=VALUE"


VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def _converted(prefix: str, node: DictConfig, key: str, annotation: Any, typed: str | None) -> Iterator[str]:
    value: Any = node[key]
    if isinstance(value, ListConfig) and list[str] in (annotation, *typing.get_args(annotation)):
        if all(isinstance(element, str | int | float) for element in value):
            node[key] = elements_as_typed(value, typed)
            return
    elif typed is not None and "${" not in typed and annotation in (str, str | None):
        node[key] = value = as_typed(value, typed)
    choices = typing.get_args(annotation) if typing.get_origin(annotation) is Literal else ()
    if choices and value not in choices:
        yield f"{prefix}{key}={value}: expected one of {', '.join(map(str, choices))}"
        return
    expected = Any if choices else _config_type(annotation)
    try:
        holder = OmegaConf.structured(make_dataclass("Typed", [(key, expected)]))
        holder[key] = value
        node[key] = holder[key]
    except OmegaConfBaseException:
        yield f"{prefix}{key}={value}: expected {_as_said(expected, value)}"


def _as_said(expected: Any, value: Any) -> str:
    """The name of a type, and of a list or a group how to write one."""
    if typing.get_origin(expected) is dict:
        return f"a {typing.get_args(expected)[1].__name__} for each name, as {{NAME: 0.5}}"
    if typing.get_origin(expected) is not list:
        return getattr(expected, "__name__", str(expected)).replace("None", "null")
    element = typing.get_args(expected)[0].__name__
    return f"a list of {element}" + ("" if isinstance(value, ListConfig) else f", as [{value}]")


def _config_type(annotation: Any) -> Any:
    """The part of an annotation that a configuration can hold: `float | Tensor` is a float, a Tensor is Any."""
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
