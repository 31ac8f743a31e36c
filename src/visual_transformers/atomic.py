"""Atomic file writes: a file holds either the old version or the new one, never a part of it."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from visual_transformers.errors import RunError

DISK_ERRORS = ("PytorchStreamWriter", "unexpected pos", "os error")
"""Parts of the messages with which torch and safetensors report what is an OSError elsewhere."""


def write(path: Path, fill: Callable[[Path], object], *, previous: Path | None = None) -> None:
    """Let `fill` write a temporary file beside `path`, flush it to disk, then replace `path` with it.

    The old version is kept as `previous`, if given.

    Raises:
        RunError: if the file cannot be written, e.g. on a full disk; the old version is unchanged.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.unlink(missing_ok=True)
        temporary.touch()
        mode = temporary.stat().st_mode  # safetensors ignores the umask and makes files readable by their owner only
        fill(temporary)
        if temporary.stat().st_mode != mode:
            temporary.chmod(mode)
        _flush(temporary)
        if previous and path.exists():
            path.replace(previous)
        temporary.replace(path)
        _flush(path.parent)
    except Exception as error:
        if not isinstance(error, OSError) and not any(sign in str(error) for sign in DISK_ERRORS):
            raise
        free = shutil.disk_usage(next(folder for folder in path.parents if folder.is_dir())).free / 2**20
        raise RunError(
            f"{path} cannot be written ({str(error).splitlines()[0]}; {free:.0f} MiB are free there). The old version "
            "is unchanged; free some space, then start the same command again"
        ) from error
    finally:
        with contextlib.suppress(NotADirectoryError):
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically in UTF-8; undecodable bytes of file names are escaped."""
    write(path, lambda temporary: temporary.write_text(text, encoding="utf-8", errors="backslashreplace"))


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
