"""What a model costs."""

from __future__ import annotations

from pathlib import Path

from visual_transformers.errors import RunError
from visual_transformers.settings import Config


def profile(cfg: Config, directory: Path) -> None:
    """What a model costs."""
    raise RunError("mode=profile is not there yet")
