"""A killed run ends like an uninterrupted one, and the comparison would find any difference."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tests.support.killing import Aim, kill_and_compare
from tests.support.run_differences import differences
from tests.support.watching import EVALUATING, SAVING, STEP

AIMS = [Aim(signal.SIGKILL, STEP), Aim(signal.SIGTERM, EVALUATING), Aim(signal.SIGUSR2, SAVING)]


@pytest.mark.slow
def test_a_run_killed_in_a_step_an_evaluation_and_a_checkpoint_ends_as_the_uninterrupted_one(tmp_path):
    campaign = kill_and_compare(tmp_path, AIMS, epochs=3)
    campaign.print()
    assert campaign.faults == []
    assert [Aim(kill.number, kill.moment.phase) for kill in campaign.kills] == AIMS


RECORDS = [
    {"kind": "step", "step": 3, "train/loss": 2.5, "images_per_second": 100.0},
    {"kind": "step", "step": 6, "train/loss": 1.5, "images_per_second": 101.0},
    {"kind": "epoch", "step": 6, "val/loss": 0.1, "val/top1": 0.5},
]


def a_run(folder: Path, *, pace: float = 1.0) -> Path:
    """Make the folder of a finished run, with few numbers."""
    (folder / "checkpoints").mkdir(parents=True)
    weights = {"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.tensor(float("nan"))}
    optimizer = {"state": {0: {"momentum_buffer": torch.ones(3)}}, "param_groups": [{"lr": 0.1}]}
    state = {"model": weights, "optimizer": optimizer, "step": 6, "seconds": pace}
    torch.save(state, folder / "checkpoints" / "last.pt")
    save_file(weights, folder / "checkpoints" / "best.safetensors", {"best": json.dumps({"top1": 0.5})})
    write_records(folder, [r | ({"images_per_second": pace} if r["kind"] == "step" else {}) for r in RECORDS])
    (folder / "metrics.csv").write_text("step,val/top1\n6,0.5\n")
    (folder / "classes.csv").write_text("class,recall\n0,0.5\n")
    summary = {"name": "run", "train_seconds": pace, "scores": {"top1": 0.5, "top5": float("nan")}}
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def write_records(folder: Path, records: list[dict]) -> None:
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))


@pytest.fixture
def two_runs(tmp_path):
    return a_run(tmp_path / "whole"), a_run(tmp_path / "killed", pace=2.0)


def compare(two_runs) -> str:
    whole, killed = two_runs
    return "\n".join(line.removeprefix(f"{killed}: ") for line in differences(whole, killed))


def test_runs_that_differ_only_in_times_are_equal(two_runs):
    assert compare(two_runs) == ""


@pytest.mark.parametrize("part", ["model", "optimizer"])
def test_one_bit_in_the_last_checkpoint_is_found(two_runs, part):
    path = two_runs[1] / "checkpoints" / "last.pt"
    state = torch.load(path, weights_only=True)
    number = state["model"]["weight"][1] if part == "model" else state["optimizer"]["state"][0]["momentum_buffer"]
    number[2:] = torch.nextafter(number[2:], torch.tensor(9.0))
    torch.save(state, path)
    name = "weight" if part == "model" else "state: 0: momentum_buffer"
    numbers = 6 if part == "model" else 3
    assert compare(two_runs) == f"checkpoints/last.pt: {part}: {name}: 1 of {numbers} numbers differ"


def test_a_key_that_only_one_checkpoint_has_is_found(two_runs):
    path = two_runs[1] / "checkpoints" / "last.pt"
    torch.save(torch.load(path, weights_only=True) | {"losses": []}, path)
    assert compare(two_runs) == "checkpoints/last.pt: losses: 'missing' and []"


def test_other_best_weights_are_found(two_runs):
    weights = {"weight": torch.zeros(2, 3), "bias": torch.tensor(float("nan"))}
    save_file(weights, two_runs[1] / "checkpoints" / "best.safetensors", {"best": json.dumps({"top1": 0.25})})
    assert compare(two_runs).splitlines() == [
        "checkpoints/best.safetensors: weight: 5 of 6 numbers differ",
        "checkpoints/best.safetensors: metadata: best: top1: 0.5 and 0.25",
    ]


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([RECORDS[0], RECORDS[2]], "metrics.jsonl: step 6 is missing"),
        ([*RECORDS[:2], RECORDS[1], RECORDS[2]], "metrics.jsonl: step 6 stands 2 times"),
        ([*RECORDS, RECORDS[2] | {"step": 12}], "metrics.jsonl: epoch 12 is too many"),
        ([RECORDS[1], RECORDS[0], RECORDS[2]], "metrics.jsonl: the records are in another order"),
        (
            [*RECORDS[:2], RECORDS[2] | {"val/loss": 0.1 + 1e-16}],
            "metrics.jsonl: epoch 6: val/loss: 0.1 and 0.1" + "0" * 14 + "1",
        ),
    ],
    ids=["missing", "twice", "too many", "order", "last digit"],
)
def test_other_records_are_found(two_runs, records, message):
    write_records(two_runs[1], records)
    assert compare(two_runs) == message


def test_another_line_of_a_table_is_found(two_runs):
    (two_runs[1] / "metrics.csv").write_text("step,val/top1\n6,0.25\n")
    assert compare(two_runs) == "metrics.csv: 1: '6,0.5' and '6,0.25'"


def test_another_score_is_found(two_runs):
    path = two_runs[1] / "summary.json"
    path.write_text(path.read_text().replace('"top1": 0.5', '"top1": 0.25'))
    assert compare(two_runs) == "summary.json: scores: top1: 0.5 and 0.25"


@pytest.mark.parametrize("name", ["checkpoints/last.pt", "metrics.jsonl", "summary.json"])
def test_a_missing_or_truncated_file_is_found(two_runs, name):
    path = two_runs[1] / name
    path.write_bytes(path.read_bytes()[:-7])
    assert compare(two_runs).startswith(f"{name}: ")
    path.unlink()
    assert compare(two_runs).startswith(f"{name}: [Errno 2] No such file")
