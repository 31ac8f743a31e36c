"""From a composed configuration to checked, typed values, and from a `_target_` to the object it names.

The signature of what `_target_` names is the schema of its node: one place says which keys there are and of
which type. All problems of a configuration are reported at once, before anything is built.
"""

from __future__ import annotations

import difflib
import inspect
import types
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass, make_dataclass
from typing import Any, Literal

from hydra.errors import HydraException
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from visual_transformers.errors import ConfigError

Node = dict[str, Any]

ALLOWED_TARGETS = ("visual_transformers.", "torch.nn.", "torch.optim.", "torchvision.", "timm.")
SUPPLIED = {
    "model": {"num_classes"},
    "optimizer": {"params"},
    "schedule": {"optimizer", "steps_per_epoch", "total_steps"},
}
"""Arguments that the runner gives, and a configuration must not."""
HYDRA_KEYS = {"_target_", "_partial_", "_args_", "_recursive_", "_convert_"}


@dataclass(kw_only=True)
class Training:
    """How long and in what portions a model is trained.

    Args:
        epochs: passes over the training set.
        accumulate: parts into which each batch is cut to save memory; the gradient is that of the whole batch.
        clip_norm: largest norm of the gradient, or null for no clipping.
        log_every: optimizer steps between two records of the running loss.
        samples: pictures in samples.png.
    """

    epochs: int
    accumulate: int
    clip_norm: float | None
    log_every: int
    samples: int


@dataclass(kw_only=True)
class Config:
    """A whole run: plain values, and one node with a `_target_` for each group."""

    name: str
    mode: Literal["train", "test"]
    seed: int
    resume: Literal["auto", "never"]
    weights: str | None
    weights_part: Literal["all", "backbone"]
    training: Training
    task: Node
    model: Node
    data: Node
    optimizer: Node
    schedule: Node
    hardware: Node
    logger: dict[str, Node]
    everything: Node
    """The same configuration as plain containers, as a run stores it."""


def checked(cfg: DictConfig) -> Config:
    """The typed configuration.

    Raises:
        ConfigError: listing every problem that was found.
    """
    try:
        OmegaConf.resolve(cfg)
    except OmegaConfBaseException as error:
        raise ConfigError(str(error)) from error
    nodes = {key: cfg[key] for key in SECTIONS if key in cfg}
    loggers = dict(cfg.logger.items()) if cfg.get("logger") else {}
    found = [f"{key}: the group is missing" for key in SECTIONS if key not in cfg]
    found += _typed("", cfg, Config, skip={"training", "everything", "logger", *SECTIONS})
    found += _typed("training.", cfg.training, Training)
    for path, node in [*nodes.items(), *((f"logger.{name}", node) for name, node in loggers.items())]:
        found += _node_problems(path, node)
    if not found:
        found += _cross_field_problems(cfg)
    if found:
        raise ConfigError("\n".join(found))
    everything: Node = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    training = Training(**everything["training"])
    return Config(**everything | {"training": training, "everything": everything})


SECTIONS = ("task", "model", "data", "optimizer", "schedule", "hardware")


def build(node: Node, path: str, **supplied: Any) -> Any:
    """What the node's `_target_` makes of the node's keys and of what the caller supplies.

    Raises:
        ConfigError: if the target is not allowed, or refuses its arguments.
    """
    for target in _targets(node):
        allowed_object(target, path)
    try:
        return instantiate(node, _partial_=True, _convert_="all")(**supplied)
    except HydraException as error:
        raise ConfigError(f"{path}: {error}") from error
    except ConfigError:
        raise
    except (TypeError, ValueError) as error:
        if type(error) not in (TypeError, ValueError):  # a UserError says itself what is wrong
            raise
        raise ConfigError(f"{path}: {node['_target_']} refuses its arguments: {error}") from error


def allowed_object(target: str, path: str) -> Callable[..., Any]:
    """The object that a `_target_` names.

    Raises:
        ConfigError: before importing it if its name is not on the allow-list, or if the name leads elsewhere
            (as `visual_transformers.app.os.system` would) or nowhere.
    """
    if not target.startswith(ALLOWED_TARGETS):
        raise ConfigError(
            f"{path}._target_={target}: only targets in {', '.join(p + '*' for p in ALLOWED_TARGETS)} may be named"
        )
    try:
        found = get_object(target)
    except Exception as error:
        raise ConfigError(f"{path}._target_={target}: cannot be imported ({error})") from error
    home = f"{getattr(found, '__module__', '')}."
    if not home.startswith(ALLOWED_TARGETS) or not callable(found):
        raise ConfigError(f"{path}._target_={target}: is not a class or function of an allowed package")
    return found


def _targets(node: Any) -> Iterator[str]:
    """Every `_target_` in a node, however deep."""
    if isinstance(node, dict | DictConfig):
        for key, value in node.items():
            if key == "_target_":
                yield str(value)
            else:
                yield from _targets(value)
    elif isinstance(node, list):
        for value in node:
            yield from _targets(value)


