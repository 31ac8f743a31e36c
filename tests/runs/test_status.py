"""What a run's status.json says, by whom it is written, and how it looks from outside."""

from __future__ import annotations

import json
import subprocess

import pytest

from visual_transformers.errors import DataError, Interrupted, LostError
from visual_transformers.runs import status


def ending(folder, error, *, main=True) -> None:
    with pytest.raises(type(error)), status.kept(folder, main=main):
        raise error


@pytest.mark.parametrize(
    ("error", "state"),
    [(Interrupted("saved"), "stopped"), (SystemExit(1), "stopped"), (DataError("no file"), "failed"),
     (KeyboardInterrupt(), "unfinished")],
)  # fmt: skip
def test_a_run_that_did_not_finish_says_how_it_ended_unless_it_ended_at_once(tmp_path, error, state):
    ending(tmp_path, error)
    assert status.seen(tmp_path, tmp_path)["state"] == state


def test_an_error_that_nobody_can_have_expected_keeps_its_traceback(tmp_path):
    ending(tmp_path, ZeroDivisionError("here"))
    assert "raise error" in status.read(tmp_path)["traceback"]
    ending(tmp_path, FileNotFoundError(2, "No such file", "a.png"))
    assert "traceback" not in status.read(tmp_path)


def test_the_process_that_failed_says_why_and_not_those_that_lost_it(tmp_path):
    status.write(tmp_path, "running")
    ending(tmp_path, DataError("a.png is torn"), main=False)
    status.failed(tmp_path, LostError("process 0 lost another one"))
    assert status.read(tmp_path)["error"] == "a.png is torn"
    status.write(tmp_path, "running")
    status.failed(tmp_path, LostError("process 0 lost another one"))
    assert status.read(tmp_path)["error"] == "process 0 lost another one"


def test_a_process_that_lost_the_first_one_does_not_call_the_run_failed(tmp_path, second_of_two):
    status.write(tmp_path, "queued")
    ending(tmp_path, LostError("process 1 lost another one"), main=False)
    assert status.read(tmp_path)["state"] == "queued"


def test_a_process_that_is_not_the_main_one_says_nothing_of_a_run_that_ends_well(tmp_path):
    with status.kept(tmp_path, main=False):
        pass
    ending(tmp_path, Interrupted("saved"), main=False)
    assert [*tmp_path.iterdir()] == []


def test_a_job_that_was_never_sent_is_unfinished_once_its_command_is_gone(tmp_path):
    status.write(tmp_path, "queued")
    assert status.seen(tmp_path, tmp_path)["state"] == "queued"
    gone = subprocess.Popen(["true"])
    gone.wait()
    content = json.loads((tmp_path / status.FILE).read_text()) | {"process": gone.pid}
    (tmp_path / status.FILE).write_text(json.dumps(content))
    assert status.seen(tmp_path, tmp_path)["state"] == "unfinished"
    (tmp_path / status.FILE).write_text(json.dumps(content | {"host": "elsewhere"}))
    assert status.seen(tmp_path, tmp_path)["state"] == "queued"


def test_a_job_that_ended_while_it_is_called_queued_is_unfinished(tmp_path):
    status.write(tmp_path, "queued")
    (tmp_path / status.SUBMISSION).write_text(json.dumps({"id": "7"}))
    assert status.seen(tmp_path, tmp_path)["state"] == "queued"
    (tmp_path / status.SUBMISSION).write_text(json.dumps({"id": "7", "ended": True}))
    assert status.seen(tmp_path, tmp_path)["state"] == "unfinished"
    status.write(tmp_path, "finished", score=1.0)
    assert status.seen(tmp_path, tmp_path)["state"] == "finished"
