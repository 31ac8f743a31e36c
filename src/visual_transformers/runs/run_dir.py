"""Folder of a run: paths of its files, and how an earlier run is set aside."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from visual_transformers import atomic

METRICS = "metrics.jsonl"
"""File with every record."""
RUN_FILES = (
    "checkpoints", "test", "predict", "explain", "export", "profile",
    "config.yaml", METRICS, "metrics.csv", "summary.json", "classes.csv",
    "curves.png", "samples.png", "attention", "trace.json", "nonfinite.pt", "status.json", "wandb", "tensorboard",
)  # fmt: skip
"""Files of a run. `check_data` is not among them: it describes the data, and `data.exclude` may name a file in it."""
TEMPORARY_NAME = re.compile(r"\..+\.\d+")
"""Name of a temporary file of `atomic`."""


def remove_results(folder: Path, names: Iterable[str], *, keep: Iterable[Path] = ()) -> None:
    """Remove an earlier command's files of these names from `folder`, so that no old file lies among new results.

    A file or folder stays if it is one of the paths `keep` or contains one, because it may be this command's input.
    """
    resolved = [path.resolve() for path in keep]
    kept = {place for path in resolved for place in (path, *path.parents)}
    for path in (folder / name for name in names):
        if path.resolve() in kept:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def print_contents(folder: Path) -> None:
    """Print the names of the files in a folder of results."""
    print(f"left in {folder}: {', '.join(sorted(path.name for path in folder.iterdir() if path.name[0] != '.'))}")


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
    def has_checkpoint(self) -> bool:
        """True if there is a checkpoint from which the run can resume."""
        return self.last.is_file() or self.previous.is_file()

    def top_weights(self, step: int) -> Path:
        """Return the path of one of the best few weights."""
        return self.top / f"step-{step:08d}.safetensors"

    def write_config(self, config: dict[str, Any]) -> None:
        """Write the resolved configuration as YAML."""
        atomic.write_text(self.path / "config.yaml", yaml.safe_dump(config, sort_keys=False))

    def remove_partial_files(self, *, drop_last: bool) -> None:
        """Remove the temporary files of a killed process.

        Args:
            drop_last: also remove the last checkpoint, because it is damaged and the run resumes from the previous one.
                Otherwise the next save would replace the sound previous checkpoint by the damaged one.
        """
        for folder in (self.path, self.last.parent, self.top):
            for path in folder.glob(".*"):
                if TEMPORARY_NAME.fullmatch(path.name):
                    path.unlink()
        if drop_last:
            self.last.unlink(missing_ok=True)

    def set_aside(self) -> Path | None:
        """Move the files of an earlier run into `earlier-N` and return that folder; nothing is deleted."""
        files = [path for name in RUN_FILES if (path := self.path / name).exists()]
        if not files:
            return None
        aside = next(p for n in range(1, 1_000_000) if not (p := self.path / f"earlier-{n}").exists())
        aside.mkdir(parents=True)
        for path in files:
            path.rename(aside / path.name)
        return aside
