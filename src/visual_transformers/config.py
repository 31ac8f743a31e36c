"""From a composed configuration to checked, typed values, and from a `_target_` to the object it names.

The signature of what `_target_` names is the schema of its node: one place says which keys there are and of
which type. All problems of a configuration are reported at once, before anything is built.
"""

from __future__ import annotations

import difflib
import inspect
import math
import types
import typing
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, make_dataclass
from functools import partial
from typing import Any, Literal

from hydra.utils import get_object, instantiate
from omegaconf import MISSING, DictConfig, ListConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from visual_transformers.errors import ConfigError, UserError
from visual_transformers.settings import SECTIONS, Config, Inference, Node

ALLOWED_TARGETS = ("visual_transformers.", "torch.nn.", "torch.optim.", "torchvision.", "timm.")
SUPPLIED = {
    "model": {"num_classes"},
    "optimizer": {"params"},
    "schedule": {"optimizer", "steps_per_epoch", "total_steps"},
}
"""Arguments that the runner gives, and a configuration must not."""
TARGETS = ("task", "model", "data", "optimizer", "schedule", "hardware")
"""Groups whose node has a `_target_`; `logger` has one for each of its loggers."""
HYDRA_KEYS = {"_target_", "_args_"}
READS_DATA = ("train", "test", "check_data")
"""Modes that always open the data set. The others may do without it, and so without the keys that lead to it."""


def checked(cfg: DictConfig) -> Config:
    """The typed configuration.

    Raises:
        ConfigError: listing every problem that was found.
    """
    try:
        OmegaConf.resolve(cfg)
    except OmegaConfBaseException as error:
        raise ConfigError(str(error)) from error
    if isinstance(cfg.get("weights"), str | None):  # weights=PATH is short for weights.file=PATH
        cfg.weights = {"file": cfg.get("weights"), "backbone_only": False}
    if found := [*_problems(cfg), *_cross_field_problems(cfg)]:
        raise ConfigError("\n".join(found))
    everything: Node = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    sections = {name: section(**everything[name]) for name, section in SECTIONS.items()}
    return Config(**everything | sections | {"everything": everything})


ADOPTED = ("task", "model", "data", "inference")
"""Groups that a trained model brings along, unless the command line chooses others."""


def adopt(cfg: DictConfig, trained: Node, overrides: list[str]) -> None:
    """Take the groups of `ADOPTED` from the configuration `trained` that a weight file carries.

    A group that the command line's `overrides` choose stays as it is composed, and so does every key that they set
    or take away, whether `trained` has that key or was left by a version that did not know it; a recipe chooses all.
    """
    named = [override.lstrip("+~").split("=", 1)[0] for override in overrides]
    if "recipe" in named:
        return
    for group in ADOPTED:
        if group in named or group not in trained:
            continue
        composed, cfg[group] = cfg[group], OmegaConf.create(trained[group])
        for name, override in zip(named, overrides, strict=True):
            if not name.startswith(f"{group}."):
                continue
            key = name.removeprefix(f"{group}.")
            if override.startswith("~"):
                with open_dict(cfg):
                    cfg[group].pop(key, None)
            else:
                OmegaConf.update(cfg[group], key, OmegaConf.select(composed, key), force_add=True)


def build(node: Node, path: str, **supplied: Any) -> Any:
    """What the node's `_target_` makes of the node's keys and of what the caller supplies.

    Raises:
        ConfigError: if the target is not allowed, a key is ???, or the target refuses its arguments.
    """
    for target in _targets(node):
        allowed_object(target, path)
    if missing := [_not_set(f"{path}.{key}") for key, value in node.items() if value == MISSING]:
        raise ConfigError("\n".join(missing))
    with blamed_on(path, f"{node['_target_']} refuses its arguments"):
        return instantiate(node, _partial_=True, _convert_="all")(**supplied)


@contextmanager
def blamed_on(path: str, problem: str) -> Iterator[None]:
    """Say of any error inside that the settings below `path` are its cause; a `UserError` says so itself.

    Raises:
        ConfigError: from the error, whose traceback HYDRA_FULL_ERROR=1 shows.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise ConfigError(f"{path}: {problem}: {str(error) or type(error).__name__}") from error


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
    home = f"{getattr(_unwrapped(found), '__module__', '')}."
    if not home.startswith(ALLOWED_TARGETS) or not callable(found):
        raise ConfigError(f"{path}._target_={target}: is not a class or function of an allowed package")
    return found


def _unwrapped(found: Any) -> Any:
    """The function or class behind a partial one, as `models.vt_resnet18` is."""
    return found.func if isinstance(found, partial) else found


def _targets(node: Any) -> Iterator[str]:
    """Every `_target_` in a node, however deep."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "_target_":
                yield str(value)
            else:
                yield from _targets(value)
    elif isinstance(node, list):
        for value in node:
            yield from _targets(value)


