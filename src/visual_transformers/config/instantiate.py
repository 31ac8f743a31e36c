"""Guarded instantiation of nodes with a `_target_`.

A configuration, above all one from a weight file, must not call whatever is installed. So every target is checked
before any is called: its package must be allowed, and it must return what its place needs, e.g. a model in `model`. A
target inside another node must return what the outer signature asks for. Nothing else may hold a target.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import re
import sys
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from hydra.utils import get_object
from omegaconf import MISSING, DictConfig, ListConfig, OmegaConf

from visual_transformers.config.limits import annotated_hints, unwrapped, without_limits
from visual_transformers.config.schema import Node
from visual_transformers.errors import ConfigError, UserError

Kind = tuple[type, ...]
"""Classes of which an object must be an instance of one."""
ALLOWED_TARGETS = ("visual_transformers.", "torch.nn.", "torch.optim.", "torchvision.", "timm.")
"""Prefixes of targets that are always allowed; `trust` adds packages of the user."""
MODULE = "torch.nn.Module"
KINDS = {
    "task": "visual_transformers.tasks.Task",
    "model": MODULE,
    "data": "visual_transformers.data.datamodule.DataModule",
    "optimizer": "torch.optim.Optimizer",
    "schedule": "torch.optim.lr_scheduler.LRScheduler",
    "hardware": "visual_transformers.distributed.hardware.Hardware",
    "distillation": "visual_transformers.training.distillation.Distillation",
    "logger": "visual_transformers.loggers.Logger",
}
"""Base class of each group's target, by name: it is imported only when needed."""
DENIED = (
    "torchvision.io",
    "torchvision.datasets",
    "torchvision.utils",
    "torch.nn.init",
    "torch.nn.parallel",
    "timm.models._hub",
    "timm.models._helpers",
    "timm.utils",
    "timm.data",
)
"""Modules of allowed packages that read, write, download or start processes; they hold no targets."""
HYDRA_KEYS = ("_args_", "_partial_", "_recursive_", "_convert_")
"""Keys of Hydra's `instantiate` that would bypass the check of argument names."""


def build(node: Node, path: str, *, kind: Kind = (), trust: Sequence[str] = (), **supplied: Any) -> Any:
    """Call the `_target_` of a node with the node's keys and the supplied arguments.

    Args:
        node: `_target_` and arguments.
        path: key of the node, for messages.
        kind: required class of the result; empty for that of the group at the start of `path`.
        trust: trusted packages of the user.
        **supplied: further arguments, which are no keys.

    Raises:
        ConfigError: if a target is not allowed, a key is ???, or the target refuses its arguments.
    """
    kind = kind or kind_of(path)
    node = plain(node)
    check_targets(node, path, kind, trust)
    if missing := [not_set(f"{path}.{key}") for key, value in node.items() if value == MISSING]:
        raise ConfigError("\n".join(missing))
    with blamed_on(path, f"{node['_target_']} refuses its arguments"):
        made = _call(node, supplied)
    if not isinstance(made, kind):  # a trusted function without a return annotation
        raise ConfigError(
            f"{path}._target_={node['_target_']}: returned a {type(made).__name__}, but {_needed(path, kind)}"
        )
    return made


def plain(node: Any) -> Any:
    """Return a node as plain, resolved containers."""
    return OmegaConf.to_container(node, resolve=True) if isinstance(node, DictConfig | ListConfig) else node


def _call(node: Node, supplied: Mapping[str, Any]) -> Any:
    """Call the target of a checked node, with its nested targets called first.

    Hydra's `instantiate` would resolve `${...}` again, and so could find targets that were not there when the node was
    checked.
    """
    arguments = {
        key: _call(value, {}) if isinstance(value, dict) and "_target_" in value else value
        for key, value in node.items()
        if key != "_target_"
    }
    return get_object(node["_target_"])(**arguments, **supplied)


