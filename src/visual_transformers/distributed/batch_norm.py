"""Batch norms that look at the images of all processes, and batch norms that no longer learn.

A layer stays the object that it is, and only its class changes: its tensors, their names and its place in the model are
those of the plain layer, so weight files fit as before.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any, Self

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm

from visual_transformers.errors import ConfigError


def synchronised(model: nn.Module) -> nn.Module:
    """Let the model's batch norms take their statistics over the images of all processes; returns the model.

    Call it when the model is on its device, for accelerators have a layer of torch's own, which refuses CPU tensors
    (and which DistributedDataParallel refuses on a CPU). Layers that are frozen or synchronised stay as they are.

    Raises:
        ConfigError: if the model has batch norms of another kind than `nn.BatchNorm2d`, as timm's, which activate too.
    """
    layers = [layer for layer in batch_norms(model).values() if not isinstance(layer, DONE)]
    if others := sorted({type(layer).__name__ for layer in layers if type(layer) is not nn.BatchNorm2d}):
        raise ConfigError(
            f"batch_norm.sync=true: this model has layers of the kind {', '.join(others)}, and only BatchNorm2d can be "
            "synchronised; set batch_norm.sync=false, or choose another model"
        )
    on_cpu = all(parameter.device.type == "cpu" for parameter in model.parameters())
    for layer in layers:
        layer.__class__ = CPUSyncBatchNorm2d if on_cpu else AcceleratorSyncBatchNorm  # type: ignore[assignment]
    return model


def freeze(model: nn.Module, prefixes: Iterable[str]) -> None:
    """Keep statistics, weight and bias of the batch norms below modules of these names, also in training mode.

    `backbone` stands for `backbone.bn1` and `backbone.layer1.0.bn1`, not for `backbone2.bn1`. Call it before the model
    is copied or given to an optimizer.

    Raises:
        ConfigError: if there is no batch norm below one of the names.
    """
    layers = batch_norms(model)
    for prefix in prefixes:
        chosen = [layer for name, layer in layers.items() if f"{name}.".startswith(f"{prefix}.")]
        if not chosen:
            raise ConfigError(
                f"batch_norm.frozen=[{prefix}]: the model has no batch norm below a module of this name; "
                + (f"there are some below {', '.join(_outermost(layers))}" if layers else "it has none at all")
            )
        for layer in chosen:
            if not isinstance(layer, Frozen):
                layer.__class__ = _frozen_kind(type(layer))  # type: ignore[arg-type, assignment]
            layer.eval().requires_grad_(False)


def batch_norms(model: nn.Module) -> dict[str, _BatchNorm]:
    """The batch norms of a model, of every kind, by their names."""
    return {name: module for name, module in model.named_modules() if isinstance(module, _BatchNorm)}


def _outermost(names: Iterable[str]) -> list[str]:
    """The names of the modules that hold these: one level, or two where the outer one is but one module."""
    outer = list(dict.fromkeys(name.split(".")[0] for name in names))
    inner = list(dict.fromkeys(".".join(name.split(".")[:2]) for name in names))
    return outer if len(outer) > 1 else list(dict.fromkeys([*outer, *inner]))


class Frozen(nn.Module):
    """A layer that is always in evaluation mode; the layer's own class stands behind it as a base."""

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode: `model.train()` comes by at every step."""
        return super().train(False)


@cache
def _frozen_kind(kind: type[_BatchNorm]) -> type[_BatchNorm]:
    return type(f"Frozen{kind.__name__}", (Frozen, kind), {})


class AcceleratorSyncBatchNorm(nn.SyncBatchNorm):
    """torch's own layer, for batches without an image in half precision too.

    Where a process has no image torch's takes part with zeros, but of the images' type, and gathers them with the other
    processes' statistics, which are float32. (Besides, it waits for the device once a layer, to see who had images.)
    """

    process_group = None

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        return super().forward(x if len(x) else _exact(x)).to(x.dtype)


class CPUSyncBatchNorm2d(nn.BatchNorm2d):
    """`nn.BatchNorm2d` whose statistics in training are those of all processes' values, each value weighing the same.

    Processes may have different numbers of images, or none. As all of them sum at the same point, each must call the
    layer, and its backward pass, as often as the others. Without other processes, and in evaluation mode, it is the
    plain layer.

    Raises:
        ValueError: as the plain layer does, if all processes together have one value a channel.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W), B from 0 -> the same shape."""
        if not (self.training and dist.is_initialized() and dist.get_world_size() > 1):
            return super().forward(x)
        return self._together(x)

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # a compiler can trace neither our sum nor what depends on its value
    def _together(self, x: Tensor) -> Tensor:
        self._check_input_dim(x)
        exact = _exact(x)
        own = torch.cat([exact.sum(dim=(0, 2, 3)), exact.new_tensor([x.numel() // x.shape[1]])])
        total = SumOverProcesses.apply(own)
        count = int(total[-1].detach())
        if count == 0:
            return super().forward(x)
        if count == 1:
            raise ValueError(f"Expected more than 1 value per channel when training, got {tuple(x.shape)}")
        mean = total[:-1] / count
        # The squares are of what is left around the mean: without it, rounding would eat a small variance.
        centred = exact - mean[:, None, None]
        variance = SumOverProcesses.apply(centred.square().sum(dim=(0, 2, 3))) / count
        self._track(mean.detach(), variance.detach() * (count / (count - 1)))
        scale = (variance + self.eps).rsqrt()
        if not self.affine:
            return (centred * scale[:, None, None]).to(x.dtype)
        return (centred * (scale * self.weight)[:, None, None] + self.bias[:, None, None]).to(x.dtype)

    @torch.no_grad()
    def _track(self, mean: Tensor, unbiased_variance: Tensor) -> None:
        if not self.track_running_stats:
            return
        assert self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        momentum = 1 / int(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), momentum)
        self.running_var.lerp_(unbiased_variance.to(self.running_var.dtype), momentum)


DONE = (Frozen, AcceleratorSyncBatchNorm, CPUSyncBatchNorm2d)


class SumOverProcesses(torch.autograd.Function):
    """A sum over all processes; as each of them uses it, its gradient is the sum of theirs.

    Ours, for the one of torch.distributed.nn is deprecated.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """Any shape -> the same shape."""
        total = x.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        """The same shape -> the same shape."""
        return SumOverProcesses.forward(ctx, gradient)


def _exact(x: Tensor) -> Tensor:
    """The numbers in float32 or more."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
