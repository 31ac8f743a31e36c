"""A run as a report reads it from the files in its folder: metadata, state and scores."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, cast, get_args

import numpy as np
import yaml

from visual_transformers.config.diff import current_name
from visual_transformers.config.schema import Node
from visual_transformers.modes.report import records
from visual_transformers.modes.report.records import Records, finite_number
from visual_transformers.runs import status
from visual_transformers.runs.run_dir import METRICS
from visual_transformers.runs.status import read_json

State = Literal["finished", "running", "queued", "stopped", "unfinished", "failed"]
"""States of `status.effective_status`."""


@dataclass(frozen=True)
class Best:
    """Best validation score of a run, and its epoch."""

    score: float
    epoch: float


@dataclass
class Run:
    """A run.

    Args:
        metadata: `about` of its status.json.
        summary: its summary.json; empty before it has finished.
        at: time when it entered its state, ISO 8601.
        error: first line of the error of a failed run.
    """

    folder: Path
    state: State
    metadata: Node
    summary: Node
    at: str = ""
    error: str = ""

    @classmethod
    def read(cls, folder: Path) -> Run:
        """Read the run in a folder; what is missing or damaged stays empty."""
        content = status.effective_status(folder, folder)
        state, metadata = content.get("state"), content.get("about")
        return cls(
            folder,
            cast(State, state) if state in get_args(State) else "unfinished",
            metadata if isinstance(metadata, dict) else {},
            read_json(folder / "summary.json"),
            at=str(content.get("at", "")),
            error=next(iter(str(content.get("error") or "").strip().splitlines()), ""),
        )

    def get_text(self, key: str) -> str:
        """Return a text of the metadata; empty if it is unknown."""
        value = self.metadata.get(key)
        return value if isinstance(value, str) else ""

    def get_number(self, key: str) -> float | None:
        """Return a number of the metadata; None if it is unknown."""
        return finite_number(self.metadata.get(key))

    @property
    def name(self) -> str:
        """Name of the run, or of its folder."""
        return self.get_text("name") or self.folder.name

    @property
    def metric(self) -> str:
        """Score by which the best weights are selected."""
        return self.get_text("metric")

    @property
    def epochs(self) -> float | None:
        """Number of epochs that the run is to have."""
        steps, steps_per_epoch = self.get_number("total_steps"), self.get_number("steps_per_epoch")
        return steps / steps_per_epoch if steps and steps_per_epoch else None

    @cached_property
    def records(self) -> Records:
        """Epochs of the run, read at the first access, which takes milliseconds."""
        return records.read(self.folder / METRICS, self.metric)

    @cached_property
    def images_per_second(self) -> float | None:
        """Throughput of the last steps."""
        return records.read_images_per_second(self.folder / METRICS)

    @cached_property
    def best(self) -> Best | None:
        """Best epoch: from the summary of a finished run, otherwise the best so far."""
        best = self.summary.get("best") if self.state == "finished" else None
        if isinstance(best, dict):
            score, epoch = finite_number(best.get(self.metric)), finite_number(best.get("epoch"))
            if score is not None and epoch is not None:
                return Best(score, epoch)
        scores = self.records.get_validation(self.metric)
        if not np.isfinite(scores).any():
            return None
        index = int(np.nanargmax(scores))
        return Best(float(scores[index]), float(self.records.epoch[index]))

    @cached_property
    def test_score(self) -> float | None:
        """Score of the best weights on a test split; None if there is none.

        A later `mode=test` in the run's folder takes precedence over the end of the training. Without a test split
        both have scored the validation split again, which does not count.
        """
        tested = read_json(self.folder / "test" / "summary.json")
        weights = Path(str(tested.get("weights")))
        is_own = weights.parts[-3:-1] == (self.folder.name, "checkpoints")
        for summary in (*([tested] if is_own else []), self.summary):
            scores = summary.get("scores")
            if isinstance(scores, dict) and summary.get("test_split") is True:
                return finite_number(scores.get(self.metric))
        return None

    @cached_property
    def config(self) -> Node:
        """Settings by dotted key, read at the first access, which takes milliseconds; empty if damaged."""
        try:
            content = yaml.load((self.folder / "config.yaml").read_bytes(), yaml.CSafeLoader)
        except (OSError, ValueError, yaml.YAMLError):
            return {}
        return flatten(content) if isinstance(content, dict) else {}


def flatten(node: Node, prefix: str = "") -> Node:
    """Return the values of a node and of the nodes in it by dotted key; targets under their current names."""
    values: Node = {}
    for key, value in node.items():
        name = f"{prefix}{key}"
        values |= flatten(value, f"{name}.") if isinstance(value, dict) else {name: current_name(value)}
    return values
