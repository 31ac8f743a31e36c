"""Progress in TensorBoard's event files, in the run's folder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import yaml
from PIL import Image

from visual_transformers.loggers.base import Logger, RunInfo
from visual_transformers.loggers.records import Record, charted
from visual_transformers.runs.results import MOST_CONFUSED, Results, attention_sheets
from visual_transformers.tables import markdown_table

SAID_BY_STEPS = ("kind", "step", "epoch", "lr")
"""What an epoch's record says of its moment, and the curves have from the records of steps."""


@dataclass
class TensorBoard(Logger):
    """The records as curves over steps, the configuration, and the results' pictures and tables, in `tensorboard/`.

    What is there from the step on at which a run goes on is taken back by an event that says so (`purge_step`), and
    is written again from metrics.jsonl. So each record is there once, however the run ended; but a run without the
    logger `files` has no such file, and keeps what is there up to that step.

    Args:
        attention: pictures, at most, with where the visual tokens of a VT model look.
    """

    library: ClassVar[str | None] = "tensorboard"
    attention: int = 4

    def start(self, run: RunInfo) -> None:
        """Open a new file of events, and write what the earlier ones lack."""
        from torch.utils.tensorboard import SummaryWriter

        self.run, folder = run, run.directory / "tensorboard"
        earlier = run.earlier()
        again = 0
        if any(folder.glob("events.out.tfevents.*")):
            again = run.step if earlier else run.step + 1
        self.writer = SummaryWriter(str(folder), purge_step=again)
        self.writer.add_text("config", _preformatted(yaml.safe_dump(run.config, sort_keys=False)), run.step)
        for record in earlier:
            if record["step"] >= again:
                self.record(record)

    def record(self, record: Record) -> None:
        """Write the numbers of a record, before the state that follows it is saved."""
        left_out = SAID_BY_STEPS if record["kind"] == "epoch" else ("kind", "step")
        for name, value in charted(record).items():
            if name not in left_out:
                self.writer.add_scalar(name, value, record["step"])
        self.writer.flush()

    def results(self, results: Results) -> None:
        """Write scores, pictures and tables."""
        step, folder = self.run.total_steps, self.run.directory
        for name, value in results.scores.items():
            self.writer.add_scalar(f"best/{name}", value, step)
        for path in [folder / "samples.png", *attention_sheets(folder, self.attention)]:
            if path.is_file():
                name = path.relative_to(folder).with_suffix("").as_posix()
                self.writer.add_image(name, np.asarray(Image.open(path).convert("RGB")), step, dataformats="HWC")
        classes = [{"class": name, **{k: f"{v:.4f}" for k, v in row.items()}} for name, row in results.classes.items()]
        confused = [{k: str(v) for k, v in row.items()} for row in results.most_confused(MOST_CONFUSED)]
        for title, rows in (("classes", classes), ("most_confused", confused)):
            if rows:
                self.writer.add_text(title, markdown_table(rows), step)

    def close(self, error: BaseException | None) -> None:
        """Write out what is not on the disk yet."""
        self.writer.close()


def _preformatted(text: str) -> str:
    """Text as Markdown that shows it as it is."""
    return "".join(f"    {line}\n" for line in text.splitlines())
