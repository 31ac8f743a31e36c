"""Progress in the files of the run's folder."""

from __future__ import annotations

import os
from dataclasses import dataclass

from visual_transformers import atomic, json_text
from visual_transformers.loggers.base import Logger, RunInfo
from visual_transformers.loggers.records import Record
from visual_transformers.plotting import run_plots
from visual_transformers.runs.run_dir import METRICS
from visual_transformers.tables import csv_text


@dataclass
class Files(Logger):
    """metrics.jsonl with every record, metrics.csv with one line an epoch, curves.png.

    Args:
        curves: whether curves.png is drawn when the run ends or stops.
    """

    curves: bool = True

    def start(self, run: RunInfo) -> None:
        """Take up the records of an earlier part of the run."""
        self.run, self.records = run, run.earlier()
        path = run.directory / METRICS
        atomic.write_text(path, "".join(json_text.dumps(record) + "\n" for record in self.records))
        self.file = path.open("a", encoding="utf-8")

    def record(self, record: Record) -> None:
        """Append a line, and write the table anew after an epoch."""
        self.records.append(record)
        self.file.write(json_text.dumps(record) + "\n")
        self.file.flush()
        os.fsync(self.file.fileno())  # before the state that follows it is
        if record["kind"] == "epoch":
            self._write_csv([r for r in self.records if r["kind"] == "epoch"])

    def _write_csv(self, epochs: list[Record]) -> None:
        rows = [{key: value for key, value in record.items() if key != "kind"} for record in epochs]
        atomic.write_text(self.run.directory / "metrics.csv", csv_text(rows))

    def close(self, error: BaseException | None) -> None:
        """Draw the curves."""
        self.file.close()
        if self.curves and self.records:
            run_plots.curves(self.run.directory / "curves.png", self.records, self.run.metric, self.run.name)
