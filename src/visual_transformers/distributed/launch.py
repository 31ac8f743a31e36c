"""Launcher: run in this process, in `hardware.devices` new ones, or in those that torchrun or SLURM started."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import nullcontext, redirect_stdout
from dataclasses import dataclass
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from types import FrameType

import torch
from torch import multiprocessing
from torch.distributed import TCPStore  # type: ignore[attr-defined]
from torch.multiprocessing import _prctl_pr_set_pdeathsig  # type: ignore[attr-defined]
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException, start_processes

from visual_transformers.config.schema import Config
from visual_transformers.distributed import collectives, environment
from visual_transformers.distributed.signals import handle_stop_signals
from visual_transformers.errors import ConfigError, RunError, UserError

Work = Callable[[Config, Path], float | None]
GRACE = 5.0
"""Seconds that the other processes have to end after one has failed."""
MAX_TRACEBACK = 8000
"""Characters."""


def run_on_devices(work: Work, cfg: Config, directory: Path) -> float | None:
    """Run `work(cfg, directory)` on every device and return the result of rank 0.

    Raises:
        Exception: the first one that any of the processes raised, after all of them have ended.
    """
    if environment.is_multi_process():
        return _run_in_group(work, cfg, directory)
    count = device_count(cfg)
    return work(cfg, directory) if count == 1 else _spawn(count, work, cfg, directory)


def device_count(cfg: Config) -> int:
    """Return the number of devices of this machine that the run uses.

    Raises:
        ConfigError: if the machine has fewer.
    """
    device, wanted = torch.device(cfg.hardware["device"]), cfg.hardware.get("devices", 1)
    if device.type == "cpu":
        if wanted is None:
            raise ConfigError("hardware.devices=null is for GPUs. On a CPU give the number of processes.")
        return int(wanted)
    available = torch.cuda.device_count() if device.type == "cuda" else 1
    if device.index is not None and wanted != 1:
        raise ConfigError(f"hardware.device={device} names one device. For several use hardware.device={device.type}.")
    if wanted is not None and wanted > max(available, 1):
        raise ConfigError(f"hardware.devices={wanted}: this machine has {available} of type {device.type}")
    return max(available, 1) if wanted is None else int(wanted)


def _run_in_group(work: Work, cfg: Config, directory: Path) -> float | None:
    """Run `work` as one rank of a process group; only rank 0 prints."""
    with (
        collectives.join_process_group(),
        open(os.devnull, "w") as devnull,  # noqa: PTH123
        nullcontext() if collectives.is_main() else redirect_stdout(devnull),
    ):
        return work(cfg, directory)


@dataclass
class Outcome:
    """Result or error with which a process ended."""

    rank: int
    result: float | None = None
    error: BaseException | None = None


def _spawn(count: int, work: Work, cfg: Config, directory: Path) -> float | None:
    """Start `count` processes, forward signals to them, and wait until they have ended."""
    # Like torchrun, this process holds the store through which they connect, at a free port.
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    queue = multiprocessing.get_context("spawn").SimpleQueue()
    outcomes: list[Outcome] = []
    variables = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
    }
    arguments = (os.getpid(), multiprocessing.get_start_method(), variables, queue, work, cfg, directory)
    processes = start_processes(_process, arguments, count, join=False, start_method="spawn")
    received: list[int] = []

    def forward(number: int, frame: FrameType | None) -> None:
        """Forward a stop signal to the ranks, which agree on the step after which they stop."""
        received.append(number)
        for process in processes.processes:
            if process.is_alive():
                os.kill(process.pid, number)

    failure: Exception | None = None
    with handle_stop_signals(forward):
        try:
            while not processes.join(timeout=0.2, grace_period=GRACE):
                _drain(queue, outcomes)
        except (ProcessRaisedException, ProcessExitedException) as error:
            failure = error
    _drain(queue, outcomes)
    _raise_first_error(outcomes, failure, was_signalled=bool(received))
    return next((outcome.result for outcome in outcomes if outcome.rank == 0), None)


def _raise_first_error(outcomes: list[Outcome], failure: Exception | None, *, was_signalled: bool) -> None:
    """Raise the first error of any process, or else the launcher's own description of a failure."""
    if isinstance(failure, ProcessExitedException) and failure.exit_code < 0 and not was_signalled:
        raise RunError(f"{failure}, and the other processes were stopped; perhaps the memory ran out (see dmesg)")
    for outcome in outcomes:  # in the order in which they ended: the first failure caused the later ones
        if outcome.error:
            raise outcome.error
    if failure:
        raise (KeyboardInterrupt if was_signalled else RuntimeError(str(failure))) from failure


def _process(
    local_rank: int,
    parent: int,
    start_method: str,
    variables: dict[str, str],
    queue: SimpleQueue[Outcome],
    work: Work,
    cfg: Config,
    directory: Path,
) -> None:
    """Run one rank from start to end."""
    _prctl_pr_set_pdeathsig(signal.SIGKILL)  # a killed parent must leave no process that still holds the run's lock
    if os.getppid() != parent:
        os._exit(1)
    multiprocessing.set_start_method(start_method, force=True)  # else loader workers would be spawned too, and slow
    os.setpgid(0, 0)  # else a terminal's Ctrl-C would arrive twice: directly, and forwarded by the parent
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    os.environ.update(variables | {"RANK": str(local_rank), "LOCAL_RANK": str(local_rank)})
    try:
        result = _run_in_group(work, cfg, directory)
    except BaseException as error:
        queue.put(_failure(local_rank, error))
        sys.stdout.flush()
        os._exit(1)  # immediately: a normal exit may wait for processes that wait for this one
    queue.put(Outcome(local_rank, result if local_rank == 0 else None))


def _failure(rank: int, error: BaseException) -> Outcome:
    """Make an error picklable; one that is not meant for users carries its traceback in the message."""
    if isinstance(error, UserError | KeyboardInterrupt | OSError):
        return Outcome(rank, error=error)
    trace = "".join(traceback.format_exception(error))[-MAX_TRACEBACK:]
    return Outcome(rank, error=RuntimeError(f"process {rank} failed:\n{trace}"))


def _drain(queue: SimpleQueue[Outcome], outcomes: list[Outcome]) -> None:
    """Move outcomes out of the queue; a process cannot end while the pipe behind it is full."""
    while not queue.empty():
        outcomes.append(queue.get())
