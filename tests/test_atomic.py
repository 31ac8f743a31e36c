"""Atomic writes: the old file or the new one, and nothing else."""

from __future__ import annotations

import pytest

from visual_transformers import atomic
from visual_transformers.errors import RunError


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "file"
    atomic.write_text(path, "old")

    def fail(temporary):
        temporary.write_text("half of the n")
        raise OSError("disk full")

    with pytest.raises(RunError, match=rf"{path} cannot be written \(disk full; \d+ MiB are free there\)"):
        atomic.write(path, fail)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_replaces_the_file_and_creates_its_folder(tmp_path):
    path = tmp_path / "folder" / "file"
    atomic.write_text(path, "old")
    atomic.write_text(path, "new")
    assert path.read_text() == "new"
