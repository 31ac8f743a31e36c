"""Errors caused by a user's input or environment; the command line prints their messages without a traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path


class UserError(ValueError):
    """Mistake in the input; the message says what is wrong, where, and how to mend it."""


class ConfigError(UserError):
    """Invalid configuration; the message lists every problem found, one per line."""


class DataError(UserError):
    """Invalid folder, file or label of a data set."""


class BadFileError(DataError):
    """Unusable file `path` of a data set; loaders can be told to skip such files."""

    def __init__(self, path: str | Path, problem: str):
        super().__init__(path, problem)
        self.path = str(path)

    def __str__(self) -> str:
        path, problem = self.args
        return f"{path}: {problem}"


class MissingMasksError(DataError):
    """Images of a split without a mask.

    Args:
        pairs: each such image and the file that should be its mask; at least one.
        images: number of images in the split.
        hint: end of the message.
    """

    def __init__(self, pairs: list[tuple[Path, Path]], images: int, hint: str = ""):
        super().__init__(pairs, images, hint)
        self.pairs = pairs

    def __str__(self) -> str:
        pairs, images, hint = self.args
        image, mask = pairs[0]
        return f"{len(pairs)} of {images} images have no mask; the first is {image}, which needs {mask}{hint}"


class WeightsError(UserError):
    """Weight file that cannot be read or does not fit the model."""


class RunError(UserError):
    """Run directory that cannot be used as requested, or a run that had to stop."""


class PeerLostError(RunError):
    """Another process of the run died; that process reports the cause."""


class InUseError(RunError):
    """Run directory that another process is working on."""


class Interrupted(KeyboardInterrupt):
    """Run that saved its state and stopped on request. Not an `Exception`, so that it also ends a sweep.

    Args:
        message: progress of the run and how to resume it.
        by_scheduler: True if SLURM's warning signal requested the stop, so that the job should be requeued.
    """

    def __init__(self, message: str, *, by_scheduler: bool = False):
        super().__init__(message)
        self.by_scheduler = by_scheduler


OPEN_FILES_HINT = "`ulimit -n 4096` lets a process open more files"
INTERRUPTED = 130
"""Exit code of an interrupted run, the same as a shell reports after Ctrl-C."""


def suggest(key: str, known: Iterable[str], listing: str = "there are", group: str = "") -> str:
    """Return `; did you mean X?` for a close match of `key`, else all known names; `group` is a prefix of X."""
    names = [str(name) for name in known]
    near = difflib.get_close_matches(key, names, n=1)
    return f"; did you mean {group}{near[0]}?" if near else f"; {listing} {', '.join(names)}"
