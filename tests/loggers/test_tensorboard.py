"""TensorBoard's event files, read by TensorBoard's own reader."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tests.support.wandb_sessions import info, killed_session, records, session, wait_for_the_next_second

from visual_transformers.errors import ConfigError, Interrupted
from visual_transformers.loggers import Files, Logger, Loggers, TensorBoard
from visual_transformers.loggers.records import rename_for_charts


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Read all points of all curves, without TensorBoard's sampling."""
    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def expected(last: int) -> dict[str, list]:
    """Return the curves of the records up to a step."""
    found: dict[str, list] = {}
    for record in records(0, last):
        shared = {"epoch", "lr"} if record["kind"] == "epoch" else set()
        for name, value in rename_for_charts(record).items():
            if name not in {"kind", "step", *shared}:
                found.setdefault(name, []).append((record["step"], pytest.approx(value, rel=1e-6)))
    return found


def test_every_record_is_a_point_and_training_scores_of_epochs_have_their_own_curves(tmp_path):
    session(TensorBoard(), info(tmp_path), 12)
    assert curves(tmp_path) == expected(12)
    assert curves(tmp_path)["train/loss"][4] == (5, pytest.approx(1 / 5))
    assert curves(tmp_path)["train_epoch/loss"][0] == (5, pytest.approx(2 / 5))


@pytest.mark.parametrize("saved", [0, 10, 11, 12])
def test_a_killed_and_resumed_run_has_each_point_once(tmp_path, saved):
    killed_session(TensorBoard(), info(tmp_path), 12, when=lambda: True)
    session(TensorBoard(), info(tmp_path, step=saved), 13, Interrupted("stopped"))
    session(TensorBoard(), info(tmp_path, step=13), 20)
    assert curves(tmp_path) == expected(20)


def test_an_epoch_that_is_scored_again_has_each_point_once(tmp_path):
    """The run was killed after the epoch's record and before the checkpoint that follows it."""
    killed_session(TensorBoard(), info(tmp_path), 10, when=lambda: True)
    wait_for_the_next_second(tmp_path)
    again = replace(info(tmp_path, step=10), evaluated_step=5)
    with Loggers([Files(curves=False), TensorBoard()], again) as log:
        for record in records(0, 12):
            if record["step"] > 10 or (record["step"] == 10 and record["kind"] == "epoch"):
                log.record(record)
    assert curves(tmp_path) == expected(12)


def test_without_metrics_jsonl_the_points_up_to_the_saved_step_stay(tmp_path):
    for first, last in ((0, 10), (10, 15)):
        wait_for_the_next_second(tmp_path)
        with Loggers([TensorBoard()], info(tmp_path, step=first)) as log:
            for record in records(first, last):
                log.record(record)
    assert curves(tmp_path) == expected(15)


def test_a_logger_that_was_added_later_has_the_earlier_records(tmp_path):
    session(Logger(), info(tmp_path), 12)
    session(TensorBoard(), info(tmp_path, step=12), 15)
    assert curves(tmp_path) == expected(15)


def test_without_tensorboard_the_configuration_is_refused_with_what_to_install(composed, monkeypatch):
    from visual_transformers.config.validation import validate

    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "tensorboard" else sys)
    with pytest.raises(ConfigError, match=r"logger=tensorboard: .* pip install 'visual-transformers\[tensorboard\]'"):
        validate(composed("logger=[files,tensorboard]"))
