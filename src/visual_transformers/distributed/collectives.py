"""Ranks of the processes that train one model, and the collectives between them.

Every function works in a single process too. Those marked "Collective" must be called by all ranks in the same order.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from threading import Timer
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from visual_transformers.errors import PeerLostError, RunError


def rank() -> int:
    """Return the rank of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Return the number of processes that train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main() -> bool:
    """Return True on rank 0, the only one that writes files and prints."""
    return rank() == 0


def local_rank() -> int:
    """Return the rank of this process on its machine, which is also the index of its device."""
    return int(os.environ["LOCAL_RANK"]) if dist.is_initialized() else 0


def local_world_size() -> int:
    """Return the number of processes on this machine."""
    return int(os.environ["LOCAL_WORLD_SIZE"]) if dist.is_initialized() else 1


@contextmanager
def join_process_group() -> Iterator[None]:
    """Join the process group that torchrun's variables describe, and leave it at the end. Collective.

    CPU tensors are sent by gloo, tensors on NVIDIA GPUs by NCCL.

    Raises:
        RunError: if the processes cannot connect.
        PeerLostError: if the connection to another process is lost.
    """
    address = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
    notice = f"waiting for all {os.environ['WORLD_SIZE']} processes at {address}"
    timer = Timer(SECONDS_BEFORE_NOTICE, lambda: print(notice, flush=True))
    timer.daemon = True
    if os.environ["RANK"] == "0":
        timer.start()
    try:
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    except (RuntimeError, ValueError) as error:  # torch has an error for each way to fail, and most are RuntimeErrors
        port_in_use = "EADDRINUSE" in str(error)
        reason = "another program has that port; choose another" if port_in_use else str(error).splitlines()[0]
        raise RunError(
            f"the processes of this run cannot meet at {address} (MASTER_ADDR, MASTER_PORT): {reason}"
        ) from error
    finally:
        timer.cancel()
    try:
        yield
    except RuntimeError as error:
        if any(part in str(error) for part in CONNECTION_LOST):
            raise PeerLostError(
                f"rank {rank()} lost another process of this run, which reports the cause itself"
            ) from error
        raise
    dist.destroy_process_group()  # not after an error, when it could wait for processes that have ended


SECONDS_BEFORE_NOTICE = 10.0
"""Wait before the notice that some processes are still missing."""
CONNECTION_LOST = (
    "closed by peer", "reset by peer", "Broken pipe", "remote process", "ncclRemoteError", "Application timeout",
)  # fmt: skip
"""Parts of the messages of gloo and NCCL when another process has ended."""


def all_reduce_sum(values: Tensor) -> Tensor:
    """Sum a tensor over all ranks, in place, without reading it back from the device. Collective."""
    if world_size() > 1:
        dist.all_reduce(values)
    return values


def all_gather(value: Any) -> list[Any]:
    """Return the value of every rank, by rank. Collective."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def gather_unique(texts: Iterable[str]) -> list[str]:
    """Return the strings of all ranks without duplicates. Collective."""
    return list(dict.fromkeys(text for of_rank in all_gather(list(texts)) for text in of_rank))


def barrier() -> None:
    """Wait until all ranks have reached this point. Collective."""
    if world_size() > 1:
        dist.barrier()


@contextmanager
def local_main_process_first() -> Iterator[None]:
    """Let one process of each machine go first, e.g. to download a file that the others then find. Collective."""
    if local_rank() != 0:
        barrier()
    yield
    if local_rank() == 0:
        barrier()


def wrap_ddp(model: nn.Module) -> nn.Module:
    """Wrap the model in DistributedDataParallel if there are several ranks: it averages gradients. Collective."""
    if world_size() == 1 or not any(parameter.requires_grad for parameter in model.parameters()):
        return model
    return DistributedDataParallel(model, gradient_as_bucket_view=True)


@torch.no_grad()
def broadcast_buffers(model: nn.Module) -> None:
    """Copy the buffers of rank 0, e.g. batch-norm statistics, to the model of every rank. Collective."""
    if world_size() > 1:
        for buffer in model.buffers():
            dist.broadcast(buffer, src=0)


class DelayedMax:
    """All-reduce of the maximum of one integer, which returns the result of the call before.

    Because of the delay no rank waits for the slowest one in the middle of a step. Every rank waits only for values
    that were sent one call earlier, so a rank that died is still noticed at once. A single process gets its own value
    without delay.
    """

    def __init__(self) -> None:
        self._group: Any = dist.new_group(backend="gloo") if world_size() > 1 else None
        self._value = torch.zeros(1, dtype=torch.int32)
        self._pending: dist.Work | None = None

    def __call__(self, value: int) -> int:
        """Send a value and return the maximum of the previous call, 0 in the first one. Collective."""
        if self._group is None:
            return value
        maximum = 0
        if self._pending:
            self._pending.wait()
            maximum = int(self._value)
        self._value = torch.tensor([value], dtype=torch.int32)
        self._pending = dist.all_reduce(self._value, dist.ReduceOp.MAX, self._group, async_op=True)
        return maximum
