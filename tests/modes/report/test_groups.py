"""Grouping of runs, and the numbers and labels of groups."""

from __future__ import annotations

import statistics

import pytest

from visual_transformers.config.diff import digest
from visual_transformers.modes.report.groups import group_runs
from visual_transformers.modes.report.run import Run


@pytest.fixture
def groups(leave, tmp_path):
    """Group the runs below `tmp_path`."""

    def read() -> list:
        return group_runs(Run.read(path) for path in sorted(tmp_path.iterdir()))

    return read


def test_seeds_make_a_row_with_their_mean_and_sample_deviation(leave, groups):
    bests = [0.71, 0.74, 0.72]
    for seed, best in enumerate(bests):
        leave(f"run{seed}", 0.5, best, 0.6, seed=seed)
    (group,) = groups()
    assert group.score.mean == pytest.approx(statistics.mean(bests), rel=1e-12)
    assert group.score.std == pytest.approx(statistics.stdev(bests), rel=1e-12)


def test_a_single_seed_has_no_deviation(leave, groups):
    leave("run", 0.5)
    assert groups()[0].score == (0.5, None)


def test_only_finished_runs_count_and_the_others_are_listed(leave, groups):
    leave("a", 0.5, seed=0)
    leave("b", 0.9, seed=1, state="stopped")
    leave("c", seed=2, state="queued")
    leave("d", 0.9, seed=3, state="failed")
    (group,) = groups()
    assert group.score == (0.5, None)
    assert group.states == {"finished": 1, "stopped": 1, "queued": 1, "failed": 1}


def test_of_two_runs_with_one_seed_the_later_counts(leave, groups):
    leave("a", 0.6, seed=1, at="2026-01-02T00:00:00+00:00")
    leave("b", 0.5, seed=1, at="2026-01-01T00:00:00+00:00")
    leave("c", 0.8, seed=2)
    (group,) = groups()
    assert group.score.mean == pytest.approx(0.7)
    assert [run.name for run in group.duplicates] == ["b"]


@pytest.mark.parametrize(
    "differs", [{"settings": "other"}, {"classes": 5}, {"training_samples": 9}, {"metric": "top5"}]
)
def test_runs_that_cannot_be_averaged_are_rows_of_their_own(leave, groups, differs):
    leave("a", 0.5, seed=0)
    leave("b", 0.5, seed=1, **differs)
    assert len(groups()) == 2


def test_weights_to_start_from_tell_runs_apart_and_where_they_lie_on_disk_does_not():
    plain = {"seed": 0, "name": "a", "weights": {"file": None}, "data": {"root": "/a"}, "report": {"compare": None}}
    assert digest(plain) == digest(plain | {"seed": 1, "name": "b", "data": {"root": "/b"}, "report": {}})
    assert digest(plain) != digest(plain | {"weights": {"file": "torchvision:ResNet18_Weights.IMAGENET1K_V1"}})


def test_a_band_reaches_from_the_lowest_to_the_highest_seed(leave, groups):
    leave("a", 0.1, 0.5, seed=0)
    leave("b", 0.3, 0.4, seed=1)
    leave("c", 0.9, 0.9, seed=2, state="stopped")
    band = groups()[0].compute_band(lambda run: run.records.get_validation("top1"))
    assert (band.epoch.tolist(), band.low.tolist(), band.high.tolist()) == ([1, 2], [0.1, 0.4], [0.3, 0.5])
    assert band.mean.tolist() == pytest.approx([0.2, 0.45])


def test_rows_are_sorted_by_data_and_the_best_stands_first(leave, groups):
    leave("a", 0.5, data="pets", settings="1")
    leave("b", 0.5, data="camvid", settings="2")
    leave("c", 0.6, data="camvid", settings="3")
    leave("d", 0.55, data="camvid", settings="4", state="stopped")
    assert [group.runs[0].name for group in groups()] == ["c", "d", "b", "a"]


def test_rows_of_one_name_are_told_apart_by_the_settings_in_which_they_differ(leave, groups):
    def config(lr: float, seed: int) -> dict:
        return {
            "optimizer": {"lr": lr, "nesterov": True},
            "seed": seed,
            "name": str(seed),
            "hardware": {"workers": seed},
        }

    leave("a", 0.7, settings="1", config=config(0.1, 0))
    leave("b", 0.6, settings="2", config=config(0.01, 1))
    leave("c", 0.5, settings="3", model="vt_resnet18", config=config(0.2, 2))
    assert [group.settings for group in groups()] == ["optimizer.lr=0.1", "optimizer.lr=0.01", ""]


def test_another_optimizer_is_named_without_the_keys_that_the_other_does_not_have(leave, groups):
    leave("a", 0.7, settings="1", config={"optimizer": {"_target_": "torch.optim.SGD", "lr": 0.1, "nesterov": True}})
    leave("b", 0.6, settings="2", config={"optimizer": {"_target_": "torch.optim.AdamW", "lr": 0.1, "eps": 1e-8}})
    assert [group.settings for group in groups()] == ["optimizer=SGD", "optimizer=AdamW"]


@pytest.mark.parametrize("config", [{}, None])
def test_rows_that_no_setting_tells_apart_still_have_names_of_their_own(leave, groups, config):
    leave("a", 0.7, training_samples=10, config=config)
    leave("b", 0.6, training_samples=20, config=config)
    assert [group.settings for group in groups()] == ["(10 images)", "(20 images)"]
