"""From a `_target_` to the object that it names, guarded by an allow-list, and to what that makes of its keys."""

from __future__ import annotations

import importlib.util
import inspect
import typing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from hydra.utils import get_object, instantiate
from omegaconf import MISSING

from visual_transformers.errors import ConfigError, UserError
from visual_transformers.settings import Node

ALLOWED_TARGETS = ("visual_transformers.", "torch.nn.", "torch.optim.", "torchvision.", "timm.")


def build(node: Node, path: str, **supplied: Any) -> Any:
    """What the node's `_target_` makes of the node's keys and of what the caller supplies.

    Raises:
        ConfigError: if the target is not allowed, a key is ???, or the target refuses its arguments.
    """
    for target in targets_in(node):
        allowed_object(target, path)
    if missing := [not_set(f"{path}.{key}") for key, value in node.items() if value == MISSING]:
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
        raise ConfigError(f"{path}._target_={target}: cannot be imported ({error}){_hint(target)}") from error
    home = f"{getattr(unwrapped(found), '__module__', '')}."
    if not home.startswith(ALLOWED_TARGETS) or not callable(found):
        raise ConfigError(f"{path}._target_={target}: is not a class or function of an allowed package")
    return found


def _hint(target: str) -> str:
    """How to get the optional package that a target is of, where that is missing."""
    missing = target.startswith("timm.") and importlib.util.find_spec("timm") is None
    return "; pip install 'visual-transformers[timm]' brings it" if missing else ""


def unwrapped(found: Any) -> Any:
    """The function or class behind a partial one, as `models.vt_resnet18` is."""
    return found.func if isinstance(found, partial) else found


def targets_in(node: Any) -> Iterator[str]:
    """Every `_target_` in a node, however deep."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "_target_":
                yield str(value)
            else:
                yield from targets_in(value)
    elif isinstance(node, list):
        for value in node:
            yield from targets_in(value)


def type_hints(target: Callable[..., Any]) -> dict[str, Any]:
    """Types of the arguments, where they can be told."""
    target = unwrapped(target)
    try:
        return typing.get_type_hints(target.__init__ if inspect.isclass(target) else target)  # type: ignore[misc]
    except (NameError, TypeError):  # names that only a type checker sees
        return {}


def not_set(path: str) -> str:
    """What is said of a key that is ???."""
    return f"{path} is not set; give it on the command line as {path}=VALUE"