def check_targets(node: Node, path: str, kind: Kind, trust: Sequence[str]) -> None:
    """Check that the targets of a node are allowed in their places.

    Raises:
        ConfigError: for the first that is not.
    """
    found = allowed_object(node.get("_target_"), path, kind, trust)
    if given := [key for key in HYDRA_KEYS if key in node]:
        raise ConfigError(f"{path}.{given[0]}: is not supported. Give each argument of {node['_target_']} by its name.")
    for key, value in node.items():
        inner = f"{path}.{key}"
        wanted = kind_of_argument(found, str(key), trust)
        if isinstance(value, dict) and "_target_" in value:
            if not wanted:
                raise ConfigError(f"{inner}._target_={value['_target_']}: no _target_ is allowed here")
            check_targets(value, inner, wanted, trust)
        elif target := next(targets_in(value), None):
            raise ConfigError(f"{inner}: contains _target_={target}, but none is allowed here. Give plain values.")
        elif wanted and not takes(found, str(key), value):
            or_null = ", or null" if type(None) in hinted(found, str(key)) else ""
            raise ConfigError(f"{inner}={value}: expected a group of keys with a _target_{or_null}")


def kind_of(path: str) -> Kind:
    """Return the base class for a group, or for a logger `logger.NAME`."""
    return (base_class(KINDS[path.partition(".")[0]]),)


def base_class(name: str) -> type:
    """Import a class of `KINDS`."""
    module, _, attribute = name.rpartition(".")
    found: type = getattr(importlib.import_module(module), attribute)
    return found


def kind_of_argument(target: Callable[..., Any], key: str, trust: Sequence[str] = ()) -> Kind:
    """Return the classes that a nested target may return for an argument; empty for arguments that are plain values.

    These are `nn.Module` and classes of this package and of trusted ones. Tensors are excluded, because many functions
    of torchvision return one, among them write_file.
    """
    own = ("visual_transformers.", *(f"{package}." for package in trust))
    return tuple(
        part
        for part in hinted(target, key)
        if inspect.isclass(part) and (issubclass(part, base_class(MODULE)) or f"{part.__module__}.".startswith(own))
    )


def hinted(target: Callable[..., Any], key: str) -> tuple[Any, ...]:
    """Return the types of an argument, the members of a union one by one."""
    hint = type_hints(target).get(key)
    return typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)


def takes(target: Callable[..., Any], key: str, value: Any) -> bool:
    """Return True if a plain value, e.g. null, fits an argument that otherwise needs a nested target."""
    return any(part in PLAIN and isinstance(value, part) for part in hinted(target, key) if inspect.isclass(part))


PLAIN = (bool, int, float, str, list, dict, type(None))
"""Classes of plain values."""


