"""One run as a report sees it, from the files in its folder: what it is, how it stands, what it scored."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, cast, get_args

import numpy as np

from visual_transformers.config.schema import Node
from visual_transformers.modes.report import earlier, records
from visual_transformers.modes.report.records import Records, number
from visual_transformers.runs import status
from visual_transformers.runs.lock import is_held
from visual_transformers.runs.run_dir import METRICS
from visual_transformers.runs.status import node

State = Literal["finished", "running", "queued", "stopped", "unfinished", "failed"]
"""As in `status`, and `unfinished`: it says that it runs, but no process does."""


@dataclass(frozen=True)
class Best:
    """The best validation score of a run and the epoch that it was reached in."""

    score: float
    epoch: float


@dataclass
class Run:
    """A run.

    Args:
        about: its facts (see `about.about`), as far as they are known.
        summary: its summary.json; empty before it is finished.
        at: when it entered its state, ISO.
        error: the first line of what a failed run said.
    """

    folder: Path
    state: State
    about: Node
    summary: Node
    at: str = ""
    error: str = ""

    @classmethod
    def read(cls, folder: Path) -> Run:
        """The run in a folder; what cannot be read of it is not known."""
        content, summary = status.seen(folder, folder), node(folder / "summary.json")
        about = content.get("about")
        if not isinstance(about, dict) or not about:
            about = earlier.facts(folder, summary)
        return cls(
            folder,
            _state(folder, content, summary),
            about,
            summary,
            at=str(content.get("at", "")),
            error=next(iter(str(content.get("error") or "").strip().splitlines()), ""),
        )

    def text(self, fact: str) -> str:
        """A fact that is a word; empty if it is not known."""
        value = self.about.get(fact)
        return value if isinstance(value, str) else ""

    def number(self, fact: str) -> float | None:
        """A fact that is a number."""
        return number(self.about.get(fact))

    @property
    def name(self) -> str:
        """Its name, or its folder's."""
        return self.text("name") or self.folder.name

    @property
    def metric(self) -> str:
        """The score by which the best weights are picked."""
        return self.text("metric")

    @property
    def epochs(self) -> float | None:
        """How many it is to have."""
        steps, of_an_epoch = self.number("total_steps"), self.number("steps_per_epoch")
        return steps / of_an_epoch if steps and of_an_epoch else None

    @cached_property
    def records(self) -> Records:
        """Its epochs; read when they are asked for, which takes milliseconds."""
        return records.read(self.folder / METRICS, self.metric)

    @cached_property
    def images_per_second(self) -> float | None:
        """In its last steps."""
        return records.pace(self.folder / METRICS)

    @cached_property
    def best(self) -> Best | None:
        """Its best epoch: as its summary says if it is finished, or else of its epochs so far."""
        found = self.summary.get("best") if self.state == "finished" else None
        if isinstance(found, dict):
            score, epoch = number(found.get(self.metric)), number(found.get("epoch"))
            if score is not None and epoch is not None:
                return Best(score, epoch)
        scores = self.records.validation(self.metric)
        if not np.isfinite(scores).any():
            return None
        place = int(np.nanargmax(scores))
        return Best(float(scores[place]), float(self.records.epoch[place]))

    @cached_property
    def test_score(self) -> float | None:
        """The score of its best weights on a test split; None if it has none, or that is not known.

        `mode=test` in the run's own folder tells it later than the end of the training. Where a data set has no test
        split both score the validation split again, which is no other score.
        """
        tested = node(self.folder / "test" / "summary.json")
        file = Path(str(tested.get("weights")))
        own = file.parts[-3:-1] == (self.folder.name, "checkpoints")
        for summary in (*([tested] if own else []), self.summary):
            scores = summary.get("scores")
            if isinstance(scores, dict) and summary.get("test_split") is True:
                return number(scores.get(self.metric))
        return None

    @cached_property
    def config(self) -> Node:
        """Its settings, flat, by their dotted keys; read when they are asked for, which takes milliseconds."""
        return flat(earlier.yaml_node(self.folder / "config.yaml"))


def _state(folder: Path, content: Node, summary: Node) -> State:
    """How a run stands; one without a status is of a version that left none."""
    if (said := content.get("state")) in get_args(State):
        return cast(State, said)
    if not content and "best" in summary:
        return "finished"
    return "running" if is_held(folder) else "unfinished"


def flat(node: Node, prefix: str = "") -> Node:
    """The values of a node and of those in it, by their dotted keys."""
    found: Node = {}
    for key, value in node.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found
