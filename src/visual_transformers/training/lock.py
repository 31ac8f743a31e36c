"""One process at a time works on a run: a lock that ends with the process that holds it."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import sys
from pathlib import Path
from typing import TextIO

from visual_transformers.errors import RunError


class RunLock:
    """A context in which no other process can work on the run in a folder.

    The system takes the lock from a process that dies, however it dies, and across machines that share the folder. It
    is a record lock, which loader processes do not inherit: they may outlive a killed run by seconds.

    Raises:
        RunError: if another process has it, naming that.
    """

    def __init__(self, directory: Path):
        self.path = directory / ".lock"

    def __enter__(self) -> RunLock:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._locked()
        self._file.truncate(0)
        self._file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        self._file.flush()
        return self

    def _locked(self) -> TextIO:
        while True:
            file = self.path.open("a+", encoding="utf-8")
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError) as error:
                file.seek(0)
                holder = file.read().strip() or "another process"
                raise RunError(
                    f"{self.path.parent}: {holder} works on this run; wait for it, stop it, or give this run another "
                    "name (name=...)"
                ) from error
            except OSError as error:
                what = "see to it that no other command works on this run meanwhile"
                print(f"note: {self.path} cannot be locked ({error}); {what}", file=sys.stderr)
                return file
            if self.path.exists() and self.path.samefile(f"/dev/fd/{file.fileno()}"):
                return file
            file.close()  # its holder took the file away between our opening and locking it

    def __exit__(self, *exception: object) -> None:
        self.path.unlink(missing_ok=True)
        self._file.close()


def is_held(directory: Path) -> bool:
    """Whether another process works on the run in a folder. A file system without locks cannot tell, and then says no.

    It takes no lock while it asks, so that a run that starts at this moment is not held up. Not for a process that has
    the lock itself: closing the file would free it.
    """
    try:
        descriptor = os.open(directory / ".lock", os.O_RDONLY)
    except OSError:
        return False
    try:
        asked = struct.pack(FLOCK, fcntl.F_RDLCK, os.SEEK_SET, 0, 0, 0)
        kind, *_ = struct.unpack(FLOCK, fcntl.fcntl(descriptor, fcntl.F_GETLK, asked))
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return bool(kind != fcntl.F_UNLCK)


FLOCK = "hhqqi4x"
"""Linux's struct flock on 64 bits: type, whence, start, length, process."""
