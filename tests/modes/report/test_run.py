"""State and scores of a run, read from its files."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest

from visual_transformers.modes.report.run import Best, Run
from visual_transformers.runs.lock import RunLock, is_held

HOLDS = """
import sys, time
from pathlib import Path
from visual_transformers.runs.lock import RunLock
with RunLock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def works_on():
    """Starts a process that works on the run in a folder."""
    started = []

    def start(folder) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", HOLDS, str(folder)]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        assert started[-1].stdout.readline() == "held\n"
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_a_run_is_running_as_long_as_its_process_lives(leave, works_on):
    folder = leave("run", 0.5, state="running")
    process = works_on(folder)
    assert Run.read(folder).state == "running"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (folder / ".lock").exists()
    assert Run.read(folder).state == "unfinished"


def test_a_lock_can_be_asked_for_before_while_and_after_it_is_held(tmp_path, works_on):
    assert not is_held(tmp_path)
    process = works_on(tmp_path)
    assert is_held(tmp_path)
    process.kill()
    process.wait()
    assert not is_held(tmp_path)
    with RunLock(tmp_path):
        pass


@pytest.mark.parametrize("state", ["finished", "stopped", "queued", "failed"])
def test_other_states_are_as_the_run_says(leave, state):
    assert Run.read(leave("run", 0.5, state=state)).state == state


def test_the_best_epoch_is_of_the_raw_weights_or_of_their_average(leave):
    folder = leave("run", 0.5, 0.7, 0.6)
    assert Run.read(folder).best == Best(0.7, 2.0)
    lines = (folder / "metrics.jsonl").read_text()
    (folder / "metrics.jsonl").write_text(lines.replace('"val/top1": 0.6', '"val_ema/top1": 0.8, "val/top1": 0.6'))
    assert Run.read(folder).best == Best(0.8, 3.0)


@pytest.mark.parametrize(("state", "expected"), [("finished", Best(0.9, 4.0)), ("stopped", Best(0.7, 2.0))])
def test_the_summary_tells_the_best_of_a_finished_run_and_is_outdated_of_one_that_went_on(leave, state, expected):
    folder = leave("run", 0.5, 0.7, state=state, summary={"best": {"top1": 0.9, "epoch": 4.0}})
    assert Run.read(folder).best == expected


def test_a_run_of_which_nothing_is_known_yet_has_no_score(leave):
    run = Run.read(leave("run", state="queued", status={"about": None}))
    assert (run.best, run.test_score, run.name, run.epochs) == (None, None, "run", None)


@pytest.mark.parametrize(("test_split", "expected"), [(True, 0.66), (False, None), (None, None)])
def test_final_scores_are_test_scores_only_where_there_is_a_test_split(leave, test_split, expected):
    folder = leave("run", 0.7, test_split=test_split, summary={"scores": {"top1": 0.66}})
    assert Run.read(folder).test_score == expected


@pytest.mark.parametrize(("weights", "expected"), [("runs/run/checkpoints/best.safetensors", 0.6), ("other.pt", 0.66)])
def test_a_later_test_of_its_own_weights_counts(leave, weights, expected):
    folder = leave("run", 0.7, test_split=True, summary={"scores": {"top1": 0.66}})
    (folder / "test").mkdir()
    tested = {"test_split": True, "weights": weights, "scores": {"top1": 0.6}}
    (folder / "test" / "summary.json").write_text(json.dumps(tested))
    assert Run.read(folder).test_score == expected


def test_of_an_error_the_first_line_is_told(leave):
    folder = leave("run", state="failed", status={"error": "\nno space left\non the disk"})
    assert Run.read(folder).error == "no space left"


@pytest.mark.parametrize("file", ["status.json", "summary.json", "config.yaml", "metrics.jsonl", "classes.csv"])
@pytest.mark.parametrize("content", [b"", b"{", b"[[", b"\xff\xfe\x00", b"- a: b: c", b"null", b"%%%", b'"word"'])
def test_whatever_stands_in_a_file_is_no_exception(leave, file, content):
    folder = leave("run", 0.5, config={"a": 1}, class_scores={"ant": {"recall": 0.5}})
    (folder / file).write_bytes(content)
    run = Run.read(folder)
    assert run.config == ({} if file == "config.yaml" else {"a": 1})
    assert run.test_score is None
