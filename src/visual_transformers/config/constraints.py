"""Constraints between keys; values that have a wrong type by themselves are skipped here."""

from __future__ import annotations

import importlib.util
import inspect
import math
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from visual_transformers.config.instantiate import allowed_object, type_hints
from visual_transformers.config.limits import unwrapped
from visual_transformers.config.schema import InferenceSettings
from visual_transformers.errors import ConfigError
from visual_transformers.paths import is_valid_folder_name


def problems(cfg: DictConfig, choices: dict[str, str]) -> Iterator[str]:
    """Yield a sentence per problem; `choices` is the chosen option of each group, if known."""
    yield from _mode_problems(cfg)
    if cfg.mode == "report":  # builds nothing, so nothing else needs to be imported
        yield from _report_problems(cfg)
        return
    yield from _group_problems(cfg, choices)
    yield from _batch_problems(cfg)
    yield from _distillation_problems(cfg)
    yield from _parameter_problems(cfg)
    yield from _inference_problems(cfg)
    yield from _logger_problems(cfg)


def _mode_problems(cfg: DictConfig) -> Iterator[str]:
    """Yield problems of the run's name and of settings that the mode does not use."""
    if not is_valid_folder_name(str(OmegaConf.select(cfg, "name"))):
        yield f"name={cfg.name}: expected the name of a folder below runs/"
    if cfg.mode == "profile" and OmegaConf.select(cfg, "weights.file"):
        yield "weights: mode=profile reads no weights, because the cost does not depend on them. Leave it out."
    if cfg.mode not in ("train", "profile") and OmegaConf.select(cfg, "weights.backbone_only") is True:
        yield f"weights.backbone_only=true: mode={cfg.mode} needs the weights of the head too. Set it to false."
    if cfg.mode != "train" and (samples := OmegaConf.select(cfg, "debug.samples")):
        yield f"debug.samples={samples}: only for mode=train, because scores of a part would stand for the whole."
    size = OmegaConf.select(cfg, "profile.image_size")
    if isinstance(size, ListConfig) and (len(size) != 2 or any(isinstance(n, int) and n < 1 for n in size)):
        yield f"profile.image_size={size}: expected height and width, each at least 1, as in [224,224]"


def _report_problems(cfg: DictConfig) -> Iterator[str]:
    """Yield problems of the folders to report on and of the models to compare."""
    folders, models = OmegaConf.select(cfg, "report.folders"), OmegaConf.select(cfg, "report.compare")
    if folders is not None and not _is_list_of_names(folders):
        yield f"report.folders={folders}: expected a list of folders, e.g. [runs,sweeps], or null"
    if models is not None and not (_is_list_of_names(models) and len(set(models)) == len(models) == 2):
        yield f"report.compare={models}: expected two models, e.g. [resnet18,vt_resnet18], or null"


def _is_list_of_names(value: Any) -> bool:
    return isinstance(value, ListConfig) and len(value) > 0 and all(isinstance(name, str) and name for name in value)


def _group_problems(cfg: DictConfig, choices: dict[str, str]) -> Iterator[str]:
    """Yield groups and a metric that do not belong to the task."""
    task = _target_object(cfg, "task")
    kind = getattr(task, "name", None)
    if not kind:
        return
    for group, noun in (("model", "model"), ("data", "data set"), ("data.augmentation", "augmentation")):
        needs = _task_of(_target_object(cfg, group)) if isinstance(OmegaConf.select(cfg, group), DictConfig) else None
        if needs and needs != kind:
            option = choices.get(group.replace(".", "/")) or OmegaConf.select(cfg, group)._target_.rsplit(".", 1)[-1]
            yield (
                f"{group.replace('.', '/')}={option} is for {needs}, but task={kind}. "
                f"Set task={needs}, or choose another {noun} (see --help)."
            )
    if str(cfg.task.get("metric")) not in task.metrics:
        yield f"task.metric={cfg.task.get('metric')}: {kind} has {', '.join(task.metrics)}"


def _batch_problems(cfg: DictConfig) -> Iterator[str]:
    """Yield a batch that cannot be split, and a learning rate of 0."""
    batch_size, accumulate = _number(cfg, "data.batch_size"), _number(cfg, "training.accumulate")
    if batch_size and accumulate and batch_size % accumulate:
        yield f"data.batch_size={batch_size} does not divide into training.accumulate={accumulate} equal micro-batches"
    if batch_size and (devices := _number(cfg, "hardware.devices")) and batch_size < devices:
        yield f"data.batch_size={batch_size} is the whole batch, too small for hardware.devices={devices}"
    lr = _number(cfg, "optimizer.lr")  # of a library's class, whose signature has no range
    if lr is not None and not 0 < lr < math.inf:
        yield f"optimizer.lr={lr}: must be above 0, and finite"


