"""Memory and time of a training step, time of a forward pass."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeCopyMode, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from visual_transformers.distributed.hardware import Hardware
from visual_transformers.tasks.task import Task


class Workload:
    """A batch of random images and labels, and what is done with it: a forward pass, or a training step.

    The optimizer is plain SGD with a learning rate of 0: its work is that of any other rate, and the weights stay
    finite however often a step is repeated.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        forward: nn.Module,
        hardware: Hardware,
        task: Task,
        classes: int,
        batch_size: int,
        image_size: Sequence[int],
    ):
        images = torch.rand(batch_size, 3, *image_size)
        targets = torch.randint(classes, (batch_size, *task.output_shape(images, classes)[2:]))
        self.images, self.targets = hardware.move(images, targets)
        self.model, self.forward, self.hardware, self.task = model, forward, hardware, task
        self.optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
        self.scaler = hardware.scaler()

    def infer(self) -> Tensor:
        """The logits of the batch, without what a backward pass would need."""
        with torch.inference_mode(), self.hardware.autocast():
            return self.forward(self.images)

    def loss(self) -> Tensor:
        """The mean loss of the batch."""
        with self.hardware.autocast():
            logits = self.forward(self.images)
        return self.task.loss_sum(logits, self.targets, training=True) / self.task.weight(self.targets)

    def step(self) -> None:
        """Forward, backward, one step of the optimizer."""
        self.scaler.scale(self.loss()).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)

    @property
    def held(self) -> list[Tensor]:
        """What is in memory before a step: parameters, buffers and the batch."""
        return [*self.model.parameters(), *self.model.buffers(), self.images, self.targets]


def without_data(model: nn.Module) -> tuple[FakeTensorMode, nn.Module]:
    """A copy whose tensors have a shape, a type and a device but no data, and the context to use it in.

    Unlike tensors on the meta device these obey autocast, so that half precision shows in what is kept.
    """
    mode = FakeTensorMode()
    with FakeCopyMode(mode):
        return mode, copy.deepcopy(model)


def activation_bytes(work: Workload) -> int:
    """Bytes that autograd keeps of one forward pass and loss in training mode for the backward pass.

    Each storage counts once; parameters and buffers do not, but the images do, as the first layer's input, and so do
    the copies that autocast makes of parameters.
    """
    work.model.train()
    model = [*work.model.parameters(), *work.model.buffers()]
    own = {tensor.untyped_storage()._cdata for tensor in model}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = work.loss()  # holds on to the graph, so that no two storages have the same address
    del loss
    return sum(size for address, size in kept.items() if address not in own)


def computed_peak_bytes(work: Workload) -> int:
    """Most bytes alive at once in a training step, computed from when each tensor's storage comes and goes.

    It includes parameters, gradients and the batch, but neither what kernels use inside nor what an allocator
    adds by rounding. Meant for a workload `without_data`.
    """
    work.model.train()
    with _Lifetimes() as lifetimes:
        lifetimes.follow(work.held)
        work.step()
    return lifetimes.peak


def measured_peak_bytes(work: Workload) -> int:
    """Most bytes that torch had allocated on a CUDA device during a training step, after two others."""
    device = work.hardware.torch_device
    work.model.train()
    work.step()
    work.step()
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    work.step()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device)


class _Lifetimes(TorchDispatchMode):
    """Follows the storages of all tensors that operations give, from their making to their end."""

    def __init__(self) -> None:
        super().__init__()
        self.alive = self.peak = 0
        self._followed: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Do it, and follow what comes out."""
        result = func(*args, **(kwargs or {}))
        self.follow(result)
        return result

    def follow(self, tensors: Any) -> None:
        """Count the storages of tensors, in any structure, until they end."""
        tree_map_only(Tensor, self._follow, tensors)

    def _follow(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        address, size = storage._cdata, storage.nbytes()
        if address in self._followed:
            return
        self._followed.add(address)
        self.alive += size
        self.peak = max(self.peak, self.alive)
        weakref.finalize(storage, self._end, address, size)

    def _end(self, address: int, size: int) -> None:
        self._followed.discard(address)
        self.alive -= size


@dataclass(frozen=True)
class Latency:
    """Seconds of one repetition: the median and the quartiles around it, of so many measurements."""

    median: float
    lower: float
    upper: float
    measurements: int

    @property
    def spread(self) -> float:
        """The interquartile range, seconds."""
        return self.upper - self.lower


def latency(work: Callable[[], object], *, seconds: float, repeats: int) -> Latency:
    """How long `work` takes: repeated for at least `seconds`, and `repeats` times, after repetitions to warm up.

    torch's Timer waits for a CUDA device before it reads the clock. Of work that takes far below a millisecond
    each measurement is the mean of several repetitions.
    """
    from torch.utils.benchmark import Timer  # takes its time, and looks for compilers

    timer = Timer("work()", globals={"work": work}, num_threads=torch.get_num_threads())
    once = timer.timeit(1).median
    times = list(timer.blocked_autorange(min_run_time=max(seconds, repeats * once)).times)
    while len(times) < repeats:
        times += timer.blocked_autorange(min_run_time=(repeats - len(times)) * once).times
    lower, median, upper = torch.tensor(times, dtype=torch.float64).quantile(
        torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)
    )
    return Latency(median.item(), lower.item(), upper.item(), len(times))
