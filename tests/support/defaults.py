"""Train every model file with its default settings on the embedded data, and require each score to reach a floor.

`python -m tests.support.defaults` runs the commands of `PROMISES` word for word, one after the other, and prints a
table of scores and floors. The exit code is 1 if a command fails or misses its floor. It takes hours on two cores.
Started again it continues: a finished run is not repeated, an interrupted one resumes. Runs lie in folders named by a
digest of the program and of their settings, so that a change measures anew whatever it concerns.

`--record` also writes the results, with the settings that gave them, to `experiments/results/defaults.json`, and takes
from there what was measured by the same program with the same settings. The test suite fails when a command's settings
differ from those recorded, so that no default changes without being measured.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from hydra import compose, initialize_config_module
from hydra.errors import HydraException

from visual_transformers import atomic
from visual_transformers.cli.shorthands import expand
from visual_transformers.config.diff import FREE_TO_CHANGE, without
from visual_transformers.config.validation import validate
from visual_transformers.errors import UserError
from visual_transformers.modes.report.run import flatten
from visual_transformers.tables import print_table

ROOT = Path(__file__).parents[2]
RECORD = ROOT / "experiments" / "results" / "defaults.json"
PROGRAM = "python -m visual_transformers"
TOP1, MIOU = 0.95, 0.55
"""Floors of the classifiers on digits and of the segmenters on digit_scenes."""


class Promise(NamedTuple):
    """Arguments of a command, and the least score that it must end with."""

    arguments: str
    floor: float

    @property
    def command(self) -> str:
        """The command as a user types it."""
        return f"{PROGRAM} {self.arguments}".strip()

    def settings(self) -> dict[str, Any]:
        """Compose the command's configuration, and return its `learning_settings`."""
        with initialize_config_module("visual_transformers.conf", version_base="1.3"):
            cfg = compose("config", ["name=default", *expand(shlex.split(self.arguments))])
        return learning_settings(validate(cfg).everything)


def with_seeds(arguments: str, floor: float) -> Iterator[Promise]:
    """Yield the command with seeds 0, 1 and 2; 0 is the default and is not typed."""
    for seed in ("", "seed=1", "seed=2"):
        yield Promise(f"{arguments} {seed}".strip(), floor)


CLASSIFIERS = (
    "seed_resnet18", "seed_vt_resnet18", "resnet34", "vt_resnet34", "resnet50", "vt_resnet50", "resnet101",
    "vt_resnet101",
)  # fmt: skip
SEGMENTERS = ("seed_panoptic_fpn", "seed_vt_fpn", "panoptic_fpn_r101", "vt_fpn_r101")
PROMISES = [
    *with_seeds("", 0.97),
    *with_seeds("model=resnet18", TOP1),
    *with_seeds("task=segmentation model=vt_fpn", MIOU),
    *with_seeds("task=segmentation model=panoptic_fpn", MIOU),
    *(Promise(f"model={name}", TOP1) for name in CLASSIFIERS),
    *(Promise(f"task=segmentation model={name}", MIOU) for name in SEGMENTERS),
]


def digest(promise: Promise) -> str:
    """Return a digest of the program and of a command's settings, on which its score depends."""
    try:
        settings = promise.settings()
    except (HydraException, UserError):  # of which the command itself says more
        settings = {}
    found = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for path in sorted((ROOT / "src").rglob("*.py")):
        found.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes() + b"\0")
    return found.hexdigest()[:12]


def learning_settings(config: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a run that decide what it learns, as a flat dict: neither its seed nor where it runs."""
    return dict(sorted(flatten(without(config, {*FREE_TO_CHANGE, "seed", "inference"})).items()))


def measure(promise: Promise, folder: Path) -> Path | None:
    """Run a command in a folder of its own unless it has finished there; return its run's folder, None if it failed.

    Raises:
        SystemExit: if it was interrupted.
    """
    place = folder / (promise.arguments.replace(" ", ",") or "default")
    place.mkdir(parents=True, exist_ok=True)
    code = 0
    if not list(place.glob("runs/*/summary.json")):
        print(f"$ {promise.command}", flush=True)
        code = subprocess.run([sys.executable, *shlex.split(promise.command)[1:]], cwd=place).returncode
    if code == INTERRUPTED:
        sys.exit(code)
    return None if code else next(place.glob("runs/*/summary.json")).parent


INTERRUPTED = 130
"""The exit code of a run that was asked to stop and saved its state."""


def result(promise: Promise, run: Path) -> dict[str, Any]:
    """Return what a finished run is recorded by."""
    summary = json.loads((run / "summary.json").read_text())
    epochs = [record for line in (run / "metrics.jsonl").open() if (record := json.loads(line))["kind"] == "epoch"]
    metric = summary["metric"]
    return {
        "command": promise.command,
        "metric": metric,
        "score": summary["scores"][metric],
        "epochs": [record[f"val/{metric}"] for record in epochs],
        "train_seconds": round(summary["train_seconds"]),
        "precision": summary["precision"],
        "threads": summary["threads"],
        "torch": summary["torch"],
        "settings": learning_settings(yaml.safe_load((run / "config.yaml").read_text())),
    }


def row(promise: Promise, found: dict[str, Any] | None) -> dict[str, str]:
    """Return a line of the printed table."""
    if found is None:
        return {"command": promise.command, "score": "-", "floor": f"{promise.floor}", "verdict": "FAILED"}
    return {
        "command": promise.command,
        "score": f"{found['score']:.4f}",
        "floor": f"{promise.floor}",
        "training, s": f"{found['train_seconds']}",
        "verdict": "ok" if found["score"] >= promise.floor else "BELOW THE FLOOR",
    }


def recorded() -> dict[str, dict[str, Any]]:
    """Return the recorded results by their commands."""
    return {found["command"]: found for found in json.loads(RECORD.read_text())}


def write_record(found: dict[str, Any]) -> None:
    """Put a result in the place of the one that is recorded of the same command."""
    merged = recorded() | {found["command"]: found}
    ordered = [merged[promise.command] for promise in PROMISES if promise.command in merged]
    atomic.write_text(RECORD, json.dumps(ordered, indent=1) + "\n")


def main() -> None:
    """Measure, print the table, and exit with 1 unless every command kept its promise."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=ROOT / ".defaults", help="where the runs lie")
    parser.add_argument("--select", default="", help="only commands that contain this text")
    parser.add_argument("--record", action="store_true", help="write experiments/results/defaults.json")
    options = parser.parse_args()
    rows = []
    for promise in PROMISES:
        if options.select in promise.command:
            code = digest(promise)
            found = recorded().get(promise.command) if options.record else None
            if found is None or found["code"] != code:
                run = measure(promise, options.folder.resolve() / code)
                found = result(promise, run) | {"code": code} if run else None
            if found and options.record:
                write_record(found)
            rows.append(row(promise, found))
    print_table("scores of the default settings, and their floors", rows)
    sys.exit(any(line["verdict"] != "ok" for line in rows))


if __name__ == "__main__":
    main()
