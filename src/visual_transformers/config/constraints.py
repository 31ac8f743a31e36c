"""What no key of a configuration tells alone, and numbers out of range; keys of a wrong type are passed over here."""

from __future__ import annotations

import importlib.util
import inspect
import math
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from visual_transformers.config.instantiate import allowed_object, type_hints, unwrapped
from visual_transformers.config.schema import Inference
from visual_transformers.errors import ConfigError
from visual_transformers.paths import makes_a_folder


def problems(cfg: DictConfig, choices: dict[str, str]) -> Iterator[str]:
    """A sentence for each; `choices` are the options of the groups, where they are known."""
    yield from _of_mode(cfg)
    yield from _of_report(cfg)
    if cfg.get("mode") == "report":
        return  # nothing is built, and what the others build need not be imported
    yield from _of_groups(cfg, choices)
    yield from _of_numbers(cfg)
    yield from _of_distillation(cfg)
    yield from _of_parameters(cfg)
    yield from _of_outputs(cfg)
    yield from _of_inference(cfg)
    yield from _of_loggers(cfg)


def _of_groups(cfg: DictConfig, choices: dict[str, str]) -> Iterator[str]:
    """Model, data and metric must be of the task."""
    task = _target_object(cfg, "task")
    kind = getattr(task, "name", None)
    for group, noun in (("model", "model"), ("data", "data set")):
        needs = _task_of(_target_object(cfg, group))
        if kind and needs and needs != kind:
            option = choices.get(group) or cfg[group]._target_.rsplit(".", 1)[-1]
            yield (
                f"{group}={option} is for {needs}, but task={kind}; "
                f"set task={needs}, or choose a {noun} for {kind} (see --help)"
            )
    augmentation = OmegaConf.select(cfg, "data.augmentation")
    needs = _task_of(_target_object(cfg, "data.augmentation")) if isinstance(augmentation, DictConfig) else kind
    if kind and needs and needs != kind:
        yield f"data/augmentation: is for {needs}, but task={kind}; choose another (see --help)"
    if kind and str(cfg.task.get("metric")) not in task.metrics:
        yield f"task.metric={cfg.task.get('metric')}: {kind} has {', '.join(task.metrics)}"


def _of_numbers(cfg: DictConfig) -> Iterator[str]:
    """Ranges, and parts that must be equal."""
    for path, least in AT_LEAST.items():
        if (value := _number(cfg, path)) is not None and not least <= value < math.inf:
            yield f"{path}={value}: must be at least {least}{_finite(value)}"
    for path, most in AT_MOST.items():
        if (value := _number(cfg, path)) is not None and value > most:
            yield f"{path}={value}: must be at most {most}"
    for path in ABOVE_0:
        if (value := _number(cfg, path)) is not None and not 0 < value < math.inf:
            yield f"{path}={value}: must be above 0{_finite(value)}"
    if not 0 <= (_number(cfg, "task.label_smoothing") or 0) < 1:
        yield f"task.label_smoothing={cfg.task.label_smoothing}: must be at least 0 and below 1"
    batch_size, accumulate = _number(cfg, "data.batch_size"), _number(cfg, "training.accumulate")
    if batch_size and accumulate and batch_size % accumulate:
        yield f"data.batch_size={batch_size} does not divide into training.accumulate={accumulate} equal parts"
    if batch_size and (devices := _number(cfg, "hardware.devices")) and batch_size < devices:
        yield f"data.batch_size={batch_size} is the whole batch, too small for hardware.devices={devices}"
    decay = _number(cfg, "training.ema_decay")
    if decay is not None and not 0 < decay < 1:
        yield f"training.ema_decay={cfg.training.ema_decay}: must be above 0 and below 1; null keeps no average"


