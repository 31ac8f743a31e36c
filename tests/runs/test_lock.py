from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from visual_transformers.errors import RunError
from visual_transformers.runs.lock import RunLock

HOLD_LOCK = """
import sys, time
from pathlib import Path
from visual_transformers.runs.lock import RunLock
with RunLock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path: Path):
    """Another process that holds the lock of `tmp_path`."""
    process = subprocess.Popen([sys.executable, "-c", HOLD_LOCK, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_a_second_process_on_a_run_is_refused_with_the_first_one_s_id(tmp_path, holder):
    with pytest.raises(RunError, match=rf"{tmp_path}: process {holder.pid} on .* works on this run"), RunLock(tmp_path):
        pass


def test_a_killed_process_releases_its_lock(tmp_path, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with RunLock(tmp_path):
        assert (tmp_path / ".lock").is_file()
    assert not (tmp_path / ".lock").exists()


def test_a_run_without_file_locks_continues_with_a_note(tmp_path, monkeypatch, capsys):
    def unsupported(*arguments):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("fcntl.lockf", unsupported)
    with RunLock(tmp_path):
        assert "cannot be locked ([Errno 38] Function not implemented)" in capsys.readouterr().err
