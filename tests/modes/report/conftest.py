"""Fixtures that write the files of a run without training."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from visual_transformers.config.validation import validate
from visual_transformers.tables import to_csv

FACTS = {
    "task": "classification",
    "model": "resnet18",
    "data": "digits",
    "recipe": None,
    "seed": 0,
    "settings": "0123456789ab",
    "metric": "top1",
    "parameters": 11_000_000,
    "macs": 1_800_000_000,
    "classes": 10,
    "test_split": False,
    "device": "cpu",
    "precision": "fp32",
    "steps_per_epoch": 20,
    "total_steps": 60,
    "training_samples": 1437,
}


def records(scores: Sequence[float], metric: str, split: str = "val", pace: float = 100.0) -> str:
    """Make a metrics.jsonl with two step records per epoch."""
    lines: list[dict[str, Any]] = []
    for epoch, score in enumerate(scores, start=1):
        for step in (20 * epoch - 10, 20 * epoch):
            lines.append({"kind": "step", "step": step, "epoch": step / 20, "lr": 0.1, "train/loss": 1.0,
                          "images_per_second": pace})  # fmt: skip
        numbers = {"train/loss": 2 - score, f"train/{metric}": score, "val/loss": 1 - score, f"val/{metric}": score / 2}
        lines.append(
            {"kind": "epoch", "step": 20 * epoch, "epoch": float(epoch)} | numbers | {f"{split}/{metric}": score}
        )
    return "".join(json.dumps(line) + "\n" for line in lines)


@pytest.fixture
def leave(tmp_path: Path) -> Callable[..., Path]:
    """Write the files of a run in a folder below `tmp_path`; further arguments are keys of its metadata."""

    def leave_run(
        folder: str,
        *scores: float,
        state: str | None = "finished",
        at: str = "2026-01-01T00:00:00+00:00",
        status: dict[str, Any] | None = None,
        summary: dict[str, Any] | None = None,
        config: dict[str, Any] | None = None,
        class_scores: dict[str, dict[str, float]] | None = None,
        **facts: Any,
    ) -> Path:
        path = tmp_path / folder
        path.mkdir(parents=True)
        about = FACTS | {"name": path.name} | facts
        if state:
            content = {"state": state, "at": at, "about": about} | (status or {})
            (path / "status.json").write_text(json.dumps(content))
        if scores:
            (path / "metrics.jsonl").write_text(records(scores, about["metric"]))
        if state == "finished" or summary:
            (path / "summary.json").write_text(json.dumps(about | {"best": {}} | (summary or {})))
        if config is not None:
            (path / "config.yaml").write_text(yaml.safe_dump(config))
        if class_scores:
            rows = [{"class": name, **row} for name, row in class_scores.items()]
            (path / "classes.csv").write_text(to_csv(rows))
        return path

    return leave_run


@pytest.fixture
def report_of(composed, tmp_path, monkeypatch):
    """Report on `runs` and `sweeps` below `tmp_path` into `runs/report`, and return that folder."""
    from visual_transformers.modes import report

    def run(*overrides: str) -> Path:
        monkeypatch.chdir(tmp_path)
        report.run(validate(composed("mode=report", *overrides)), Path("runs/report"))
        return tmp_path / "runs" / "report"

    return run
