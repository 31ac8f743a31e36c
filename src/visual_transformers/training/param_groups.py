"""Which parameters an optimizer changes, in groups with a learning rate and a weight decay of their own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.optim import Optimizer

from visual_transformers.config.schema import Parameters
from visual_transformers.errors import ConfigError
from visual_transformers.models.vt.modules import VTModule, VTPyramid

NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)
"""torch's modules with an affine map behind a normalisation; the first is the base of batch and instance norms."""


def groups(
    model: nn.Module, settings: Parameters, *, lr: float | None, weight_decay: float | None
) -> list[dict[str, Any]]:
    """The parameters of a model that require gradients, as the groups that any torch optimizer takes.

    There is one group for each different pair of rate and decay, in the order in which the model has them; with nothing
    set that is a single one. A group's `lr_factor` is the part of the full rate that its `lr` is.

    Args:
        model: whose parameters they are.
        settings: what differs from group to group.
        lr: the full learning rate; None for the optimizer's own.
        weight_decay: what `no_decay` spares some from; None for the optimizer's own.

    Raises:
        ConfigError: if a prefix in `lr_factors` fits no name, or factors have no `lr` to refer to.
    """
    if (settings.lr_factors or settings.vt_lr_factor != 1) and lr is None:
        raise ConfigError(
            "parameters: lr_factors and vt_lr_factor are parts of optimizer.lr, which is not set; "
            "add +optimizer.lr=VALUE"
        )
    _check_beginnings(model, settings.lr_factors)
    in_vt = {p for module in model.modules() if isinstance(module, VTModule | VTPyramid) for p in module.parameters()}
    found: dict[tuple[float, bool], dict[str, Any]] = {}
    for name, kind, parameter in _kinds(model):
        if not parameter.requires_grad:
            continue
        factor, spared = _factor(name, settings.lr_factors), kind in settings.no_decay and weight_decay != 0
        factor *= settings.vt_lr_factor if parameter in in_vt else 1.0
        group = found.setdefault((factor, spared), {"params": [], "lr_factor": factor})
        group["params"].append(parameter)
        if lr is not None:
            group["lr"] = lr * factor
        if spared or weight_decay is not None:
            group["weight_decay"] = 0.0 if spared else weight_decay
    return list(found.values())


def full_rate(optimizer: Optimizer) -> float:
    """The learning rate of parameters whose factor is 1, at this step."""
    rates = {group.get("lr_factor", 1.0): float(group["lr"]) for group in optimizer.param_groups}
    factor = 1.0 if 1.0 in rates else next(iter(rates))
    return rates[factor] / factor


def _kinds(model: nn.Module) -> Iterator[tuple[str, str | None, nn.Parameter]]:
    """Name, kind (`norms`, `biases` or None) and value of each parameter; one that modules share comes once."""
    seen = set()
    for path, module in model.named_modules():
        for key, parameter in module.named_parameters(prefix=path, recurse=False):
            if parameter not in seen:
                seen.add(parameter)
                kind = "norms" if isinstance(module, NORMS) else "biases" if key.split(".")[-1] == "bias" else None
                yield key, kind, parameter


def _factor(name: str, factors: dict[str, float]) -> float:
    """The factor of the longest beginning that fits."""
    fitting = [beginning for beginning in factors if name.startswith(beginning)]
    return factors[max(fitting, key=len)] if fitting else 1.0


def _check_beginnings(model: nn.Module, factors: dict[str, float]) -> None:
    names = [name for name, _ in model.named_parameters()]
    for beginning in factors:
        if not any(name.startswith(beginning) for name in names):
            parts = ", ".join(dict.fromkeys(name.split(".")[0] for name in names))
            raise ConfigError(f"parameters.lr_factors.{beginning}: no parameter's name begins so; they begin {parts}")