def _of_distillation(cfg: DictConfig) -> Iterator[str]:
    """That there is a teacher, and one with weights."""
    node = cfg.get("distillation")
    if not isinstance(node, DictConfig):
        return
    if not 0 <= (_number(cfg, "distillation.share") or 0) <= 1:
        yield f"distillation.share={node.share}: must be at least 0 and at most 1"
    teacher = node.get("teacher")
    if OmegaConf.select(cfg, "task.class_weights"):
        yield "task.class_weights: weigh the task's loss alone, and distillation has another; leave one of them out"
    if OmegaConf.is_missing(node, "weights") or node.get("weights"):
        return
    if teacher is None:
        yield (
            "distillation: has no teacher; name the weights of a model of this suite with distillation.weights=PATH, "
            "or choose distillation=fbnetv3_g"
        )
    elif OmegaConf.select(cfg, "distillation.teacher.pretrained") is False:
        yield (
            "distillation.teacher.pretrained=false: leaves the teacher without weights; name a file of them with "
            "distillation.weights=PATH"
        )


def _of_parameters(cfg: DictConfig) -> Iterator[str]:
    """Kinds of parameters, and numbers by the names of parameters and of classes."""
    kinds = OmegaConf.select(cfg, "parameters.no_decay")
    if isinstance(kinds, ListConfig) and not set(kinds) <= set(NO_DECAY):
        yield f"parameters.no_decay=[{','.join(map(str, kinds))}]: expected some of {', '.join(NO_DECAY)}"
    for name, factor in _named_numbers(cfg, "parameters.lr_factors"):
        if not 0 < factor < math.inf:
            hint = "; to hardly train a part, give it a small factor, as 0.001" if factor == 0 else ""
            yield f"parameters.lr_factors.{name}={factor}: must be above 0, and finite{hint}"
    for name, weight in _named_numbers(cfg, "task.class_weights"):
        if not 0 <= weight < math.inf:
            yield f"task.class_weights.{name}={weight}: must be at least 0, and finite"


def _of_mode(cfg: DictConfig) -> Iterator[str]:
    """The run's name, and settings that the mode does not use."""
    if not makes_a_folder(str(OmegaConf.select(cfg, "name"))):
        yield f"name={cfg.name}: expected the name of a folder below runs/"
    if OmegaConf.select(cfg, "weights.file") == "":
        yield "weights is empty; name a file, or leave it out"
    if cfg.get("mode") == "profile" and OmegaConf.select(cfg, "weights.file"):
        yield "weights: mode=profile does not read any, for a model costs the same with all; leave it out"
    if cfg.get("mode") not in ("train", "profile") and OmegaConf.select(cfg, "weights.backbone_only") is True:
        yield f"weights.backbone_only: mode={cfg.mode} needs the head's weights too; set it to false"
    if cfg.get("input") and cfg.get("mode") not in ("predict", "explain"):
        yield f"input: is for mode=predict and mode=explain, and this is mode={cfg.get('mode')}; leave it out"
    if cfg.get("input") == "":
        yield "input is empty; name an image file, a folder or a quoted glob, or leave it out"


def _of_outputs(cfg: DictConfig) -> Iterator[str]:
    """What is profiled and exported."""
    size = OmegaConf.select(cfg, "profile.image_size")
    if isinstance(size, ListConfig) and (len(size) != 2 or any(isinstance(n, int) and n < 1 for n in size)):
        yield f"profile.image_size={size}: expected height and width, each at least 1, as in [224,224]"
    formats = OmegaConf.select(cfg, "export.formats")
    if isinstance(formats, ListConfig) and not (formats and set(formats) <= set(EXPORT_FORMATS)):
        yield f"export.formats=[{','.join(map(str, formats))}]: expected one or more of {', '.join(EXPORT_FORMATS)}"


def _of_inference(cfg: DictConfig) -> Iterator[str]:
    """How whole images are shown, which is for segmenters alone."""
    if not 0 <= (_number(cfg, "inference.overlap") or 0) < 1:
        yield f"inference.overlap={cfg.inference.overlap}: must be at least 0 and below 1"
    scales = OmegaConf.select(cfg, "inference.scales")
    if isinstance(scales, ListConfig) and not (len(scales) and all(0 < scale < math.inf for scale in _numbers(scales))):
        yield f"inference.scales={scales}: list one factor or more, each above 0 and finite; [1.0] resizes nothing"
    kind = getattr(_target_object(cfg, "task"), "name", None)
    if kind == "classification" and (given := list(_changed(cfg.get("inference"), Inference()))):
        yield f"{', '.join(given)}: for segmenters alone, and this is task=classification; leave it out"


