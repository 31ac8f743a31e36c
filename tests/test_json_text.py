"""Strict JSON: non-finite numbers become null."""

from __future__ import annotations

import json
import math

from hypothesis import given, settings
from hypothesis import strategies as st

from visual_transformers import json_text

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def refuse(name: str) -> None:
    raise ValueError(name)


@settings(deadline=None)
@given(PLAIN)
def test_every_value_is_written_as_strict_json(value):
    json.loads(json_text.dumps(value), parse_constant=refuse)


@settings(deadline=None)
@given(st.floats(allow_nan=False, allow_infinity=False))
def test_finite_numbers_are_read_back_unchanged(value):
    assert json.loads(json_text.dumps(value)) == value


def test_non_finite_numbers_are_null():
    value = {"a": math.nan, "b": [math.inf, 1.5, (-math.inf,)]}
    assert json_text.dumps(value) == '{"a": null, "b": [null, 1.5, [null]]}'