def _distillation_problems(cfg: DictConfig) -> Iterator[str]:
    """Yield a missing teacher, or one without weights."""
    node = cfg.get("distillation")
    if not isinstance(node, DictConfig):
        return
    if OmegaConf.select(cfg, "task.class_weights"):
        yield "task.class_weights: cannot be combined with distillation, whose loss has none. Leave one of them out."
    if OmegaConf.is_missing(node, "weights") or node.get("weights"):
        return
    if node.get("teacher") is None:
        yield (
            "distillation: there is no teacher. Name the weights of a model of this package with "
            "distillation.weights=PATH, or choose distillation=fbnetv3_g."
        )
    elif OmegaConf.select(cfg, "distillation.teacher.pretrained") is False:
        yield (
            "distillation.teacher.pretrained=false: the teacher has no weights. Name a file with "
            "distillation.weights=PATH."
        )


def _parameter_problems(cfg: DictConfig) -> Iterator[str]:
    """Yield learning-rate multipliers and class weights out of range."""
    for name, factor in _named_numbers(cfg, "parameters.lr_factors"):
        if not 0 < factor < math.inf:
            hint = ". To almost freeze a module, use a small factor, e.g. 0.001." if factor == 0 else ""
            yield f"parameters.lr_factors.{name}={factor}: must be above 0, and finite{hint}"
    for name, weight in _named_numbers(cfg, "task.class_weights"):
        if not 0 <= weight < math.inf:
            yield f"task.class_weights.{name}={weight}: must be at least 0, and finite"


def _inference_problems(cfg: DictConfig) -> Iterator[str]:
    """Yield scales out of range, and settings of segmenters that are given to a classifier."""
    scales = OmegaConf.select(cfg, "inference.scales")
    if isinstance(scales, ListConfig):
        numbers = [scale for scale in OmegaConf.to_container(scales) or () if isinstance(scale, int | float)]
        if not scales or not all(0 < scale < math.inf for scale in numbers):
            yield f"inference.scales={scales}: expected one factor or more, each above 0 and finite, e.g. [1.0]"
    node = cfg.get("inference")
    if getattr(_target_object(cfg, "task"), "name", None) == "classification" and isinstance(node, DictConfig):
        default = asdict(InferenceSettings())
        if given := [f"inference.{key}={node[key]}" for key in default if key in node and node[key] != default[key]]:
            yield f"{', '.join(given)}: only for segmenters, but task=classification. Leave it out."


def _logger_problems(cfg: DictConfig) -> Iterator[str]:
    """Yield loggers whose library is not installed."""
    loggers = cfg.get("logger")
    for name in map(str, loggers if isinstance(loggers, DictConfig) else ()):
        library = getattr(_target_object(cfg, f"logger.{name}"), "library", None)
        if library and importlib.util.find_spec(library) is None:
            yield (
                f"logger={name}: needs {library}, which is not installed. "
                f"Install it with pip install 'visual-transformers[{library}]', or leave this logger out."
            )


def _number(cfg: DictConfig, path: str) -> float | None:
    value = OmegaConf.select(cfg, path, throw_on_missing=False)
    return value if isinstance(value, int | float) else None


def _named_numbers(cfg: DictConfig, path: str) -> list[tuple[str, float]]:
    """Return the numbers of a group by their keys."""
    node = OmegaConf.select(cfg, path)
    items = node.items() if isinstance(node, DictConfig) else ()
    return [(str(key), value) for key, value in items if isinstance(value, int | float)]


def _target_object(cfg: DictConfig, path: str) -> Any:
    """Import the target of a node; None if it is not allowed, which the check of its key reports."""
    try:
        return allowed_object(OmegaConf.select(cfg, path)._target_, path, (object,), cfg.trust)
    except (ConfigError, OmegaConfBaseException, AttributeError):
        return None


def _task_of(target: Any) -> str | None:
    """Return the task that a model or a data set is for, if its class says so."""
    target = unwrapped(target)
    if inspect.isfunction(target):
        target = type_hints(target).get("return")
    return getattr(target, "task", None)
