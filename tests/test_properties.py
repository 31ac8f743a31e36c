"""What must hold of any input, tried on a few; `make fuzz` tries more."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

from tests.support.properties import PROPERTIES

QUICK = settings(
    max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None
)


@pytest.mark.parametrize("name", PROPERTIES)
def test_a_property_holds_of_a_few_inputs(name):
    QUICK(PROPERTIES[name])()