def _of_loggers(cfg: DictConfig) -> Iterator[str]:
    """Libraries that not everybody has."""
    loggers = cfg.get("logger")
    for name in map(str, loggers if isinstance(loggers, DictConfig) else ()):
        library = getattr(_target_object(cfg, f"logger.{name}"), "library", None)
        if library and importlib.util.find_spec(library) is None:
            yield (
                f"logger={name}: needs {library}, which is not installed; pip install "
                f"'visual-transformers[{library}]' brings it, or leave this logger out"
            )


def _of_report(cfg: DictConfig) -> Iterator[str]:
    """Which runs are reported on, and which models compared."""
    folders, models = (OmegaConf.select(cfg, f"report.{key}") for key in ("folders", "compare"))
    if folders is not None and not _is_list_of_names(folders):
        yield f"report.folders={folders}: expected a list of folders, as [runs,sweeps], or null"
    if models is not None and not (_is_list_of_names(models) and len(set(models)) == len(models) == 2):
        yield f"report.compare={models}: expected two models, as [resnet18,vt_resnet18], or null"


def _is_list_of_names(value: Any) -> bool:
    return isinstance(value, ListConfig) and len(value) > 0 and all(isinstance(name, str) and name for name in value)


def _changed(node: Any, usual: Inference) -> Iterator[str]:
    """`inference.KEY=VALUE` for each key that is not as usual."""
    if isinstance(node, DictConfig):
        for key, value in asdict(usual).items():
            if key in node and node[key] != value:
                yield f"inference.{key}={node[key]}"


AT_LEAST = {
    "seed": 0,
    "training.epochs": 1,
    "training.steps": 1,
    "training.skip_nonfinite": 0,
    "checkpoint.every.steps": 1,
    "checkpoint.top_k": 1,
    "debug.trace_steps": 0,
    "training.accumulate": 1,
    "training.log_every": 1,
    "training.samples": 0,
    "predict.top": 1,
    "inference.window": 1,
    "inference.short_side": 1,
    "inference.pad_to": 1,
    "data.batch_size": 1,
    "data.eval_batch_size": 1,
    "data.check_files": 0,
    "profile.classes": 1,
    "profile.batch_size": 1,
    "profile.seconds": 0,
    "profile.repeats": 1,
    "check_data.workers": 0,
    "hardware.devices": 1,
    "hardware.workers": 0,
    "hardware.threads": 1,
    "logger.wandb.attention": 0,
    "logger.tensorboard.attention": 0,
}
AT_MOST = {"seed": 2**63 - 1}
ABOVE_0 = (
    "training.clip_norm",
    "checkpoint.every.minutes",
    "optimizer.lr",
    "parameters.vt_lr_factor",
    "data.image_size",
    "distillation.temperature",
    "export.tolerance",
    "logger.wandb.timeout",
)
NO_DECAY = ("norms", "biases")
EXPORT_FORMATS = ("safetensors", "torch_export", "onnx")


def _finite(value: float) -> str:
    """What else a number must be: an integer is finite anyway."""
    return ", and finite" if isinstance(value, float) else ""


def _number(cfg: DictConfig, path: str) -> float | None:
    value = OmegaConf.select(cfg, path, throw_on_missing=False)
    return value if isinstance(value, int | float) else None


def _numbers(values: ListConfig) -> list[float]:
    """Those of the elements that are numbers; the others are problems of their own."""
    return [value for value in OmegaConf.to_container(values) or () if isinstance(value, int | float)]


def _named_numbers(cfg: DictConfig, path: str) -> list[tuple[str, float]]:
    """Those of a group's values that are numbers, by their keys; the others are problems of their own."""
    node = OmegaConf.select(cfg, path)
    items = node.items() if isinstance(node, DictConfig) else ()
    return [(str(key), value) for key, value in items if isinstance(value, int | float)]


def _target_object(cfg: DictConfig, path: str) -> Any:
    try:
        return allowed_object(OmegaConf.select(cfg, path)._target_, path, (object,), cfg.trust)
    except (ConfigError, OmegaConfBaseException, AttributeError):
        return None  # said already, as a problem of that key


def _task_of(found: Any) -> str | None:
    """The task that a model or data set is for, where its class says so."""
    found = unwrapped(found)
    if inspect.isfunction(found):
        found = type_hints(found).get("return")
    return getattr(found, "task", None)
