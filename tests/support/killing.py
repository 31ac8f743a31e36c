"""Kill a training again and again, and see that it ends as if nothing had happened.

`python -m tests.support.killing` trains a tiny VT-ResNet-18 on digits once uninterrupted. Then it starts the same
command in another folder, kills it by SIGKILL, SIGTERM or SIGUSR2 at a drawn moment, and starts it again, until there
were `--kills` kills. Weights, optimizer and records must be those of the uninterrupted run, bit for bit.

Only the process that was started is sent a signal: what it started itself must end by itself. The next start does not
wait for that. What a run is doing is told from its output and its files, so that kills can be aimed. A kill that comes
when all is done does not count. Needs /proc, as Linux has it.
"""

from __future__ import annotations

import argparse
import random
import re
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from tests.support.run_differences import differences
from tests.support.watching import ANY, EVALUATING, SAVING, SCORING, STARTING, STEP, Moment, WatchedProcess
from visual_transformers.tables import print_table

EPOCHS, STEPS_PER_EPOCH = 12, 9
SETTINGS = [
    "name=run", "hardware.threads=1", "hardware.workers=1",
    "data=image_folder", "data/augmentation=mixup_cutmix", "data.augmentation.min_area=0.5", "data.image_size=32",
    "data.batch_size=16", "data.eval_batch_size=16", "task.label_smoothing=0.1",
    "model.token_channels=32", "model.dropout=0.2", "model.stochastic_depth=0.2",
    "training.log_every=3", "training.samples=2", "training.ema_decay=0.9", "checkpoint.every.steps=4",
    "logger.files.curves=false",
]  # fmt: skip
"""A run of seconds that draws random numbers wherever it can. A record every 3 steps tells how far it is."""

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGUSR2)
DELAYS = {STEP: 0.8, EVALUATING: 0.15, SAVING: 0.05, SCORING: 0.3, ANY: 2.0}
"""Seconds up to which a kill is put off at random, once the run does what is aimed at; if it is over by then, the next
time counts. While a run starts, they are measured."""

GONE_WITHIN = 10.0
"""Seconds in which orphans of a killed process must end; an idle loader process looks for its parent every 5 s."""

STOPPED = 130
"""The exit code of a run that was asked to stop and saved its state."""


class Aim(NamedTuple):
    """A signal, and what the run is to be doing then."""

    number: signal.Signals
    phase: str


@dataclass
class Kill:
    """A signal that was sent, and what came of it."""

    number: signal.Signals
    moment: Moment
    seconds: float
    code: int
    process: WatchedProcess
    orphans: Future[tuple[int, float]]
    went_on: tuple[int, int] | None = None
    """Steps from which and to which the next start goes; None if that one was killed before it said so."""

    @property
    def stopped_at(self) -> int | None:
        """The step that it says it has saved."""
        said = re.search(r"stopped at step (\d+) of \d+, saved in .*; the same command resumes it", self.process.output)
        return int(said[1]) if said else None

    @property
    def too_late(self) -> bool:
        """Whether the run had come to its end; asked to stop in the last epoch it may finish that, and then goes on.

        It is not too late for a signal during the final scoring that is heeded by finishing it.
        """
        total = self.process.span[1] if self.process.span else 0
        last_epoch = self.number == signal.SIGKILL or self.moment.step >= total - STEPS_PER_EPOCH
        return self.code == 0 and last_epoch and self.moment.phase != SCORING

    def faults(self) -> list[str]:
        """What should have been otherwise, but for the weights and records."""
        found, name = [], self.number.name
        asked = self.number != signal.SIGKILL and self.moment.phase not in (STARTING, SCORING)
        allowed = {STOPPED} if asked else {-self.number}
        if self.number != signal.SIGKILL and not asked:  # nothing is lost then
            allowed |= {STOPPED, 0} if self.moment.phase == SCORING else {STOPPED}
        if self.code not in allowed:
            found.append(f"ended with {self.code}, not with {' or '.join(map(str, sorted(allowed)))}")
        if asked and self.stopped_at is None:
            found.append("did not say at which step it stopped")
        if asked and "Traceback" in self.process.output:
            found.append("printed a traceback")
        if asked and None not in (self.went_on, self.stopped_at) and self.went_on[0] != self.stopped_at:
            found.append(f"stopped at step {self.stopped_at}, but went on at step {self.went_on[0]}")
        if self.orphans.result()[1] > GONE_WITHIN:
            found.append(f"left processes behind that had not ended after {GONE_WITHIN:g} s")
        return [f"{self.process.log}: {name} at {self.moment.phase}, step {self.moment.step}: {f}" for f in found]

    def row(self) -> dict[str, str]:
        """The kill as a row of the table."""
        left, gone = self.orphans.result()
        return {
            "signal": self.number.name,
            "after (s)": f"{self.seconds:.1f}",
            "doing": self.moment.phase,
            "step": str(self.moment.step),
            "exit": str(self.code),
            "went on": str(self.went_on[0]) if self.went_on else "-",
            "orphans": f"{left} ({gone:.1f} s)" if left else "none",
        }