def _node_problems(path: str, node: DictConfig) -> Iterator[str]:
    target = node.get("_target_")
    if not target:
        yield f"{path}: has no _target_; it names what is built"
        return
    try:
        found = allowed_object(target, path)
    except ConfigError as error:
        yield str(error)
        return
    yield from _typed(f"{path}.", node, found, skip=SUPPLIED.get(path, set()))


def _typed(prefix: str, node: DictConfig, target: Callable[..., Any], skip: set[str] = frozenset()) -> Iterator[str]:  # type: ignore[assignment]
    """Problems of a node's keys against the signature of `target`; values are converted in place where they fit."""
    parameters = inspect.signature(target).parameters
    hints = typing.get_type_hints(target.__init__ if inspect.isclass(target) else target)
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    for key in map(str, node):
        if key in HYDRA_KEYS or (open_ended and key not in parameters):
            continue
        if key in skip:
            if prefix:
                yield f"{prefix}{key}: is given by the suite itself; remove it"
        elif key not in parameters:
            if prefix or key not in SECTIONS:
                yield f"{prefix}{key}: no such key{suggestion(key, parameters)}"
        elif OmegaConf.is_missing(node, key):
            yield f"{prefix}{key} is not set; give it on the command line as {prefix}{key}=VALUE"
        else:
            yield from _converted(prefix, node, key, hints.get(key, Any))
    for key, parameter in parameters.items():
        if parameter.default is parameter.empty and key not in node and key not in skip and not open_ended:
            yield f"{prefix}{key} is not set; give it on the command line as +{prefix}{key}=VALUE"


def _converted(prefix: str, node: DictConfig, key: str, annotation: Any) -> Iterator[str]:
    value = node[key]
    choices = typing.get_args(annotation) if typing.get_origin(annotation) is Literal else ()
    if choices and value not in choices:
        near = suggestion(str(value), choices)
        yield f"{prefix}{key}={value}: expected one of {', '.join(map(str, choices))}{near if 'mean' in near else ''}"
        return
    expected = Any if choices else _config_type(annotation)
    try:
        typed = OmegaConf.structured(make_dataclass("Typed", [(key, expected)])(value))
        node[key] = typed[key]
    except OmegaConfBaseException:
        yield f"{prefix}{key}={value}: expected {getattr(annotation, '__name__', annotation)}"


def _config_type(annotation: Any) -> Any:
    """The part of an annotation that a configuration can hold: `float | Tensor` is a float, a Tensor is Any."""
    primitives = (bool, int, float, str)
    if annotation in primitives:
        return annotation
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is list and arguments[0] in primitives:
        return annotation
    if origin in (typing.Union, types.UnionType):
        held = [a for a in arguments if a in primitives]
        if len(held) == 1:
            return held[0] | None if type(None) in arguments else held[0]
    return Any


def suggestion(key: str, known: typing.Iterable[str]) -> str:
    """`; did you mean X?`, or the keys that there are."""
    names = [str(name) for name in known]
    near = difflib.get_close_matches(key, names, n=1)
    return f"; did you mean {near[0]}?" if near else f"; there are {', '.join(names)}"


def _cross_field_problems(cfg: DictConfig) -> Iterator[str]:
    """What no key alone can tell; every key has its type by now."""
    task = get_object(cfg.task._target_)
    kind = getattr(task, "name", None)
    for group in ("model", "data"):
        needs = _task_of(cfg[group]._target_)
        if kind and needs and needs != kind:
            yield (
                f"{group}={_short(cfg[group]._target_)} is for {needs}, but task={kind}; "
                f"set task={needs}, or choose a {group} for {kind} (see --help)"
            )
    if kind and cfg.task.metric not in task.metrics:
        yield f"task.metric={cfg.task.metric}: {kind} has {', '.join(task.metrics)}"
    yield from _out_of_range(cfg)
    if cfg.data.batch_size % max(cfg.training.accumulate, 1):
        yield (
            f"data.batch_size={cfg.data.batch_size} does not divide into training.accumulate="
            f"{cfg.training.accumulate} equal parts"
        )


def _out_of_range(cfg: DictConfig) -> Iterator[str]:
    at_least = {
        "training.epochs": 1,
        "training.accumulate": 1,
        "training.log_every": 1,
        "training.samples": 0,
        "data.batch_size": 1,
        "data.eval_batch_size": 1,
        "hardware.workers": 0,
        "seed": 0,
    }
    for path, least in at_least.items():
        value = OmegaConf.select(cfg, path)
        if value is not None and value < least:
            yield f"{path}={value}: must be at least {least}"
    if cfg.training.clip_norm is not None and cfg.training.clip_norm <= 0:
        yield f"training.clip_norm={cfg.training.clip_norm}: must be above 0, or null for no clipping"
    if not 0 <= cfg.task.get("label_smoothing", 0.0) < 1:
        yield f"task.label_smoothing={cfg.task.label_smoothing}: must be at least 0 and below 1"


def _task_of(target: str) -> str | None:
    """The task that a model or data set is for, where its class says so."""
    found = get_object(target)
    if not inspect.isclass(found):
        found = typing.get_type_hints(found).get("return")
    return getattr(found, "task", None)


def _short(target: str) -> str:
    return target.rsplit(".", 1)[-1]
