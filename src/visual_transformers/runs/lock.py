"""One process at a time works on a run: a lock that ends with the process that holds it."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import sys
from pathlib import Path
from typing import ClassVar, TextIO

from visual_transformers.errors import InUseError


class RunLock:
    """A context in which no other process can work on the run in a folder.

    The system takes the lock from a process that dies, however it dies, and across machines that share the folder. It
    is a record lock, which loader processes do not inherit: they may outlive a killed run by seconds.

    Args:
        directory: that of the run.
        noun: what it is the folder of, where that is no run.
        key: of the configuration by which it is named.

    Raises:
        InUseError: if another process has it, naming that.
    """

    held_here: ClassVar[set[Path]] = set()
    """Folders whose lock this process has."""

    def __init__(self, directory: Path, noun: str = "run", key: str = "name"):
        self.path, self.noun, self.key = directory / ".lock", noun, key

    def __enter__(self) -> RunLock:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._locked()
        self._file.truncate(0)
        self._file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        self._file.flush()
        self.held_here.add(self.path.parent.resolve())
        return self

    def _locked(self) -> TextIO:
        while True:
            file = self.path.open("a+", encoding="utf-8")
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError) as error:
                file.seek(0)
                holder = file.read().strip() or "another process"
                raise InUseError(
                    f"{self.path.parent}: {holder} works on this {self.noun}; wait for it, stop it, or give this "
                    f"{self.noun} another name ({self.key}=...)"
                ) from error
            except OSError as error:
                what = f"see to it that no other command works on this {self.noun} meanwhile"
                print(f"note: {self.path} cannot be locked ({error}); {what}", file=sys.stderr)
                return file
            if self.path.exists() and self.path.samefile(f"/dev/fd/{file.fileno()}"):
                return file
            file.close()  # its holder took the file away between our opening and locking it

    def __exit__(self, *exception: object) -> None:
        self.path.unlink(missing_ok=True)
        self._file.close()
        self.held_here.discard(self.path.parent.resolve())


def is_held(directory: Path) -> bool:
    """Whether a process works on the run in a folder. A file system without locks cannot tell, and then says no."""
    if directory.resolve() in RunLock.held_here:  # for closing the file below would free our own lock
        return True
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
