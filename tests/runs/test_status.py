"""Status of a run: which process writes it, and how it looks from outside."""

from __future__ import annotations

import json
import subprocess

import pytest

from visual_transformers.errors import DataError, Interrupted, PeerLostError
from visual_transformers.runs import status


def end_with(folder, error, *, main=True) -> None:
    with pytest.raises(type(error)), status.track(folder, main=main):
        raise error


@pytest.mark.parametrize(
    ("error", "state"),
    [(Interrupted("saved"), "stopped"), (SystemExit(1), "stopped"), (DataError("no file"), "failed"),
     (KeyboardInterrupt(), "unfinished")],
)  # fmt: skip
def test_the_status_tells_how_an_unfinished_run_ended(tmp_path, error, state):
    end_with(tmp_path, error)
    assert status.effective_status(tmp_path, tmp_path)["state"] == state


def test_only_an_unexpected_error_keeps_its_traceback(tmp_path):
    end_with(tmp_path, ZeroDivisionError("here"))
    assert "raise error" in status.read(tmp_path)["traceback"]
    end_with(tmp_path, FileNotFoundError(2, "No such file", "a.png"))
    assert "traceback" not in status.read(tmp_path)


def test_the_error_is_that_of_the_failed_process_and_not_of_its_peers(tmp_path):
    status.write(tmp_path, "running")
    end_with(tmp_path, DataError("a.png is torn"), main=False)
    status.write_failure(tmp_path, PeerLostError("process 0 lost another one"))
    assert status.read(tmp_path)["error"] == "a.png is torn"
    status.write(tmp_path, "running")
    status.write_failure(tmp_path, PeerLostError("process 0 lost another one"))
    assert status.read(tmp_path)["error"] == "process 0 lost another one"


def test_a_process_that_lost_the_main_one_does_not_write_failed(tmp_path, second_of_two):
    status.write(tmp_path, "queued")
    end_with(tmp_path, PeerLostError("process 1 lost another one"), main=False)
    assert status.read(tmp_path)["state"] == "queued"


def test_only_the_main_process_writes_the_status_of_a_run_without_errors(tmp_path):
    with status.track(tmp_path, main=False):
        pass
    end_with(tmp_path, Interrupted("saved"), main=False)
    assert [*tmp_path.iterdir()] == []


def test_a_job_that_was_never_submitted_is_unfinished_once_its_command_has_ended(tmp_path):
    status.write(tmp_path, "queued")
    assert status.effective_status(tmp_path, tmp_path)["state"] == "queued"
    gone = subprocess.Popen(["true"])
    gone.wait()
    content = json.loads((tmp_path / status.FILE).read_text()) | {"process": gone.pid}
    (tmp_path / status.FILE).write_text(json.dumps(content))
    assert status.effective_status(tmp_path, tmp_path)["state"] == "unfinished"
    (tmp_path / status.FILE).write_text(json.dumps(content | {"host": "elsewhere"}))
    assert status.effective_status(tmp_path, tmp_path)["state"] == "queued"


def test_a_job_that_ended_while_queued_is_unfinished(tmp_path):
    status.write(tmp_path, "queued")
    (tmp_path / status.SUBMISSION).write_text(json.dumps({"id": "7"}))
    assert status.effective_status(tmp_path, tmp_path)["state"] == "queued"
    (tmp_path / status.SUBMISSION).write_text(json.dumps({"id": "7", "ended": True}))
    assert status.effective_status(tmp_path, tmp_path)["state"] == "unfinished"
    status.write(tmp_path, "finished", score=1.0)
    assert status.effective_status(tmp_path, tmp_path)["state"] == "finished"
