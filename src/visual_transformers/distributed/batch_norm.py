"""Synchronized and frozen batch norms.

A layer remains the same object and only its class changes: its tensors, their names and its place in the model stay
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


def convert_sync_batch_norm(model: nn.Module) -> nn.Module:
    """Let the model's batch norms compute their statistics over the images of all ranks; returns the model.

    Call it when the model is on its device: on accelerators the layers become torch's SyncBatchNorm, which refuses CPU
    tensors (and which DistributedDataParallel refuses on a CPU). Frozen and synchronized layers stay as they are.

    Raises:
        ConfigError: if the model has batch norms other than `nn.BatchNorm2d`, e.g. timm's, which contain an activation.
    """
    layers = [layer for layer in batch_norms(model).values() if not isinstance(layer, CONVERTED)]
    if others := sorted({type(layer).__name__ for layer in layers if type(layer) is not nn.BatchNorm2d}):
        raise ConfigError(
            f"batch_norm.sync=true: this model has {', '.join(others)}, but only BatchNorm2d can be synchronized. Set "
            "batch_norm.sync=false, or choose another model."
        )
    on_cpu = all(parameter.device.type == "cpu" for parameter in model.parameters())
    for layer in layers:
        layer.__class__ = CPUSyncBatchNorm2d if on_cpu else AcceleratorSyncBatchNorm  # type: ignore[assignment]
    return model


def freeze_batch_norms(model: nn.Module, prefixes: Iterable[str]) -> None:
    """Keep statistics, weight and bias of the batch norms below these modules, also in training mode.

    `backbone` selects `backbone.bn1` and `backbone.layer1.0.bn1`, but not `backbone2.bn1`. Call it before the model is
    copied or given to an optimizer.

    Raises:
        ConfigError: if there is no batch norm below one of the modules.
    """
    layers = batch_norms(model)
    for prefix in prefixes:
        selected = [layer for name, layer in layers.items() if f"{name}.".startswith(f"{prefix}.")]
        if not selected:
            known = f"there are some below {', '.join(_outer_modules(layers))}" if layers else "it has none at all"
            raise ConfigError(
                f"batch_norm.frozen=[{prefix}]: the model has no batch norm below a module of this name; {known}"
            )
        for layer in selected:
            if not isinstance(layer, Frozen):
                layer.__class__ = _frozen_class(type(layer))  # type: ignore[arg-type, assignment]
            layer.eval().requires_grad_(False)


def batch_norms(model: nn.Module) -> dict[str, _BatchNorm]:
    """Return the batch norms of a model, of every class, by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, _BatchNorm)}


def _outer_modules(names: Iterable[str]) -> list[str]:
    """Return the first level of dotted names, and the second one too if the first has a single module."""
    outer = list(dict.fromkeys(name.split(".")[0] for name in names))
    inner = list(dict.fromkeys(".".join(name.split(".")[:2]) for name in names))
    return outer if len(outer) > 1 else list(dict.fromkeys([*outer, *inner]))


class Frozen(nn.Module):
    """Layer that is always in evaluation mode; combined with the layer's own class as the second base."""

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode, although `model.train()` is called at every step."""
        return super().train(False)


@cache
def _frozen_class(layer_class: type[_BatchNorm]) -> type[_BatchNorm]:
    return type(f"Frozen{layer_class.__name__}", (Frozen, layer_class), {})


class AcceleratorSyncBatchNorm(nn.SyncBatchNorm):
    """torch's SyncBatchNorm, which also accepts a batch without images in half precision.

    A rank without images takes part with zeros. torch's layer gives them the type of the images, although the
    statistics that it gathers from the other ranks are float32. (It also waits for the device once a layer, to find
    out which ranks have images.)
    """

    process_group = None

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        return super().forward(x if len(x) else _exact(x)).to(x.dtype)


class CPUSyncBatchNorm2d(nn.BatchNorm2d):
    """`nn.BatchNorm2d` whose training statistics are those of the values of all ranks, each value weighing the same.

    Ranks may have different numbers of images, or none. Since all of them take part in each sum, every rank must call
    the layer and its backward pass equally often. In a single process and in evaluation mode it is the plain layer.

    Raises:
        ValueError: like the plain layer, if all ranks together have one value per channel.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W), B from 0 -> the same shape."""
        if not (self.training and dist.is_initialized() and dist.get_world_size() > 1):
            return super().forward(x)
        return self._synchronized(x)

    # torch.compile can trace neither the sum nor the branches that depend on its value.
    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _synchronized(self, x: Tensor) -> Tensor:
        self._check_input_dim(x)
        exact = _exact(x)
        local = torch.cat([exact.sum(dim=(0, 2, 3)), exact.new_tensor([x.numel() // x.shape[1]])])
        total = SumOverRanks.apply(local)
        count = int(total[-1].detach())
        if count == 0:
            return super().forward(x)
        if count == 1:
            raise ValueError(f"Expected more than 1 value per channel when training, got {tuple(x.shape)}")
        mean = total[:-1] / count
        # The mean is subtracted before squaring, since rounding would otherwise lose a small variance.
        centred = exact - mean[:, None, None]
        variance = SumOverRanks.apply(centred.square().sum(dim=(0, 2, 3))) / count
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


CONVERTED = (Frozen, AcceleratorSyncBatchNorm, CPUSyncBatchNorm2d)


class SumOverRanks(torch.autograd.Function):
    """Differentiable sum over ranks: every rank uses it, so its gradient is the sum of their gradients.

    Implemented here because the one of torch.distributed.nn is deprecated.
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
        return SumOverRanks.forward(ctx, gradient)


def _exact(x: Tensor) -> Tensor:
    """Convert to float32, unless the precision is higher already."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
