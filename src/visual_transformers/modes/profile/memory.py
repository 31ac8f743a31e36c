"""Memory of a training step: activations kept for the backward pass, and peak."""

from __future__ import annotations

import copy
import weakref
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeCopyMode, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from visual_transformers.config.schema import ProfileSettings
from visual_transformers.distributed.hardware import Hardware
from visual_transformers.tasks.task import Task


class Workload:
    """Forward pass and training step of a model on a batch of random images and labels.

    The optimizer is plain SGD with a learning rate of 0. It does the same work as with any other rate, and the weights
    stay finite however often a step is repeated.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        forward: nn.Module,
        hardware: Hardware,
        task: Task,
        settings: ProfileSettings,
    ):
        images = torch.rand(settings.batch_size, 3, *settings.image_size)
        size = task.output_shape(images, settings.classes)[2:]
        targets = torch.randint(settings.classes, (settings.batch_size, *size))
        self.images, self.targets = hardware.move(images, targets)
        self.model, self.forward, self.hardware, self.task = model, forward, hardware, task
        self.optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
        self.scaler = hardware.scaler()

    def infer(self) -> Tensor:
        """Compute the logits of the batch in inference mode."""
        with torch.inference_mode(), self.hardware.autocast():
            return self.forward(self.images)

    def loss(self) -> Tensor:
        """Compute the mean loss of the batch."""
        with self.hardware.autocast():
            logits = self.forward(self.images)
        return self.task.loss_sum(logits, self.targets, training=True) / self.task.sum_weights(self.targets)

    def step(self) -> None:
        """Run forward pass, backward pass and optimizer step."""
        self.scaler.scale(self.loss()).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)


def to_fake(model: nn.Module) -> tuple[FakeTensorMode, nn.Module]:
    """Copy a model to fake tensors, which have no data; return the mode to use the copy in, and the copy.

    Unlike tensors on the meta device, fake tensors obey autocast, so that activations have its precision.
    """
    mode = FakeTensorMode()
    with FakeCopyMode(mode):
        return mode, copy.deepcopy(model)


def count_activation_bytes(work: Workload) -> int:
    """Count the bytes that autograd keeps of a forward pass and loss in training mode for the backward pass.

    Each storage counts once. Parameters and buffers do not count, but the images do, as input of the first layer, and
    so do the copies of parameters that autocast makes.
    """
    work.model.train()
    model = [*work.model.parameters(), *work.model.buffers()]
    excluded = {tensor.untyped_storage()._cdata for tensor in model}
    saved: dict[int, int] = {}

    def record(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        saved[storage._cdata] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(record, lambda tensor: tensor):
        loss = work.loss()  # keeps the graph alive, so that no two storages have the same address
    del loss
    return sum(size for address, size in saved.items() if address not in excluded)


def compute_peak_bytes(work: Workload) -> int:
    """Compute the peak memory of a training step from the lifetimes of tensor storages, for a workload of `to_fake`.

    It includes parameters, gradients and the batch, but neither the workspace of kernels nor what an allocator adds
    by rounding.
    """
    work.model.train()
    with _StorageTracker() as tracker:
        tracker.track([*work.model.parameters(), *work.model.buffers(), work.images, work.targets])
        work.step()
    return tracker.peak


def measure_peak_bytes(work: Workload) -> int:
    """Measure the peak of the memory that torch allocates on a CUDA device in a training step, after two others."""
    device = work.hardware.torch_device
    work.model.train()
    work.step()
    work.step()
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    work.step()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device)


class _StorageTracker(TorchDispatchMode):
    """Track the storages of all tensors that operations return until they are freed."""

    def __init__(self) -> None:
        super().__init__()
        self.allocated = self.peak = 0
        self._tracked: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        self.track(result)
        return result

    def track(self, tensors: Any) -> None:
        """Track tensors in any structure."""
        tree_map_only(Tensor, self._add, tensors)

    def _add(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        address, size = storage._cdata, storage.nbytes()
        if address in self._tracked:
            return
        self._tracked.add(address)
        self.allocated += size
        self.peak = max(self.peak, self.allocated)
        weakref.finalize(storage, self._free, address, size)

    def _free(self, address: int, size: int) -> None:
        self._tracked.discard(address)
        self.allocated -= size
