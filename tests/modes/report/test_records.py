"""Reading of metrics.jsonl, compared with a plain JSON reader."""

from __future__ import annotations

import json
import statistics

import numpy as np
import pytest

from visual_transformers import runner
from visual_transformers.modes.report import records
from visual_transformers.modes.report.run import Run


@pytest.fixture
def path(tmp_path):
    return tmp_path / "metrics.jsonl"


def epoch(number: float, **scores: object) -> str:
    return json.dumps({"kind": "epoch", "step": int(number), "epoch": number, "lr": 0.1} | scores) + "\n"


@pytest.mark.slow
def test_the_records_of_a_real_run_are_those_that_a_plain_reader_finds(tiny, tmp_path):
    runner.train(tiny("training.ema_decay=0.9"), tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    epochs = [line for line in lines if line["kind"] == "epoch"]
    found = records.read(tmp_path / "metrics.jsonl", "top1")
    assert found.epoch.tolist() == [line["epoch"] for line in epochs] == [1.0, 2.0]
    for name in ("train/loss", "val/loss", "train/top1", "val/top1", "val_ema/top1"):
        assert found[name].tolist() == [line[name] for line in epochs]
    assert found.get_validation("top1").tolist() == [max(line["val/top1"], line["val_ema/top1"]) for line in epochs]
    paces = [line["images_per_second"] for line in lines if line["kind"] == "step"]
    assert records.read_images_per_second(tmp_path / "metrics.jsonl") == statistics.median(paces)
    assert Run.read(tmp_path).best.score == max(found.get_validation("top1"))


def test_the_pace_is_that_of_the_end_of_the_file(path):
    def steps(count: int, pace: float) -> str:
        return "".join(json.dumps({"kind": "step", "step": i, "images_per_second": pace}) + "\n" for i in range(count))

    path.write_text(steps(1000, 5.0) + steps(1000, 80.0))
    assert records.read_images_per_second(path) == 80.0


@pytest.mark.parametrize(
    "tail", ['{"kind": "epoch", "step": 3, "ep', '{"kind": "epoch", "step": 3, "epoch": 3.0}', "\x00"]
)
def test_a_torn_last_line_is_passed_over(path, tail):
    path.write_text(epoch(1.0, **{"val/top1": 0.5}) + epoch(2.0, **{"val/top1": 0.7}) + tail)
    assert records.read(path, "top1")["val/top1"].tolist() == [0.5, 0.7]


def test_a_broken_line_in_the_middle_costs_that_line_alone(path):
    path.write_text(epoch(1.0, **{"val/top1": 0.5}) + '{"kind": "epoch", oh\n' + epoch(3.0, **{"val/top1": 0.7}))
    assert records.read(path, "top1").epoch.tolist() == [1.0, 3.0]


@pytest.mark.parametrize("value", ["high", None, [1], {"a": 1}, float("nan"), float("inf"), 10**400])
def test_a_score_that_is_no_finite_number_is_none(path, value):
    path.write_text(epoch(1.0, **{"val/top1": value}) + epoch(2.0, **{"val/top1": 0.7}))
    np.testing.assert_array_equal(records.read(path, "top1")["val/top1"], [np.nan, 0.7])


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00rubbish\n" * 99, b'{"kind": "step"}\n', b'{"kind": "epoch"}\n'])
def test_a_file_without_epochs_has_none(path, content):
    path.write_bytes(content)
    found = records.read(path, "top1")
    assert (len(found.epoch), len(found["val/top1"]), records.read_images_per_second(path)) == (0, 0, None)


def test_no_file_is_no_records(path):
    assert (len(records.read(path, "top1").epoch), records.read_images_per_second(path)) == (0, None)
