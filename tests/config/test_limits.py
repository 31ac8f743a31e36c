"""Ranges of the annotations of a signature."""

from __future__ import annotations

from typing import Annotated, Literal

import pytest
from annotated_types import Ge, Lt, MinLen

from visual_transformers.config.limits import out_of_range, without_limits


@pytest.mark.parametrize(
    ("annotation", "plain", "limits"),
    [
        (int, int, []),
        (Annotated[int, Ge(1)], int, [Ge(1)]),
        (Annotated[int, Ge(1)] | None, int | None, [Ge(1)]),
        (Annotated[str, MinLen(1)] | None, str | None, [MinLen(1)]),
        (Annotated[list[Literal["a", "b"]], MinLen(1)], list[Literal["a", "b"]], [MinLen(1)]),
        (Annotated[float, "metres", Ge(0), Lt(1)], float, [Ge(0), Lt(1)]),
    ],
)
def test_an_annotation_is_split_into_its_type_and_its_limits(annotation, plain, limits):
    assert without_limits(annotation) == (plain, limits)


@pytest.mark.parametrize("value", [0, -1, 0.5, float("nan"), float("inf"), float("-inf")])
def test_a_number_outside_its_range_is_named_with_the_range(value):
    limits = without_limits(Annotated[float, "metres", Ge(1)])[1]
    (problem,) = out_of_range("my.key", value, limits)
    assert problem.startswith(f"my.key={value}: must be at least 1")


@pytest.mark.parametrize("value", [1, 2.5, True, None, "x"])
def test_other_values_are_within_a_range(value):
    assert [*out_of_range("my.key", value, [Ge(1)])] == []
