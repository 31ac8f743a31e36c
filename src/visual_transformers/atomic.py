"""Files that are either the old version or the new one, never half of each."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from visual_transformers.errors import RunError


def write(path: Path, fill: Callable[[Path], object], *, previous: Path | None = None) -> None:
    """Let `fill` write a temporary file beside `path`, flush it to the disk, then put it in the place of `path`.

    What stood there before is kept as `previous`, if that is given.

    Raises:
        RunError: if it cannot be written, as on a full disk; what stood there before still does.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.unlink(missing_ok=True)
        temporary.touch()
        mode = temporary.stat().st_mode  # as the umask has it: safetensors lets the owner alone read its files
        fill(temporary)
        if temporary.stat().st_mode != mode:
            temporary.chmod(mode)
        _flush(temporary)
        if previous and path.exists():
            path.replace(previous)
        temporary.replace(path)
        _flush(path.parent)
    except Exception as error:
        if not isinstance(error, OSError) and not any(sign in str(error) for sign in DISK):
            raise
        free = shutil.disk_usage(next(folder for folder in path.parents if folder.is_dir())).free / 2**20
        raise RunError(
            f"{path} cannot be written ({str(error).splitlines()[0]}; {free:.0f} MiB are free there). What stood there "
            "before still does; make room, and start the same command again"
        ) from error
    finally:
        with contextlib.suppress(NotADirectoryError):
            temporary.unlink(missing_ok=True)


DISK = ("PytorchStreamWriter", "unexpected pos", "os error")
"""How torch and safetensors say what the system would say by an OSError."""


def write_text(path: Path, text: str) -> None:
    """`write` for a whole text, UTF-8; bytes of file names that are no text are escaped."""
    write(path, lambda temporary: temporary.write_text(text, encoding="utf-8", errors="backslashreplace"))


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
