"""Lock on a run's folder: one process at a time works on a run, and the lock ends with the process that holds it."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import sys
from pathlib import Path
from typing import ClassVar, TextIO

from visual_transformers.errors import InUseError

FLOCK = "hhqqi4x"
"""Linux's `struct flock` on 64 bits: type, whence, start, length, process id."""


class RunLock:
    """Context manager that keeps other processes from working on the run in a folder.

    The system releases the lock when its process dies, however it dies, also across machines that share the folder. It
    is a record lock, which loader workers do not inherit: these may outlive a killed run by seconds.

    Args:
        directory: the run's folder.
        noun: "run" or "sweep", for messages.
        key: configuration key that names it, for messages.

    Raises:
        InUseError: if another process holds the lock; names that process.
    """

    held_folders: ClassVar[set[Path]] = set()
    """Folders that this process has locked."""

    def __init__(self, directory: Path, noun: str = "run", key: str = "name"):
        self.path, self.noun, self.key = directory / ".lock", noun, key

    def __enter__(self) -> RunLock:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._acquire()
        self._file.truncate(0)
        self._file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        self._file.flush()
        self.held_folders.add(self.path.parent.resolve())
        return self

    def _acquire(self) -> TextIO:
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
                advice = f"make sure that no other command works on this {self.noun} at the same time"
                print(f"note: {self.path} cannot be locked ({error}); {advice}", file=sys.stderr)
                return file
            if self.path.exists() and self.path.samefile(f"/dev/fd/{file.fileno()}"):
                return file
            file.close()  # its holder removed the file after we opened and before we locked it

    def __exit__(self, *exception: object) -> None:
        self.path.unlink(missing_ok=True)
        self._file.close()
        self.held_folders.discard(self.path.parent.resolve())


def is_held(directory: Path) -> bool:
    """Return True if a process holds the lock of the run in a folder; False on file systems without locks.

    F_GETLK asks for the holder without taking the lock; Python offers it only with a packed `struct flock`. To try
    `lockf` instead would lock the folder for a moment, and a run that starts in that moment would be refused.
    """
    if directory.resolve() in RunLock.held_folders:  # closing the file below would release this process's own lock
        return True
    try:
        descriptor = os.open(directory / ".lock", os.O_RDONLY)
    except OSError:
        return False
    try:
        request = struct.pack(FLOCK, fcntl.F_RDLCK, os.SEEK_SET, 0, 0, 0)
        lock_type, *_ = struct.unpack(FLOCK, fcntl.fcntl(descriptor, fcntl.F_GETLK, request))
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return bool(lock_type != fcntl.F_UNLCK)
