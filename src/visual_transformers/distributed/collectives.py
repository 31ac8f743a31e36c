"""Several processes that train one model: who is who, and what they tell each other.

Every function here works in a single process too, where there is nobody else. Those that say so are collective: all
processes must call them, in the same order.
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

from visual_transformers.errors import LostError, RunError


def rank() -> int:
    """The number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def ranks() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main() -> bool:
    """Whether this is the one process that writes files and speaks."""
    return rank() == 0


def local_rank() -> int:
    """The number of this process among those on this machine, which is the number of its device."""
    return int(os.environ["LOCAL_RANK"]) if dist.is_initialized() else 0


def local_ranks() -> int:
    """How many processes there are on this machine."""
    return int(os.environ["LOCAL_WORLD_SIZE"]) if dist.is_initialized() else 1


@contextmanager
def joined() -> Iterator[None]:
    """A context in which the processes named by torchrun's variables know each other. Collective.

    Tensors on a CPU travel by gloo, those on NVIDIA GPUs by NCCL.

    Raises:
        RunError: if they do not find each other.
        LostError: when another process failed, for this one then cannot go on.
    """
    place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
    told = Timer(WAITING, lambda: print(f"waiting for all {os.environ['WORLD_SIZE']} processes at {place}", flush=True))
    told.daemon = True
    if os.environ["RANK"] == "0":
        told.start()
    try:
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    except (RuntimeError, ValueError) as error:  # torch has an error for each way to fail, and most are RuntimeErrors
        in_use = (
            "another program has that port; choose another"
            if "EADDRINUSE" in str(error)
            else str(error).splitlines()[0]
        )
        raise RunError(
            f"the processes of this run cannot meet at {place} (MASTER_ADDR, MASTER_PORT): {in_use}"
        ) from error
    finally:
        told.cancel()
    try:
        yield
    except RuntimeError as error:
        if any(sign in str(error) for sign in LOST):
            raise LostError(f"process {rank()} lost another process of this run, which says itself why") from error
        raise
    dist.destroy_process_group()  # after an error it could wait for processes that are gone


WAITING = 10.0
"""Seconds after which it is said that not all processes are there."""
LOST = ("closed by peer", "reset by peer", "Broken pipe", "remote process", "ncclRemoteError", "Application timeout")
"""How gloo and NCCL say that another process is gone."""


def summed(values: Tensor) -> Tensor:
    """The sum of every process's tensor, in place; nothing is read back from the device. Collective."""
    if ranks() > 1:
        dist.all_reduce(values)
    return values


def gathered(value: Any) -> list[Any]:
    """Every process's value, in the order of their ranks. Collective."""
    if ranks() == 1:
        return [value]
    values: list[Any] = [None] * ranks()
    dist.all_gather_object(values, value)
    return values


def wait_for_all() -> None:
    """Go on when every process has come here. Collective."""
    if ranks() > 1:
        dist.barrier()


def united(lists: Iterable[str]) -> list[str]:
    """Strings of all processes, each once. Collective."""
    return list(dict.fromkeys(text for of_one in gathered(list(lists)) for text in of_one))


@contextmanager
def first_on_its_machine() -> Iterator[None]:
    """A context that one process of each machine enters before the others, as to download something. Collective."""
    if local_rank() != 0:
        wait_for_all()
    yield
    if local_rank() == 0:
        wait_for_all()


def with_summed_gradients(model: nn.Module) -> nn.Module:
    """The model, whose backward pass averages the gradients of all processes if there are several. Collective."""
    if ranks() == 1 or not any(parameter.requires_grad for parameter in model.parameters()):
        return model
    return DistributedDataParallel(model, gradient_as_bucket_view=True)


@torch.no_grad()
def share_buffers(model: nn.Module) -> None:
    """Give the model of every process the buffers of the main one's, as batch norms' statistics. Collective."""
    if ranks() > 1:
        for buffer in model.buffers():
            dist.broadcast(buffer, src=0)


class Agreement:
    """Wishes that processes must follow together: each call hands in one's own, and gives the greatest of all.

    With several processes it is the greatest of the call before, so that nobody waits for the slowest in the middle of
    a step. As every process waits here for what was said one call ago, one that died is noticed at once.
    """

    def __init__(self) -> None:
        self._group: Any = dist.new_group(backend="gloo") if ranks() > 1 else None
        self._wish = torch.zeros(1, dtype=torch.int32)
        self._sent: dist.Work | None = None

    def __call__(self, wish: int) -> int:
        """Collective."""
        if self._group is None:
            return wish
        agreed = 0
        if self._sent:
            self._sent.wait()
            agreed = int(self._wish)
        self._wish = torch.tensor([wish], dtype=torch.int32)
        self._sent = dist.all_reduce(self._wish, dist.ReduceOp.MAX, self._group, async_op=True)
        return agreed