def _problems(cfg: DictConfig) -> Iterator[str]:
    """What is wrong with the keys, each by itself."""
    yield from _key_problems("", cfg, Config, given={"everything"})
    loggers = cfg.get("logger")
    paths = [*TARGETS, *(f"logger.{name!s}" for name in (loggers if isinstance(loggers, DictConfig) else ()))]
    for path in [*paths, *SECTIONS]:
        node: Any = OmegaConf.select(cfg, path)
        if not isinstance(node, DictConfig):
            yield f"{path}={node!r}: expected a group of keys"
        elif path in SECTIONS:
            yield from _key_problems(f"{path}.", node, SECTIONS[path])
        else:
            spared = path == "data" and cfg.get("mode") not in READS_DATA
            yield from _target_problems(path, node, may_be_missing=spared)


def _target_problems(path: str, node: DictConfig, *, may_be_missing: bool) -> Iterator[str]:
    target = node.get("_target_")
    if not isinstance(target, str) or not target:
        yield f"{path}._target_={target}: expected the name of what is built"
        return
    try:
        found = allowed_object(target, path)
    except ConfigError as error:
        yield str(error)
    else:
        yield from _key_problems(f"{path}.", node, found, SUPPLIED.get(path, set()), may_be_missing)
        for key, value in node.items_ex(resolve=False):
            if isinstance(value, DictConfig) and "_target_" in value:
                yield from _target_problems(f"{path}.{key!s}", value, may_be_missing=may_be_missing)


def _key_problems(
    prefix: str,
    node: DictConfig,
    target: Callable[..., Any],
    given: Collection[str] = (),
    may_be_missing: bool = False,
) -> Iterator[str]:
    """Problems of a node's keys against the signature of `target`; values that fit are converted in place.

    `given` are arguments that the suite gives itself. Keys that are ??? are no problem if they `may_be_missing`.
    """
    parameters = inspect.signature(target).parameters
    hints = _type_hints(target)
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    present = [str(key) for key in node.keys()]  # noqa: SIM118 (`in` overlooks keys that are ???)
    for key in present:
        if key in HYDRA_KEYS or (open_ended and key not in parameters):
            continue
        if key in given:
            yield f"{prefix}{key}: is given by the suite itself; remove it"
        elif key not in parameters:
            yield f"{prefix}{key}: no such key{suggestion(key, [name for name in parameters if name not in given])}"
        elif OmegaConf.is_missing(node, key):
            if not may_be_missing:
                yield _not_set(f"{prefix}{key}")
        else:
            yield from _converted(prefix, node, key, hints.get(key, Any))
    for key, parameter in parameters.items():
        required = parameter.default is parameter.empty and parameter.kind not in VARIADIC
        if required and key not in present and key not in given:
            yield f"{prefix}{key} is not set; give it on the command line as +{prefix}{key}=VALUE"


def _not_set(path: str) -> str:
    return f"{path} is not set; give it on the command line as {path}=VALUE"


VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def _type_hints(target: Callable[..., Any]) -> dict[str, Any]:
    """Types of the arguments, where they can be told."""
    target = _unwrapped(target)
    try:
        return typing.get_type_hints(target.__init__ if inspect.isclass(target) else target)  # type: ignore[misc]
    except (NameError, TypeError):  # names that only a type checker sees
        return {}


def _converted(prefix: str, node: DictConfig, key: str, annotation: Any) -> Iterator[str]:
    value = node[key]
    choices = typing.get_args(annotation) if typing.get_origin(annotation) is Literal else ()
    if choices and value not in choices:
        yield f"{prefix}{key}={value}: expected one of {', '.join(map(str, choices))}"
        return
    expected = Any if choices else _config_type(annotation)
    try:
        typed = OmegaConf.structured(make_dataclass("Typed", [(key, expected)]))
        typed[key] = value
        node[key] = typed[key]
    except OmegaConfBaseException:
        yield f"{prefix}{key}={value}: expected {_as_said(expected, value)}"


def _as_said(expected: Any, value: Any) -> str:
    """The name of a type, and of a list how to write one."""
    if typing.get_origin(expected) is not list:
        return getattr(expected, "__name__", str(expected))
    element = typing.get_args(expected)[0].__name__
    return f"a list of {element}" + ("" if isinstance(value, ListConfig) else f", as [{value}]")


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


def suggestion(key: str, known: Iterable[str]) -> str:
    """`; did you mean X?`, or the keys that there are."""
    names = [str(name) for name in known]
    near = difflib.get_close_matches(key, names, n=1)
    return f"; did you mean {near[0]}?" if near else f"; there are {', '.join(names)}"


