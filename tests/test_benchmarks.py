"""The benchmarks still run on the modules as they are; their figures are not tested."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

PATH = Path(__file__).parents[1] / "benchmarks" / "reassociation.py"
spec = importlib.util.spec_from_file_location("reassociation", PATH)
reassociation = importlib.util.module_from_spec(spec)
spec.loader.exec_module(reassociation)


@pytest.mark.parametrize("design", reassociation.DESIGNS)
def test_the_two_ways_that_are_timed_compute_the_same(design):
    literal, reassociated = (
        reassociation.TokenizeAndProject(*reassociation.DESIGNS[design], reassociate=way) for way in (False, True)
    )
    pixels = torch.randn(2, 64, reassociation.CHANNELS)
    torch.testing.assert_close(literal(pixels, 8), reassociated(pixels, 8), rtol=1e-4, atol=1e-5)
