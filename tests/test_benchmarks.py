"""The benchmarks still run on the modules as they are; their figures are not tested."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

from visual_transformers.report.mode import read
from visual_transformers.settings import ReportSettings


def benchmark(name):
    path = Path(__file__).parents[1] / "benchmarks" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    return module


reassociation, loading, index_memory, report = map(benchmark, ("reassociation", "loading", "index_memory", "report"))


@pytest.mark.parametrize("design", reassociation.DESIGNS)
def test_the_two_ways_that_are_timed_compute_the_same(design):
    literal, reassociated = (
        reassociation.TokenizeAndProject(*reassociation.DESIGNS[design], reassociate=way) for way in (False, True)
    )
    pixels = torch.randn(2, 64, reassociation.CHANNELS)
    torch.testing.assert_close(literal(pixels, 8), reassociated(pixels, 8), rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = loading.photographs(tmp_path_factory.mktemp("photographs"), count=4)
    return sorted(folder.iterdir())


@pytest.mark.parametrize("work", loading.works(), ids=lambda work: work.name)
def test_both_ways_of_loading_see_the_same_crops(pictures, work):
    batches = [list(loading.batches(pictures, way)) for way in (work.plain, work.ours)]
    assert [images.shape for images, _ in batches[0]] == [images.shape for images, _ in batches[1]]
    if work.same_crops:
        assert loading.levels_apart(pictures, work).mean() < (4.0 if "64" in work.name else 0.1)


def test_both_ways_of_holding_names_have_all_of_them(monkeypatch):
    monkeypatch.setattr(index_memory, "CLASSES", 2)
    monkeypatch.setattr(index_memory, "PER_CLASS", 3)
    index, pairs = (make() for make in index_memory.WAYS.values())
    assert [str(path) for path in index] == [path for path, _ in pairs]


def test_the_runs_of_the_report_s_benchmark_become_rows_of_five_seeds(tmp_path):
    report.make(tmp_path / "runs", runs=30, epochs=2)
    contents = read(ReportSettings(folders=[str(tmp_path / "runs")], compare=None, published=True), tmp_path / "report")
    assert [len(group.runs) for group in contents.groups] == [report.SEEDS] * 6
    assert {run.state for run in contents.runs} == {"finished", "stopped"}
    assert {len(run.records.epoch) for run in contents.runs} == {2}
    assert len(contents.comparisons) == 2
