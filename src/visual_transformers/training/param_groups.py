"""Parameter groups of the optimizer, each with its own learning rate and weight decay."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.optim import Optimizer

from visual_transformers.config.schema import ParameterSettings
from visual_transformers.errors import ConfigError
from visual_transformers.models.vt.modules import VTModule, VTPyramid

NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)
"""Norm layers with an affine map; the first is the base of batch and instance norms."""


def param_groups(
    model: nn.Module, settings: ParameterSettings, *, lr: float | None, weight_decay: float | None
) -> list[dict[str, Any]]:
    """Group the parameters that require gradients, in the form that every torch optimizer takes.

    There is one group for each pair of learning rate and weight decay, in the order of the model's parameters, so a
    single one with default settings. A group's `lr_factor` is its `lr` divided by the base learning rate.

    Args:
        model: whose parameters are grouped.
        settings: multipliers, and the kinds of parameters without weight decay.
        lr: base learning rate; None for the optimizer's default.
        weight_decay: of the other parameters; None for the optimizer's default.

    Raises:
        ConfigError: if a prefix in `lr_factors` matches no name, or multipliers are set without `lr`.
    """
    if (settings.lr_factors or settings.vt_lr_factor != 1) and lr is None:
        raise ConfigError(
            "parameters: lr_factors and vt_lr_factor are parts of optimizer.lr, which is not set. Add "
            "+optimizer.lr=VALUE."
        )
    _check_prefixes(model, settings.lr_factors)
    in_vt = {p for module in model.modules() if isinstance(module, VTModule | VTPyramid) for p in module.parameters()}
    groups: dict[tuple[float, bool], dict[str, Any]] = {}
    for name, kind, parameter in _parameters(model):
        if not parameter.requires_grad:
            continue
        prefixes = [prefix for prefix in settings.lr_factors if name.startswith(prefix)]
        factor = settings.lr_factors[max(prefixes, key=len)] if prefixes else 1.0
        factor *= settings.vt_lr_factor if parameter in in_vt else 1.0
        no_decay = kind in settings.no_decay and weight_decay != 0
        group = groups.setdefault((factor, no_decay), {"params": [], "lr_factor": factor})
        group["params"].append(parameter)
        if lr is not None:
            group["lr"] = lr * factor
        if no_decay or weight_decay is not None:
            group["weight_decay"] = 0.0 if no_decay else weight_decay
    return list(groups.values())


def base_lr(optimizer: Optimizer) -> float:
    """Return the current learning rate of parameters whose multiplier is 1."""
    rates = {group.get("lr_factor", 1.0): float(group["lr"]) for group in optimizer.param_groups}
    factor = 1.0 if 1.0 in rates else next(iter(rates))
    return rates[factor] / factor


def _parameters(model: nn.Module) -> Iterator[tuple[str, str | None, nn.Parameter]]:
    """Yield name, kind (`norms`, `biases` or None) and value of each parameter; a shared one only once."""
    yielded = set()
    for path, module in model.named_modules():
        for name, parameter in module.named_parameters(prefix=path, recurse=False):
            if parameter not in yielded:
                yielded.add(parameter)
                kind = "norms" if isinstance(module, NORMS) else "biases" if name.split(".")[-1] == "bias" else None
                yield name, kind, parameter


def _check_prefixes(model: nn.Module, factors: dict[str, float]) -> None:
    names = [name for name, _ in model.named_parameters()]
    for prefix in factors:
        if not any(name.startswith(prefix) for name in names):
            modules = ", ".join(dict.fromkeys(name.split(".")[0] for name in names))
            raise ConfigError(
                f"parameters.lr_factors.{prefix}: no parameter name has this prefix. Names begin with {modules}."
            )
