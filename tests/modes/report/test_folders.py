"""Search for the folders of runs."""

from __future__ import annotations

import json
import os

import pytest

from visual_transformers.modes.report.folders import find_runs


@pytest.fixture
def found(tmp_path):
    """Search below `tmp_path`, and return relative paths."""

    def look(*roots: str) -> dict[str, list[str]]:
        everything = find_runs([tmp_path / root for root in roots or [""]], exclude=tmp_path / "nowhere")
        return {kind: [str(path.relative_to(tmp_path)) for path in paths] for kind, paths in vars(everything).items()}

    return look


def test_runs_are_found_at_any_depth_and_jobs_in_the_order_of_their_numbers(leave, found):
    for folder in ("runs/a", "runs/of/mine/b", "sweeps/lr/10", "sweeps/lr/9"):
        leave(folder, 0.5)
    assert found("runs", "sweeps")["runs"] == ["runs/a", "runs/of/mine/b", "sweeps/lr/9", "sweeps/lr/10"]


@pytest.mark.parametrize("inside", ["earlier-1", "checkpoints", "test", "predict/masks", ".hydra", "profile"])
def test_what_is_kept_within_a_run_is_no_run(leave, found, inside):
    leave("run", 0.5)
    leave(f"run/{inside}", 0.5)
    assert found()["runs"] == ["run"]


@pytest.mark.parametrize("name", ["test", "profile"])
def test_a_training_may_be_called_as_a_mode_s_folder_is(leave, found, name):
    leave(f"runs/{name}", 0.5)
    assert found()["runs"] == [f"runs/{name}"]


def test_the_status_of_another_mode_is_no_training(found, tmp_path):
    place = tmp_path / "sweeps/costs/0/profile"
    place.mkdir(parents=True)
    (place / "status.json").write_text(json.dumps({"state": "finished", "score": None}))
    assert found() == {"runs": [], "foreign": ["."], "unreadable": []}


def test_a_run_inside_another_s_folder_is_found_too(leave, found):
    leave("a", 0.5)
    leave("a/b", 0.5)
    assert found()["runs"] == ["a", "a/b"]


@pytest.mark.parametrize("file", ["metrics.jsonl", "status.json"])
def test_an_early_death_leaves_enough_to_be_found(tmp_path, found, file):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / file).write_text('{"state": "failed"}')
    assert found()["runs"] == ["run"]


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"state": "sold"}', "\ufffd" * 9, '{"state": 3}'])
def test_a_status_that_is_not_ours_makes_no_run(tmp_path, found, content):
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "status.json").write_text(content)
    assert found()["runs"] == []
    assert found()["foreign"] == ["."]


def test_foreign_folders_are_named_by_the_uppermost_without_a_run(leave, tmp_path, found):
    leave("runs/a", 0.5)
    for folder in ("runs/notes/2026/may", "runs/pictures"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "file").touch()
    (tmp_path / "runs" / "empty").mkdir()
    assert found()["foreign"] == ["runs/notes", "runs/pictures"]


def test_links_are_followed_and_each_folder_is_read_once(leave, tmp_path, found):
    leave("disk/a", 0.5)
    (tmp_path / "runs").mkdir()
    for name, target in {"link": "../disk", "again": "../disk", "circle": "../runs", "self": "self"}.items():
        (tmp_path / "runs" / name).symlink_to(target)
    assert found("runs")["runs"] == ["runs/again/a"]
    assert found("runs", "disk", "runs/link")["runs"] == ["runs/again/a"]


def test_a_folder_that_may_not_be_read_is_named(leave, found, monkeypatch):
    leave("runs/a", 0.5)
    leave("runs/secret", 0.5)
    scandir = os.scandir

    def refused(path):
        if str(path).endswith("secret"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr("os.scandir", refused)
    assert found() == {"runs": ["runs/a"], "foreign": [], "unreadable": ["runs/secret"]}


def test_earlier_reports_and_the_one_at_hand_are_passed_over(leave, tmp_path):
    leave("runs/a", 0.5)
    for name in ("report", "now"):
        (tmp_path / "runs" / name).mkdir()
        (tmp_path / "runs" / name / ".hydra").mkdir()
    (tmp_path / "runs" / "report" / "report.html").touch()
    everything = find_runs([tmp_path / "runs"], exclude=tmp_path / "runs" / "now")
    assert (everything.runs, everything.foreign) == ([tmp_path / "runs" / "a"], [])