@dataclass
class Campaign:
    """Runs of one command that are killed, all kills, and whatever is not as it should be."""

    folder: Path
    settings: list[str]
    draws: random.Random
    kills: list[Kill] = field(default_factory=list)
    runs: list[Path] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    delays: dict[str, float] = field(default_factory=DELAYS.copy)
    watchers: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(max_workers=64))

    def carry_out(self, aims: Sequence[Aim]) -> None:
        """Make the kills that are aimed at, in as many runs as that takes, and compare each run's folder."""
        whole, left = self.uninterrupted(), list(aims)
        while left or not self.runs:
            before = len(left)
            self.runs.append(self.killed(self.folder / f"killed-{len(self.runs) + 1}", left))
            self.faults += differences(whole, self.runs[-1])
            self.faults += left_behind(self.runs[-1])
            if left and len(left) == before:
                self.faults.append(f"{self.runs[-1]}: {left[0].number.name} at {left[0].phase} found no moment in it")
                break
        self.faults += [fault for kill in self.kills for fault in kill.faults()]

    def uninterrupted(self) -> Path:
        """The folder of a run that nobody disturbs; it tells how long a start takes.

        Raises:
            RuntimeError: if it fails.
        """
        with WatchedProcess(self.folder / "whole", self.settings, STEPS_PER_EPOCH) as process:
            for now in process.moments():
                if now.phase == STARTING:
                    self.delays[STARTING] = 0.8 * process.seconds
            if process.popen.returncode:
                raise RuntimeError(f"the uninterrupted run failed:\n{process.output}")
            print(f"uninterrupted: {process.seconds:.1f} s", flush=True)
            return process.run

    def killed(self, folder: Path, aims: list[Aim]) -> Path:
        """The folder of a run that is killed and started again until it has ended; takes off the list what it met."""
        last: Kill | None = None
        while True:
            with WatchedProcess(folder, self.settings, STEPS_PER_EPOCH) as process:
                aim = aims[0] if aims else None
                now = process.wait_for(aim.phase, self.draws.uniform(0, self.delays[aim.phase])) if aim else None
                seconds = process.seconds
                if aim and now:
                    process.popen.send_signal(aim.number)
                code = process.wait()
            if last:
                last.went_on = process.span
            if not (aim and now):
                self.faults += [f"{process.log}: ended with {code}\n{process.output}"] if code else []
                if process.orphans(GONE_WITHIN)[1] > GONE_WITHIN:
                    self.faults.append(f"{process.log}: ended, but left processes behind")
                return process.run
            last = Kill(aim.number, now, seconds, code, process, self.watchers.submit(process.orphans, GONE_WITHIN))
            if last.too_late:
                return process.run
            aims.pop(0)
            self.kills.append(last)
            print(f"{aim.number.name} after {seconds:.1f} s, {now.phase}, step {now.step}: {code}", flush=True)
            if code == 0:
                return process.run

    def print(self) -> None:
        """The table of all kills, and the verdict."""
        print_table(TITLE, [kill.row() for kill in self.kills])
        print(*(f"fault: {fault}" for fault in self.faults), sep="\n")
        phases = ", ".join(f"{n} at {phase}" for phase, n in Counter(kill.moment.phase for kill in self.kills).items())
        verdict = f"{len(self.faults)} faults" if self.faults else "the weights and records of an uninterrupted run"
        print(f"{len(self.kills)} kills ({phases}) of {len(self.runs)} runs: {verdict}")


TITLE = "step: of the last record; went on: the next start's first; orphans: how many, and when the last one ended"


def kill_and_compare(
    folder: Path, aims: Sequence[Aim], *, seed: int = 0, epochs: int = EPOCHS, devices: int = 1
) -> Campaign:
    """A campaign of tiny trainings in a folder, carried out."""
    several = [f"hardware.devices={devices}"] if devices > 1 else []
    settings = [*SETTINGS, f"data.root={pictures(folder / 'pictures')}", f"training.epochs={epochs}", *several]
    campaign = Campaign(folder, settings, random.Random(seed))
    campaign.carry_out(aims)
    return campaign


def plan(kills: int) -> list[Aim]:
    """Every signal at every phase in turn; the last kill is at the final scoring."""
    pairs = islice(zip(cycle(SIGNALS), cycle((STEP, SAVING, EVALUATING, ANY, STARTING))), kills)
    return [Aim(number, SCORING if place == kills - 1 else phase) for place, (number, phase) in enumerate(pairs)]


def pictures(folder: Path) -> Path:
    """scikit-learn's digits as files, for which there is mixup: 14 of each class for training, 6 for validation."""
    images, labels = load_digits(return_X_y=True)
    for digit in range(10):
        for place, image in enumerate(images[labels == digit][:20]):
            path = folder / ("train" if place < 14 else "val") / str(digit) / f"{place}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray((image.reshape(8, 8) * 15).astype(np.uint8)).resize((40, 40)).save(path)
    return folder


def left_behind(run: Path) -> list[str]:
    """Temporary files of killed processes that are still there."""
    found = [path for path in run.rglob(".*.*") if path.is_file() and ".hydra" not in path.parts]
    return [f"{path}: {path.stat().st_size / 1e6:.1f} MB left behind" for path in sorted(found)]


def main() -> None:
    """The command line; exit code 1 if anything was not as it should be, and then all files stay."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="how many")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--devices", type=int, default=1, help="hardware.devices of the run")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help=f"of the run, of {STEPS_PER_EPOCH} steps each")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="killing-"))
    campaign = kill_and_compare(
        folder, plan(options.kills), seed=options.seed, epochs=options.epochs, devices=options.devices
    )
    campaign.print()
    if campaign.faults:
        sys.exit(f"all files are in {folder}")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
