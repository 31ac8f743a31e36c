"""What can be wrong with a user's input; the command line prints these without a traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path


class UserError(ValueError):
    """A mistake in the input that the message explains: what, where and how to mend it."""


class ConfigError(UserError):
    """The configuration cannot be run; the message lists every problem found, one a line."""


class DataError(UserError):
    """A data set's folder, file or label is not as it should be."""


class BadFileError(DataError):
    """One file of a data set cannot be used; `path` says which, and the message why and how to mend it.

    A loader may be told to skip such files.
    """

    def __init__(self, path: str | Path, problem: str):
        super().__init__(path, problem)
        self.path = str(path)

    def __str__(self) -> str:
        path, problem = self.args
        return f"{path}: {problem}"


class MissingMasksError(DataError):
    """Images of a split have no mask; `pairs` holds each of them and the file that should be its mask.

    Args:
        pairs: images and masks, at least one.
        images: how many images the split has.
        hint: the end of the message.
    """

    def __init__(self, pairs: list[tuple[Path, Path]], images: int, hint: str = ""):
        super().__init__(pairs, images, hint)
        self.pairs = pairs

    def __str__(self) -> str:
        pairs, images, hint = self.args
        image, mask = pairs[0]
        return f"{len(pairs)} of {images} images have no mask; the first is {image}, which needs {mask}{hint}"


class WeightsError(UserError):
    """A weight file does not fit the model, or cannot be read."""


class RunError(UserError):
    """A run directory cannot be used as asked, or a run had to stop."""


class LostError(RunError):
    """Another process of the run is gone, which knows why."""


class InUseError(RunError):
    """Another process works on the run."""


class Interrupted(KeyboardInterrupt):
    """A run was asked to stop and saved its state. No `Exception`, so that it ends a sweep as well.

    Args:
        message: where it stands, and how it goes on.
        by_scheduler: whether it was SLURM's warning, after which the job is to be started again.
    """

    def __init__(self, message: str, *, by_scheduler: bool = False):
        super().__init__(message)
        self.by_scheduler = by_scheduler


MORE_FILES = "`ulimit -n 4096` lets a process open more files"
"""What mends too many open files."""
INTERRUPTED = 130
"""Exit code of a run that was asked to stop, as of a shell's command after Ctrl-C."""


def suggestion(key: str, known: Iterable[str], all_of_them: str = "there are", group: str = "") -> str:
    """`; did you mean X?`, or the names that there are; `group` is what X is written behind."""
    names = [str(name) for name in known]
    near = difflib.get_close_matches(key, names, n=1)
    return f"; did you mean {group}{near[0]}?" if near else f"; {all_of_them} {', '.join(names)}"
