"""What can be wrong with a user's input; the command line prints these without a traceback."""

from __future__ import annotations

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


class WeightsError(UserError):
    """A weight file does not fit the model, or cannot be read."""


class RunError(UserError):
    """A run directory cannot be used as asked, or a run had to stop."""


class Interrupted(KeyboardInterrupt):
    """A run was asked to stop and saved its state. No `Exception`, so that it ends a sweep as well."""
