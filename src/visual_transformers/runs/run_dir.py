"""The folder of a run: what lies where, and how an earlier run is set aside."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from visual_transformers import atomic

METRICS = "metrics.jsonl"
"""The file that has every record."""
OURS = (
    "checkpoints", "test", "predict", "explain", "export", "profile",
    "config.yaml", METRICS, "metrics.csv", "summary.json", "classes.csv",
    "curves.png", "samples.png", "attention", "trace.json", "nonfinite.pt", "status.json", "wandb", "tensorboard",
)  # fmt: skip
"""What a run leaves; `check_data` is none of it, for it tells of the data, and `data.exclude` may point into it."""


def clear(folder: Path, names: Iterable[str], *, but_for: Iterable[Path] = ()) -> None:
    """Remove what an earlier command left under these names in `folder`, so that none of it stands beside new results.

    A file or folder that is one of the paths `but_for`, or holds one, stays: it may be this command's input.
    """
    resolved = [path.resolve() for path in but_for]
    kept = {place for path in resolved for place in (path, *path.parents)}
    for path in (folder / name for name in names):
        if path.resolve() in kept:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


HALF_WRITTEN = re.compile(r"\..+\.\d+")
"""Names of the temporary files of `atomic`."""


class RunDirectory:
    """Paths within a run's folder."""

    def __init__(self, path: Path):
        self.path = path
        self.last = path / "checkpoints" / "last.pt"
        self.previous = path / "checkpoints" / "previous.pt"
        self.best = path / "checkpoints" / "best.safetensors"
        self.top = path / "checkpoints" / "top"
        self.nonfinite = path / "nonfinite.pt"
        self.trace = path / "trace.json"

    @property
    def started(self) -> bool:
        """Whether there is a state from which a run can go on."""
        return self.last.is_file() or self.previous.is_file()

    def top_weights(self, step: int) -> Path:
        """Where one of the best few is kept."""
        return self.top / f"step-{step:08d}.safetensors"

    def write_config(self, config: dict[str, Any]) -> None:
        """Leave the resolved configuration as YAML."""
        atomic.write_text(self.path / "config.yaml", yaml.safe_dump(config, sort_keys=False))

    def clear_torn(self, *, last_too: bool) -> None:
        """Remove what a killed process left half written, and a last state that was given up for the one before.

        That would come to stand in the place of the one before, which is good, when the next is saved.

        Args:
            last_too: whether it was given up.
        """
        for folder in (self.path, self.last.parent, self.top):
            for path in folder.glob(".*"):
                if HALF_WRITTEN.fullmatch(path.name):
                    path.unlink()
        if last_too:
            self.last.unlink(missing_ok=True)

    def set_aside(self) -> Path | None:
        """Move what an earlier run left into `earlier-N`, and return that folder; nothing is deleted."""
        found = [self.path / name for name in OURS if (self.path / name).exists()]
        if not found:
            return None
        aside = next(p for n in range(1, 1_000_000) if not (p := self.path / f"earlier-{n}").exists())
        aside.mkdir(parents=True)
        for item in found:
            item.rename(aside / item.name)
        return aside
