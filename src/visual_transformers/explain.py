"""Where visual tokens look."""

from __future__ import annotations

from pathlib import Path

from visual_transformers.errors import RunError
from visual_transformers.settings import Config


def explain(cfg: Config, directory: Path) -> None:
    """Where visual tokens look."""
    raise RunError("mode=explain is not there yet")
