"""Starting the processes of a run: none more, as many as `hardware.devices` says, or those that others started."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import dataclass
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from types import FrameType

import torch
from torch import multiprocessing
from torch.distributed import TCPStore  # type: ignore[attr-defined]
from torch.multiprocessing import _prctl_pr_set_pdeathsig  # type: ignore[attr-defined]
from torch.multiprocessing.spawn import (
    ProcessContext,
    ProcessExitedException,
    ProcessRaisedException,
    start_processes,
)

from visual_transformers.config.schema import Config
from visual_transformers.distributed import collectives, environment
from visual_transformers.distributed.signals import STOPPING
from visual_transformers.errors import ConfigError, RunError, UserError

Work = Callable[[Config, Path], float | None]
GRACE = 5.0
"""Seconds that processes have to end by themselves once one of them failed."""
LONGEST_TRACEBACK = 8000


def on_devices(work: Work, cfg: Config, directory: Path) -> float | None:
    """`work(cfg, directory)` on every device; returns what the main process returns.

    Raises:
        Exception: what any of the processes raised first. All of them have ended by then.
    """
    if environment.started_as_one_of_many():
        return _beside_others(work, cfg, directory)
    count = devices(cfg)
    return work(cfg, directory) if count == 1 else _on_this_machine(count, work, cfg, directory)


def devices(cfg: Config) -> int:
    """How many devices of this machine the run is to use.

    Raises:
        ConfigError: if there are not so many.
    """
    device, wanted = torch.device(cfg.hardware["device"]), cfg.hardware.get("devices", 1)
    if device.type == "cpu":
        if wanted is None:
            raise ConfigError("hardware.devices=null is for GPUs; on a CPU say how many processes there are to be")
        return int(wanted)
    there = torch.cuda.device_count() if device.type == "cuda" else 1
    if device.index is not None and wanted != 1:
        raise ConfigError(f"hardware.device={device} names one device; for several use hardware.device={device.type}")
    if wanted is not None and wanted > max(there, 1):
        raise ConfigError(f"hardware.devices={wanted}: this machine has {there} of type {device.type}")
    return max(there, 1) if wanted is None else int(wanted)


def _beside_others(work: Work, cfg: Config, directory: Path) -> float | None:
    with (
        collectives.joined(),
        open(os.devnull, "w") as nowhere,  # noqa: PTH123
        nullcontext() if collectives.is_main() else redirect_stdout(nowhere),
    ):
        return work(cfg, directory)


@dataclass
class Outcome:
    """How a process ended: with a result, or with an error."""

    rank: int
    result: float | None = None
    error: BaseException | None = None


def _on_this_machine(count: int, work: Work, cfg: Config, directory: Path) -> float | None:
    """Start `count` processes, pass signals on to them, and wait for their ends."""
    # This process holds the store by which they find each other, at a port that is free, as torchrun does.
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    outcomes = multiprocessing.get_context("spawn").SimpleQueue()
    found: list[Outcome] = []
    environment = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
    }
    arguments = (os.getpid(), multiprocessing.get_start_method(), environment, outcomes, work, cfg, directory)
    processes = start_processes(_process, arguments, count, join=False, start_method="spawn")
    died = None
    with _signals_passed_on(processes) as received:
        try:
            while not processes.join(timeout=0.2, grace_period=GRACE):
                _drain(outcomes, found)
        except (ProcessRaisedException, ProcessExitedException) as error:
            died = error
    _drain(outcomes, found)
    if isinstance(died, ProcessExitedException) and died.exit_code < 0 and not received:
        raise RunError(f"{died}, and the others were ended; perhaps the memory ran out (see dmesg)")
    for outcome in found:  # in the order in which they ended: what failed first is the cause of what failed later
        if outcome.error:
            raise outcome.error
    if died and received:
        raise KeyboardInterrupt from died
    if died:
        raise RuntimeError(str(died)) from died
    return next((outcome.result for outcome in found if outcome.rank == 0), None)


def _process(
    local_rank: int,
    parent: int,
    start_method: str,
    environment: dict[str, str],
    outcomes: SimpleQueue[Outcome],
    work: Work,
    cfg: Config,
    directory: Path,
) -> None:
    """The whole life of one process."""
    _prctl_pr_set_pdeathsig(signal.SIGKILL)  # none goes on, and none holds the run's lock, when the parent is killed
    if os.getppid() != parent:
        os._exit(1)
    multiprocessing.set_start_method(start_method, force=True)  # or loader processes would import all anew, too
    os.setpgid(0, 0)  # or a terminal's Ctrl-C would come twice: once from there, and once from the parent
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    os.environ.update(environment | {"RANK": str(local_rank), "LOCAL_RANK": str(local_rank)})
    try:
        result = _beside_others(work, cfg, directory)
    except BaseException as error:
        outcomes.put(_failure(local_rank, error))
        sys.stdout.flush()
        os._exit(1)  # at once: an ordinary exit may wait for processes that wait for this one
    outcomes.put(Outcome(local_rank, result if local_rank == 0 else None))


def _failure(number: int, error: BaseException) -> Outcome:
    """An error in a form that reaches the parent, its traceback in its message if a user cannot have expected it."""
    if isinstance(error, UserError | KeyboardInterrupt | OSError):
        return Outcome(number, error=error)
    trace = "".join(traceback.format_exception(error))[-LONGEST_TRACEBACK:]
    return Outcome(number, error=RuntimeError(f"process {number} failed:\n{trace}"))


def _drain(outcomes: SimpleQueue[Outcome], found: list[Outcome]) -> None:
    """Take out what is there, for a full pipe would hold up a process that wants to end."""
    while not outcomes.empty():
        found.append(outcomes.get())


@contextmanager
def _signals_passed_on(processes: ProcessContext) -> Iterator[list[int]]:
    """A context in which requests to stop go to the processes, which agree on when; gives those that came."""
    received: list[int] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        received.append(number)
        for process in processes.processes:
            if process.is_alive():
                os.kill(process.pid, number)

    before = {number: signal.signal(number, pass_on) for number in STOPPING}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
