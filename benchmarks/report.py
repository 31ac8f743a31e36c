"""How long mode=report takes for a thousand runs of 300 epochs.

`python benchmarks/report.py` makes such runs in a temporary folder (about 850 MB), reports on them in a process of its
own, and prints the seconds of the whole command, and of the same command on a single run: its start, which is that of
any command, and the drawing of a few pictures. `--runs` and `--epochs` make fewer.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import numpy as np
import yaml

from visual_transformers.tables import to_csv

MODELS = {"resnet18": (11.7e6, 1.81e9), "vt_resnet18": (11.7e6, 1.58e9), "vt_resnet34": (21.9e6, 3.30e9)}
DATA = {"imagenet": 1000, "imagenette": 10}
SEEDS, STEPS, LOG_EVERY = 5, 150, 10
"""Runs of a row; optimizer steps of an epoch, and between two records."""
UNFINISHED = 10
"""One of so many runs is stopped; of those all epochs are read."""
DIFFERENT = 10
"""Runs with records of their own; others have copies, which are no faster to read."""


def records(epochs: int, random: np.random.Generator) -> Iterator[dict[str, float | str]]:
    """What a run leaves in metrics.jsonl: steps, and an epoch after its steps."""
    best = 0.7 + 0.03 * random.random()
    for epoch in range(1, epochs + 1):
        for step in range((epoch - 1) * STEPS + LOG_EVERY, epoch * STEPS + 1, LOG_EVERY):
            yield {"kind": "step", "step": step, "epoch": step / STEPS, "lr": 0.1 * random.random(),
                   "train/loss": 2 * random.random(), "train/gradient_norm": random.random(),
                   "images_per_second": round(500 + 20 * random.random(), 1)}  # fmt: skip
        progress = 1 - np.exp(-epoch / epochs * 5) + 0.005 * random.standard_normal()
        scores = {"loss": 6 * (1.1 - best * progress), "top1": best * progress, "top5": best * progress**0.3}
        numbers = {f"{split}/{name}": float(value) for split in ("train", "val") for name, value in scores.items()}
        yield {"kind": "epoch", "step": epoch * STEPS, "epoch": float(epoch), "lr": 0.1} | numbers


def make(root: Path, *, runs: int, epochs: int) -> None:
    """Runs of a few models on two data sets, five seeds a row; rows differ in the rate, and some runs stopped."""
    random = np.random.default_rng(0)
    texts = ["".join(json.dumps(record) + "\n" for record in records(epochs, random)) for _ in range(DIFFERENT)]
    config = yaml.safe_load((Path(__file__).parents[1] / "conf" / "model" / "vt_resnet18.yaml").read_text())
    rates = range(-(-runs // (len(MODELS) * len(DATA) * SEEDS)))
    for i, (rate, model, data, seed) in enumerate(product(rates, MODELS, DATA, range(SEEDS))):
        if i == runs:
            break
        folder = root / f"{model}-{data}-{rate}-seed{seed}"
        folder.mkdir(parents=True)
        (folder / "metrics.jsonl").write_text(texts[i % DIFFERENT])
        lr = round(0.01 * (rate + 1), 4)
        settings = {"seed": seed, "model": config, "optimizer": {"_target_": "torch.optim.SGD", "lr": lr}}
        (folder / "config.yaml").write_text(yaml.safe_dump(settings))
        parameters, macs = MODELS[model]
        about = {"name": folder.name, "task": "classification", "model": model, "data": data, "recipe": None,
                 "seed": seed, "settings": f"{model}-{data}-{rate}", "metric": "top1", "parameters": int(parameters),
                 "macs": int(macs), "classes": DATA[data], "test_split": False, "steps_per_epoch": STEPS,
                 "total_steps": STEPS * epochs, "training_samples": 64 * STEPS}  # fmt: skip
        state = "stopped" if i % UNFINISHED == 0 else "finished"
        status = {"state": state, "at": f"2026-01-01T00:00:{i % 60:02}+00:00", "about": about}
        (folder / "status.json").write_text(json.dumps(status))
        best = {"epoch": epochs, "top1": 0.7 + 0.01 * random.random()}
        (folder / "summary.json").write_text(json.dumps(about | {"best": best}))
        classes = [{"class": f"class {c}", "recall": random.random(), "precision": 0.5} for c in range(DATA[data])]
        (folder / "classes.csv").write_text(to_csv(classes))


def report_on(folder: Path) -> tuple[float, float]:
    """Seconds that the whole command takes there, by the clock and of processor time."""
    before, began = os.times(), time.perf_counter()
    command = [sys.executable, "-m", "visual_transformers", "mode=report"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    elapsed, after = time.perf_counter() - began, os.times()
    return elapsed, after.children_user + after.children_system - before.children_user - before.children_system


def main() -> None:
    """Make the runs, and time the command on one and on all of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=300)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        one, all_of_them = Path(folder, "one"), Path(folder, "all")
        make(one / "runs", runs=1, epochs=given.epochs)
        make(all_of_them / "runs", runs=given.runs, epochs=given.epochs)
        size = sum(path.stat().st_size for path in Path(folder).rglob("*.jsonl")) / 1e6
        print(f"{given.runs} runs of {given.epochs} epochs, {size:.0f} MB of records")
        for what, place in {"one run": one, "all runs": all_of_them}.items():
            elapsed, used = report_on(place)
            print(f"mode=report on {what:8s} {elapsed:5.1f} s, {used:5.1f} s of processor time")


if __name__ == "__main__":
    main()
