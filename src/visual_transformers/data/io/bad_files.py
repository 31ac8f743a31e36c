"""Decide whether an unreadable file stops a run or costs one sample."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field

from visual_transformers.errors import BadFileError, DataError


@dataclass
class BadFiles:
    """Unreadable files of a split.

    Args:
        samples: number of samples in the split.
        allowed: skip such samples; otherwise the first one is an error.
        max_share: share of the samples that may be skipped.
        paths: files met so far, in order; a file that is met again in a later epoch counts once.
    """

    samples: int
    allowed: bool = False
    max_share: float = 0.0
    paths: list[str] = field(default_factory=list)

    def skip(self, error: BadFileError) -> None:
        """Record a file, and print it the first time; raise DataError if too many samples are skipped."""
        if error.path in self.paths:
            return
        self.paths.append(error.path)
        print(f"skipped {error}", file=sys.stderr, flush=True)  # stdout of ranks other than 0 is discarded
        self.check(len(self.paths))

    def check(self, count: int) -> None:
        """Raise a DataError if `count` skipped samples are too many."""
        if self.allowed and count > self.max_share * self.samples:
            last = f"; the last is {self.paths[-1]}" if self.paths else ""
            raise DataError(
                f"{count} of {self.samples} samples had to be skipped, more than data.max_skipped={self.max_share} "
                f"allows{last}. List all such files with mode=check_data, and leave them out with data.exclude."
            )


NONE_ALLOWED = BadFiles(0)
"""Treat the first unreadable file as an error."""
