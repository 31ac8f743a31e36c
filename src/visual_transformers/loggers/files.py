"""Logger to files in the run's folder."""

from __future__ import annotations

import os
from dataclasses import dataclass

from visual_transformers import atomic, json_text
from visual_transformers.loggers.base import Logger, RunInfo
from visual_transformers.loggers.records import Record
from visual_transformers.plotting import run_plots
from visual_transformers.runs.run_dir import METRICS
from visual_transformers.tables import to_csv


@dataclass
class Files(Logger):
    """Log every record to metrics.jsonl and every epoch to metrics.csv, and draw curves.png."""

    curves: bool = True

    def start(self, run: RunInfo) -> None:
        """Rewrite metrics.jsonl without the records of steps that will be repeated."""
        self.run, self.records = run, run.read_earlier_records()
        path = run.directory / METRICS
        atomic.write_text(path, "".join(json_text.dumps(record) + "\n" for record in self.records))
        self.file = path.open("a", encoding="utf-8")

    def record(self, record: Record) -> None:
        """Append a line; after an epoch, also rewrite metrics.csv."""
        self.records.append(record)
        self.file.write(json_text.dumps(record) + "\n")
        self.file.flush()
        os.fsync(self.file.fileno())  # the record must be on the disk before the checkpoint that follows it
        if record["kind"] == "epoch":
            epochs = [r for r in self.records if r["kind"] == "epoch"]
            rows = [{key: value for key, value in r.items() if key != "kind"} for r in epochs]
            atomic.write_text(self.run.directory / "metrics.csv", to_csv(rows))

    def close(self, error: BaseException | None) -> None:
        """Draw the curves."""
        self.file.close()
        if self.curves and self.records:
            run_plots.plot_curves(self.run.directory / "curves.png", self.records, self.run.metric, self.run.name)