def _cross_field_problems(cfg: DictConfig) -> Iterator[str]:
    """What no key alone can tell, and numbers out of range; keys of a wrong type are passed over here."""
    task = _target_object(cfg, "task")
    kind = getattr(task, "name", None)
    for group in ("model", "data"):
        needs = _task_of(_target_object(cfg, group))
        if kind and needs and needs != kind:
            yield (
                f"{group}={cfg[group]._target_.rsplit('.', 1)[-1]} is for {needs}, but task={kind}; "
                f"set task={needs}, or choose a {group} for {kind} (see --help)"
            )
    if kind and str(cfg.task.get("metric")) not in task.metrics:
        yield f"task.metric={cfg.task.get('metric')}: {kind} has {', '.join(task.metrics)}"
    for path, least in AT_LEAST.items():
        if (value := _number(cfg, path)) is not None and not least <= value < math.inf:
            yield f"{path}={value}: must be at least {least}, and finite"
    for path in ABOVE_0:
        if (value := _number(cfg, path)) is not None and not 0 < value < math.inf:
            yield f"{path}={value}: must be above 0, and finite"
    if not _makes_a_folder(str(OmegaConf.select(cfg, "name"))):
        yield f"name={cfg.name}: expected the name of a folder below runs/"
    if OmegaConf.select(cfg, "weights.file") == "":
        yield "weights is empty; name a file, or leave it out"
    if cfg.get("mode") == "profile" and OmegaConf.select(cfg, "weights.file"):
        yield "weights: mode=profile does not read any, for a model costs the same with all; leave it out"
    if cfg.get("mode") not in ("train", "profile") and OmegaConf.select(cfg, "weights.backbone_only") is True:
        yield f"weights.backbone_only: mode={cfg.mode} needs the head's weights too; leave it out"
    if cfg.get("input") and cfg.get("mode") not in ("predict", "explain"):
        yield f"input: is for mode=predict and mode=explain, and this is mode={cfg.get('mode')}; leave it out"
    if cfg.get("input") == "":
        yield "input is empty; name an image file, a folder or a quoted glob, or leave it out"
    size = OmegaConf.select(cfg, "profile.image_size")
    if isinstance(size, ListConfig) and (len(size) != 2 or any(isinstance(n, int) and n < 1 for n in size)):
        yield f"profile.image_size={size}: expected height and width, each at least 1, as in [224,224]"
    formats = OmegaConf.select(cfg, "export.formats")
    if isinstance(formats, ListConfig) and not (formats and set(formats) <= set(EXPORT_FORMATS)):
        yield f"export.formats=[{','.join(map(str, formats))}]: expected one or more of {', '.join(EXPORT_FORMATS)}"
    if not 0 <= (_number(cfg, "task.label_smoothing") or 0) < 1:
        yield f"task.label_smoothing={cfg.task.label_smoothing}: must be at least 0 and below 1"
    if not 0 <= (_number(cfg, "inference.overlap") or 0) < 1:
        yield f"inference.overlap={cfg.inference.overlap}: must be at least 0 and below 1"
    scales = OmegaConf.select(cfg, "inference.scales")
    if isinstance(scales, ListConfig) and not (len(scales) and all(0 < scale < math.inf for scale in _numbers(scales))):
        yield f"inference.scales={scales}: list one factor or more, each above 0 and finite; [1.0] resizes nothing"
    if kind == "classification" and (given := list(_changed(cfg.get("inference"), Inference()))):
        yield f"{', '.join(given)}: for segmenters alone, and this is task=classification; leave it out"
    batch_size, accumulate = _number(cfg, "data.batch_size"), _number(cfg, "training.accumulate")
    if batch_size and accumulate and batch_size % accumulate:
        yield f"data.batch_size={batch_size} does not divide into training.accumulate={accumulate} equal parts"


def _changed(node: Any, usual: Inference) -> Iterator[str]:
    """`inference.KEY=VALUE` for each key that is not as usual."""
    if isinstance(node, DictConfig):
        for key, value in asdict(usual).items():
            if key in node and node[key] != value:
                yield f"inference.{key}={node[key]}"


AT_LEAST = {
    "seed": 0,
    "training.epochs": 1,
    "training.accumulate": 1,
    "training.log_every": 1,
    "training.samples": 0,
    "predict.top": 1,
    "inference.window": 1,
    "inference.short_side": 1,
    "inference.pad_to": 1,
    "data.batch_size": 1,
    "data.eval_batch_size": 1,
    "data.check_files": 0,
    "profile.classes": 1,
    "profile.batch_size": 1,
    "profile.seconds": 0,
    "profile.repeats": 1,
    "check_data.workers": 0,
    "hardware.workers": 0,
    "hardware.threads": 1,
}
ABOVE_0 = ("training.clip_norm", "optimizer.lr", "data.image_size", "export.tolerance")
EXPORT_FORMATS = ("safetensors", "torch_export", "onnx")


def _makes_a_folder(name: str) -> bool:
    return all(part.strip() and part not in (".", "..") for part in name.split("/"))


def _number(cfg: DictConfig, path: str) -> float | None:
    value = OmegaConf.select(cfg, path, throw_on_missing=False)
    return value if isinstance(value, int | float) else None


def _numbers(values: ListConfig) -> list[float]:
    """Those of the elements that are numbers; the others are problems of their own."""
    return [value for value in OmegaConf.to_container(values) or () if isinstance(value, int | float)]


def _target_object(cfg: DictConfig, path: str) -> Any:
    try:
        return allowed_object(cfg[path]._target_, path)
    except (ConfigError, OmegaConfBaseException, AttributeError):
        return None  # said already, as a problem of that key


def _task_of(found: Any) -> str | None:
    """The task that a model or data set is for, where its class says so."""
    found = _unwrapped(found)
    if inspect.isfunction(found):
        found = _type_hints(found).get("return")
    return getattr(found, "task", None)
