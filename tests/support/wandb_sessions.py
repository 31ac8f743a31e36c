"""Starts of a run that is nothing but records, with its loggers; in a process of its own where it is killed."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.support.wandb_server import WandbServer
from visual_transformers.errors import Interrupted, RunError
from visual_transformers.loggers import Files, Logger, Loggers, Record, RunInfo
from visual_transformers.loggers.wandb import transaction_log

EPOCH = 5
"""Steps, of which the last one also has an epoch's record."""
TOTAL = 40
SOON = 12.0
"""Seconds in which W&B starts and what was logged is in its files; left alone it writes every 15."""


def records(first: int, last: int) -> list[Record]:
    """Those of the steps after `first` up to `last`; each number is a function of the step."""
    found = []
    for step in range(first + 1, last + 1):
        moment = {"step": step, "epoch": step / EPOCH, "lr": 0.1 / step}
        found.append({"kind": "step", **moment, "train/loss": 1 / step, "images_per_second": 10.0 + step})
        if step % EPOCH == 0:
            scores = {"train/loss": 2 / step, "train/top1": 0.5, "val/loss": 3 / step, "val/top1": 1 - 1 / step}
            found.append({"kind": "epoch", **moment, **scores})
    return found


def info(folder: Path, step: int = 0, **about: Any) -> RunInfo:
    """A run that goes on from a step."""
    about = {"settings": "alike", "seed": 0, "commit": "0123456789ab+", "parameters": 7, "macs": 8} | about
    scored = step - step % EPOCH
    return RunInfo("run", folder, "top1", step, scored, TOTAL, "", config={"training": {"epochs": 8}}, metadata=about)


def session(logger: Logger, run: RunInfo, last: int, error: BaseException | None = None) -> None:
    """Log the records of the steps up to `last`, and end by the error if there is one."""
    wait_for_the_next_second(run.directory)
    with suppress(RunError, Interrupted), Loggers([Files(curves=False), logger], run) as log:
        for record in records(run.step, last):
            log.record(record)
        if error:
            raise error


def killed_session(logger: Logger, run: RunInfo, last: int, when: Callable[[], bool]) -> None:
    """The same, but that its process is killed by SIGKILL once `when` is true after all records were logged."""

    def logged_and_killed() -> None:
        with Loggers([Files(curves=False), logger], run) as log:
            for record in records(run.step, last):
                log.record(record)
            while not when():
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGKILL)

    wait_for_the_next_second(run.directory)
    process = multiprocessing.get_context("fork").Process(target=logged_and_killed)
    process.start()
    process.join(SOON)
    still_waiting = process.is_alive()
    process.kill()
    process.join()
    assert not still_waiting and process.exitcode == -signal.SIGKILL


def wait_for_the_next_second(folder: Path) -> None:
    """Files of W&B and TensorBoard are put in order by the second of their start; real runs take longer to start."""
    if logs(folder) or (folder / "tensorboard").is_dir():
        time.sleep(1)


def lines(folder: Path) -> list[Record]:
    """What metrics.jsonl has."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def as_in_the_file(row: dict[str, Any]) -> Record:
    """A row of W&B's as the line of metrics.jsonl that it mirrors."""
    return {name.replace("train_epoch/", "train/"): value for name, value in row.items() if name[0] != "_"}


def logs(folder: Path) -> list[Path]:
    """W&B's logs in a run's folder, the earliest first."""
    return sorted(folder.glob("wandb/*run-*-*/run-*.wandb"), key=lambda path: path.parent.name.split("run-")[1])


def inspected(log: Path) -> list[dict[str, Any]]:
    """The messages of a log as W&B's own reader shows them, each with its `type`."""
    return [json.loads(line) for line in called("leet", "inspect", "--json", str(log)).splitlines()]


def called(*arguments: str, **environment: str) -> str:
    """What the command `wandb` prints; it leaves its own files in a folder that nobody needs."""
    command = [sys.executable, "-m", "wandb", *arguments]
    with TemporaryDirectory() as folder:
        return subprocess.run(
            command, cwd=folder, env=os.environ | environment, check=True, capture_output=True, text=True, timeout=60
        ).stdout


def of_type(messages: list[dict[str, Any]], kind: str) -> list[Any]:
    """Those of a type, without what surrounds them."""
    return [message[kind] for message in messages if message["type"] == kind]


def has_step(folder: Path, step: int) -> bool:
    """Whether W&B's logs have a record of a step by now."""
    return any(row["step"] == step for log in logs(folder) for row in transaction_log.read_rows(log))


def sent_by_hand(server: WandbServer, *arguments: object) -> None:
    """What `wandb sync` does with these arguments."""
    called("sync", *map(str, arguments), **server.environment())


def history(folder: Path) -> list[Record]:
    """The rows of all logs, as metrics.jsonl would have them."""
    return [as_in_the_file(row["item"]) for log in logs(folder) for row in of_type(inspected(log), "history")]


def wandb_processes() -> Iterator[int]:
    """W&B's own processes that this one has started."""
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
            if int(parent) == os.getpid() and b"wandb-core" in (folder / "cmdline").read_bytes():
                yield int(folder.name)
