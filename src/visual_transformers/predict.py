"""What a trained model says of images."""

from __future__ import annotations

from pathlib import Path

from visual_transformers.errors import RunError
from visual_transformers.settings import Config


def predict(cfg: Config, directory: Path) -> None:
    """What a trained model says of images."""
    raise RunError("mode=predict is not there yet")
