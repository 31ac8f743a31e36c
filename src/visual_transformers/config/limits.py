"""Ranges and choices of values, from the annotations of the signature that declares a key.

`Annotated[int, Ge(1)]` is a range (annotated-types), `Literal["a", "b"]` a choice.
"""

from __future__ import annotations

import inspect
import math
import types
import typing
from collections.abc import Callable, Iterator, Sequence, Sized
from dataclasses import is_dataclass
from functools import cache, partial
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Lt, MinLen
from omegaconf import ListConfig

WORDS = {Ge: "at least", Gt: "above", Le: "at most", Lt: "below"}
LIMITS = (*WORDS, MinLen)
"""Annotations that are checked; any other one, e.g. of a user's class, says nothing about the range."""


@cache
def annotated_hints(target: Callable[..., Any]) -> dict[str, Any]:
    """Return the annotations of a callable's arguments with their ranges; empty if they cannot be resolved."""
    target = unwrapped(target)
    holder = target if is_dataclass(target) or not inspect.isclass(target) else target.__init__  # type: ignore[misc]
    try:
        return typing.get_type_hints(holder, include_extras=True)
    except (NameError, TypeError):  # names that only a type checker sees
        return {}


def unwrapped(found: Any) -> Any:
    """Return the function or class behind a partial, e.g. behind `models.vt_resnet18`."""
    return found.func if isinstance(found, partial) else found


def without_limits(annotation: Any) -> tuple[Any, list[Any]]:
    """Split an annotation into its type and its limits, also for `Annotated[int, Ge(1)] | None`."""
    if typing.get_origin(annotation) is Annotated:
        plain, *others = typing.get_args(annotation)
        return plain, [limit for limit in others if isinstance(limit, LIMITS)]
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        plains, limits = zip(*map(without_limits, typing.get_args(annotation)), strict=True)
        return typing.Union[plains], [limit for of_part in limits for limit in of_part]  # noqa: UP007
    return annotation, []


def literals(annotation: Any) -> tuple[Any, ...]:
    """Return the choices of a `Literal`, or of a list of them; empty for other types."""
    if typing.get_origin(annotation) is list:
        (annotation,) = typing.get_args(annotation)
    return typing.get_args(annotation) if typing.get_origin(annotation) is Literal else ()


def out_of_range(name: str, value: Any, limits: Sequence[Any]) -> Iterator[str]:
    """Yield a problem if a value is outside its limits; a float must also be finite."""
    shortest = max((limit.min_length for limit in limits if isinstance(limit, MinLen)), default=0)
    if isinstance(value, Sized) and len(value) < shortest:
        yield f"{name} is empty. Name {'one or more' if isinstance(value, ListConfig) else 'one'}, or leave it out."
    if isinstance(value, bool) or not isinstance(value, int | float) or not limits:
        return
    if math.isfinite(value) and all(_holds(limit, value) for limit in limits):
        return
    finite = ", and finite" if isinstance(value, float) and not any(isinstance(x, Le | Lt) for x in limits) else ""
    yield f"{name}={value}: must be {describe_limits(limits)}{finite}"


def describe_limits(limits: Sequence[Any]) -> str:
    """Return a range in words, e.g. `at least 0 and below 1`."""
    return " and ".join(f"{WORDS[type(limit)]} {_bound(limit)}" for limit in limits if type(limit) in WORDS)


def _holds(limit: Any, value: float) -> bool:
    bound = _bound(limit)
    return {Ge: value >= bound, Gt: value > bound, Le: value <= bound, Lt: value < bound}[type(limit)]


def _bound(limit: Any) -> Any:
    """Return the number of a limit, whose field has the limit's name in lower case."""
    return getattr(limit, type(limit).__name__.lower())
