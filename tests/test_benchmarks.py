"""The benchmarks still run on the modules as they are; their figures are not tested."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

from visual_transformers.config.schema import ReportSettings
from visual_transformers.modes.report import read


def benchmark(name):
    path = Path(__file__).parents[1] / "benchmarks" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    return module


NAMES = ("reassociation", "loading", "index_memory", "report", "token_scale")
reassociation, loading, index_memory, report, token_scale = map(benchmark, NAMES)


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


def test_the_scale_of_tokens_is_measured_for_each_level_in_the_steps_asked_for(tiny_scenes, tmp_path):
    run = token_scale.Trainer.build(tiny_scenes("model.zero_init=true"), token_scale.RunDirectory(tmp_path))
    rows = token_scale.measured(run, every=2, steps=4)
    assert [row["step"] for row in rows] == ["1", "3", "4"]
    assert rows[0]["mean"] == rows[0]["variation"] == "0 0 0 0"  # projectors that start at zero
    assert all(float(value) > 0 for value in rows[-1]["mean"].split())
    assert all(0 < float(value) <= 1 for row in rows for value in row["entropy"].split())


def test_uniform_attention_has_a_relative_entropy_of_one():
    tokenizer = reassociation.FilterTokenizer(reassociation.VTDesign(tokens=4, token_channels=16, group_width=8), 8)
    torch.nn.init.zeros_(tokenizer.filters.weight)
    inputs = (torch.randn(2, 9, 8), (3, 3), None)
    assert token_scale.of_tokenizer(tokenizer, inputs, tokenizer(*inputs))["entropy"] == pytest.approx(1, abs=1e-6)


def test_what_a_projector_adds_is_split_into_its_mean_over_space_and_its_variation():
    pixels, added = torch.randn(2, 50, 8), torch.tensor([3.0, -1.0] * 25)[None, :, None].expand(2, 50, 8)
    projector = torch.nn.Module()
    projector.skip = torch.nn.Identity()
    found = token_scale.of_projector(projector, (pixels, None), pixels + added)
    assert (found["mean"], found["variation"]) == (pytest.approx(1), pytest.approx(2))
    assert found["pixels"] == pytest.approx(float(pixels.std(dim=1, correction=0).square().mean().sqrt()))
