"""JSON that every reader takes."""

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
def test_no_number_is_written_that_json_has_not(value):
    json.loads(json_text.dumps(value), parse_constant=refuse)


@settings(deadline=None)
@given(st.floats(allow_nan=False, allow_infinity=False))
def test_finite_numbers_come_back_as_they_are(value):
    assert json.loads(json_text.dumps(value)) == value


def test_what_is_not_finite_is_null():
    value = {"a": math.nan, "b": [math.inf, 1.5, (-math.inf,)]}
    assert json_text.dumps(value) == '{"a": null, "b": [null, 1.5, [null]]}'
