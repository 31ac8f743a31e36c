"""Weights for other programs."""

from __future__ import annotations

from pathlib import Path

from visual_transformers.errors import RunError
from visual_transformers.settings import Config


def export(cfg: Config, directory: Path) -> None:
    """Weights for other programs."""
    raise RunError("mode=export is not there yet")
