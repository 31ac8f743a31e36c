"""Adopt the settings that a weight file carries, as plain data: nothing in them is resolved, fetched or called."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from visual_transformers.config.diff import current_name
from visual_transformers.config.instantiate import ALLOWED_TARGETS, allowed_object, returns_kind, trusted
from visual_transformers.config.schema import Node
from visual_transformers.errors import ConfigError

ADOPTED = ("task", "model", "data", "inference")
"""Groups that a trained model brings, unless the command line chooses other options."""
FETCHES: Mapping[str, Any] = {
    "download": False,
    "weights": None,
    "weights_backbone": None,
    "pretrained": False,
    "pretrained_backbone": False,
    "pretrained_cfg": None,
    "pretrained_cfg_overlay": None,
    "checkpoint_path": None,
    "cache_dir": None,
}
"""Arguments with which data sets and builders of torchvision and timm download or read other files, and the values that
turn this off."""


def adopt(cfg: DictConfig, trained: Node, overrides: Sequence[str], source: str) -> None:
    """Take the groups of `ADOPTED` from the configuration that a weight file carries, key by key.

    The command line wins: a key that it sets or deletes stays so; a group whose option it chooses stays as composed,
    except that images are prepared as in training; with a recipe nothing is adopted.

    Args:
        cfg: the composed configuration, changed in place.
        trained: configuration of the weight file.
        overrides: of the command line.
        source: the file, for messages.

    Raises:
        ConfigError: if the file brings more than plain data.
    """
    named = [override.lstrip("+~").split("=", 1)[0] for override in overrides]
    if "recipe" in named:
        return
    trust = trusted(list(cfg.trust))
    for group in ADOPTED:
        if not isinstance(trained.get(group), dict):
            continue
        composed = cfg[group]
        brought = OmegaConf.create(sanitized(trained[group], group, source, trust))
        if group in named:
            cfg[group] = _with_eval_transform(composed, brought, trust) if group == "data" else composed
        else:
            cfg[group] = brought
        _apply_overrides(cfg, group, composed, dict(zip(named, overrides, strict=True)))


def _apply_overrides(cfg: DictConfig, group: str, composed: DictConfig, overrides: Mapping[str, str]) -> None:
    """Set or delete the keys of a group that the command line names."""
    for name, override in overrides.items():
        if not name.startswith(f"{group}."):
            continue
        key = name.removeprefix(f"{group}.")
        parent = key.partition(".")[0]
        if parent not in cfg[group] and isinstance(composed.get(parent), DictConfig):
            OmegaConf.update(cfg[group], parent, composed[parent], force_add=True)  # a node that older versions lack
        if override.startswith("~"):
            with open_dict(cfg):
                cfg[group].pop(key, None)
        else:
            OmegaConf.update(cfg[group], key, OmegaConf.select(composed, key), force_add=True)


def _with_eval_transform(composed: DictConfig, brought: DictConfig, trust: Sequence[str]) -> DictConfig:
    """Return another data set that prepares images as the trained model's data set did."""
    try:
        keys = getattr(allowed_object(composed._target_, "data", trust=trust), "eval_transform_keys", ())
    except ConfigError:  # the check of the configuration reports it
        return composed
    composed = copy.deepcopy(composed)
    for key in set(keys) & set(brought):
        OmegaConf.update(composed, key, brought[key], merge=False)
    return composed


def sanitized(node: Any, group: str, source: str, trust: Sequence[str]) -> Any:
    """Return a group of a weight file without anything that reads or downloads.

    Its targets are checked later, with the other targets of the configuration.

    Args:
        node: the keys of the group.
        group: its path, for messages.
        source: the file, for messages.
        trust: trusted packages of the user.

    Raises:
        ConfigError: if it holds an interpolation, a model of a hub, or a function without a return annotation.
    """
    if isinstance(node, list | tuple):
        return [sanitized(inner, group, source, trust) for inner in node]
    if isinstance(node, str) and "${" in node:
        raise ConfigError(f"{group}: {source} contains {node!r}. Interpolations from weight files are not resolved.")
    if not isinstance(node, dict):
        return node
    kept = {key: sanitized(value, f"{group}.{key}", source, trust) for key, value in node.items()}
    if "_target_" not in kept:
        return kept
    kept["_target_"] = current_name(kept["_target_"])
    return _without_downloads(kept, group, source, trust)


def _without_downloads(node: Node, group: str, source: str, trust: Sequence[str]) -> Node:
    """Return a node with a target whose arguments of `FETCHES` are turned off."""
    if ":" in str(node.get("model_name", "")):  # timm's way to name a hub or a folder
        raise ConfigError(
            f"{group}.model_name={node['model_name']}: {source} names a model of a hub. To download it, type "
            "that on the command line."
        )
    ours = str(node["_target_"]).startswith(ALLOWED_TARGETS)
    if ours:
        node = {key: value for key, value in node.items() if key not in FETCHES}
    try:
        target = allowed_object(node["_target_"], group, (object,), trust)
    except ConfigError:  # the check of the configuration reports it
        return node
    name = f"{group}._target_={node['_target_']}"
    if getattr(target, "__name__", "") == "get_model":  # torchvision's, whose keywords are those of any builder
        raise ConfigError(f"{name}: {source} names a model by its name. Only its own builder is allowed.")
    if not ours and not returns_kind(target, (object,), trusted=False):
        raise ConfigError(
            f"{name}: {source} names a function without a return annotation. Annotate it, or name a class."
        )
    known = inspect.signature(target).parameters
    return node | {key: value for key, value in FETCHES.items() if ours and key in known}