@contextmanager
def blamed_on(path: str, problem: str) -> Iterator[None]:
    """Turn any error inside into one that names the settings at `path`; a `UserError` passes unchanged.

    Raises:
        ConfigError: from the error; HYDRA_FULL_ERROR=1 shows its traceback.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise ConfigError(f"{path}: {problem}: {str(error) or type(error).__name__}") from error


def allowed_object(target: Any, path: str, kind: Kind = (), trust: Sequence[str] = ()) -> Callable[..., Any]:
    """Import the object that a `_target_` names.

    Args:
        target: its dotted name.
        path: key of the node, for messages.
        kind: required class of what it returns; empty for that of the group at the start of `path`.
        trust: trusted packages of the user.

    Raises:
        ConfigError: before the import if the package is not allowed; after it if the name leads out of the package
            (e.g. `visual_transformers.cli.main.os.system`) or the object returns another kind.
    """
    kind = kind or kind_of(path)
    if not isinstance(target, str) or not target:
        raise ConfigError(f"{path}._target_={target}: expected the dotted name of a class or function")
    allowed = (*ALLOWED_TARGETS, *(f"{package}." for package in trust))
    if not target.startswith(allowed) or target.startswith(DENIED):
        raise ConfigError(f"{path}._target_={target}: {_not_trusted(target)}")
    if not target.startswith(ALLOWED_TARGETS):
        _look_in_the_current_folder()
    try:
        found = get_object(target)
    except Exception as error:
        raise ConfigError(f"{path}._target_={target}: cannot be imported ({error}){_hint(target)}") from error
    home = f"{getattr(unwrapped(found), '__module__', '')}."
    if not home.startswith(allowed) or f"{home}{target}".startswith(DENIED) or not callable(found):
        raise ConfigError(f"{path}._target_={target}: is not a class or function of an allowed package")
    if not returns_kind(found, kind, trusted=not home.startswith(ALLOWED_TARGETS)):
        raise ConfigError(f"{path}._target_={target}: {_needed(path, kind)}")
    return found


def returns_kind(found: Callable[..., Any], kind: Kind, *, trusted: bool) -> bool:
    """Return True if an object is a class of a kind or a function annotated to return one.

    A trusted function may lack the annotation; `build` checks its result.
    """
    made = unwrapped(found)
    if not inspect.isclass(made):
        if made.__name__ == "create_model" and made.__module__.startswith("timm."):  # has no annotation before 1.0
            return any(issubclass(base_class(MODULE), base) for base in kind)
        made = type_hints(made).get("return")
        if trusted and made is None:
            return True
    return inspect.isclass(made) and issubclass(made, kind)


def _needed(path: str, kind: Kind) -> str:
    """Return the end of a message that says which kind a key needs."""
    return f"{path} must name a class or function that returns a {' or '.join(base.__name__ for base in kind)}"


def _not_trusted(target: str) -> str:
    """Return the message for a target outside the allowed packages."""
    package = target.partition(".")[0]
    return (
        f"not in an allowed package ({', '.join(p + '*' for p in ALLOWED_TARGETS)}). If you trust the code of "
        f"{package}, add trust=[{package}]."
    )


def _look_in_the_current_folder() -> None:
    """Make packages in the current folder importable, as `python -m` does, however the program was started."""
    here = str(Path.cwd())
    if not {here, ""} & set(sys.path):
        sys.path.append(here)


def _hint(target: str) -> str:
    """Return how to install timm if a target needs it."""
    missing = target.startswith("timm.") and importlib.util.find_spec("timm") is None
    return ". Install it with pip install 'visual-transformers[timm]'." if missing else ""


def trusted(listed: Sequence[str]) -> list[str]:
    """Return the packages of the key `trust` and of the environment variable `TRUST_VARIABLE`.

    Raises:
        ConfigError: if one is no valid package name.
    """
    named = [*listed, *filter(None, re.split(r"[,\s]+", os.environ.get(TRUST_VARIABLE, "")))]
    for package in named:
        if not all(part.isidentifier() for part in package.split(".")):
            raise ConfigError(
                f"trust={package}: expected a package name, e.g. trust=[mypackage] or {TRUST_VARIABLE}=mypackage"
            )
    return list(dict.fromkeys(named))


TRUST_VARIABLE = "VISUAL_TRANSFORMERS_TRUST"
"""Environment variable with trusted packages, separated by commas."""


def targets_in(node: Any) -> Iterator[str]:
    """Yield every `_target_` in a node, at any depth."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "_target_":
                yield str(value)
            else:
                yield from targets_in(value)
    elif isinstance(node, list):
        for value in node:
            yield from targets_in(value)


@cache
def type_hints(target: Callable[..., Any]) -> dict[str, Any]:
    """Return the annotations of a callable's arguments, without ranges; empty if they cannot be resolved."""
    return {key: without_limits(hint)[0] for key, hint in annotated_hints(target).items()}


def not_set(path: str) -> str:
    """Return the message for a key that is ???."""
    return f"{path} is not set. Add {path}=VALUE to the command line."
