"""Logger to TensorBoard's event files in the run's folder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import yaml
from annotated_types import Ge
from PIL import Image

from visual_transformers.loggers.base import Logger, RunInfo
from visual_transformers.loggers.records import Record, rename_for_charts
from visual_transformers.runs.results import MAX_CONFUSIONS, Results, find_attention_sheets
from visual_transformers.tables import to_markdown


@dataclass
class TensorBoard(Logger):
    """Log records as curves over steps, the configuration, and pictures and tables of the results to `tensorboard/`.

    When a run resumes, an event (`purge_step`) discards the points from that step on, and they are written again from
    metrics.jsonl, so that each record appears once however the run ended. Without the logger `files` there is no
    metrics.jsonl; then the points up to that step stay.
    """

    library: ClassVar[str | None] = "tensorboard"
    attention: Annotated[int, Ge(0)] = 4

    def start(self, run: RunInfo) -> None:
        """Open a new event file, and write the records that earlier ones lack."""
        from torch.utils.tensorboard import SummaryWriter

        self.run, folder = run, run.directory / "tensorboard"
        earlier = run.read_earlier_records()
        purge_step = 0
        if any(folder.glob("events.out.tfevents.*")):
            purge_step = run.step if earlier else run.step + 1
        self.writer = SummaryWriter(str(folder), purge_step=purge_step)
        config = yaml.safe_dump(run.config, sort_keys=False).splitlines()
        self.writer.add_text("config", "".join(f"    {line}\n" for line in config), run.step)  # a Markdown code block
        for record in earlier:
            if record["step"] >= purge_step:
                self.record(record)

    def record(self, record: Record) -> None:
        """Write the scores of a record, before the checkpoint that follows it."""
        # The epoch and learning rate of this step already have points from the record of the step.
        left_out = ("kind", "step", "epoch", "lr") if record["kind"] == "epoch" else ("kind", "step")
        for name, value in rename_for_charts(record).items():
            if name not in left_out:
                self.writer.add_scalar(name, value, record["step"])
        self.writer.flush()

    def record_results(self, results: Results) -> None:
        """Write scores, pictures and tables."""
        step, folder = self.run.total_steps, self.run.directory
        for name, value in results.scores.items():
            self.writer.add_scalar(f"best/{name}", value, step)
        for path in [folder / "samples.png", *find_attention_sheets(folder, self.attention)]:
            if path.is_file():
                name = path.relative_to(folder).with_suffix("").as_posix()
                self.writer.add_image(name, np.asarray(Image.open(path).convert("RGB")), step, dataformats="HWC")
        confused = [{k: str(v) for k, v in row.items()} for row in results.rank_confusions(MAX_CONFUSIONS)]
        for title, rows in (("classes", results.format_class_rows()), ("most_confused", confused)):
            if rows:
                self.writer.add_text(title, to_markdown(rows), step)

    def close(self, error: BaseException | None) -> None:
        """Write pending points to the disk."""
        self.writer.close()
