"""What a file that cannot be used does to a run: ends it, or costs one sample and is counted."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field

from visual_transformers.errors import BadFileError, DataError


@dataclass
class BadFiles:
    """The files of a split that could not be used.

    Args:
        samples: how many the split has.
        allowed: whether their samples are skipped; otherwise the first one is an error.
        max_share: share of the samples that may be skipped.
        paths: those met so far, in order; a file that is met again in a later epoch counts once.
    """

    samples: int
    allowed: bool = False
    max_share: float = 0.0
    paths: list[str] = field(default_factory=list)

    def skip(self, error: BadFileError) -> None:
        """Count a file, and say which the first time.

        Raises:
            DataError: if there are too many.
        """
        if error.path in self.paths:
            return
        self.paths.append(error.path)
        print(f"skipped {error}", file=sys.stderr, flush=True)  # of every process, the main one's stdout alone is seen
        self.check(len(self.paths))

    def check(self, count: int) -> None:
        """See that so many samples may be skipped.

        Raises:
            DataError: if they are too many.
        """
        if self.allowed and count > self.max_share * self.samples:
            last = f"; the last is {self.paths[-1]}" if self.paths else ""
            raise DataError(
                f"{count} of {self.samples} samples had to be skipped, more than data.max_skipped={self.max_share} "
                f"allows{last}. mode=check_data lists all such files, and data.exclude leaves them out"
            )


NONE_ALLOWED = BadFiles(0)
"""For samples of which the first bad file is an error."""
