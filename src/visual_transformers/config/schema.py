"""Sections of the configuration without a `_target_`: one dataclass each, whose fields are the keys.

Each key is described beside it in `conf/`; its type and range are here.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Lt, MinLen

Node = dict[str, Any]
Mode = Literal["train", "test", "predict", "explain", "export", "profile", "check_data", "report"]
Positive = Annotated[int, Ge(1)]
NonNegative = Annotated[int, Ge(0)]
LARGEST_SEED = 2**63 - 1


@dataclass(kw_only=True)
class WeightSettings:
    """Initial or trained weights; `weights=PATH` is short for `weights.file=PATH`."""

    file: Annotated[str, MinLen(1)] | None = None
    backbone_only: bool = False


@dataclass(kw_only=True)
class TrainingSettings:
    """Length of a training, and how its steps are taken."""

    epochs: Positive
    steps: Positive | None
    accumulate: Positive
    clip_norm: Annotated[float, Gt(0)] | None
    ema_decay: Annotated[float, Gt(0), Lt(1)] | None
    skip_nonfinite: NonNegative
    log_every: Positive
    samples: NonNegative


@dataclass(kw_only=True)
class ResumeSettings:
    """State from which training resumes; `resume=HOW` is short for `resume.checkpoint=HOW`."""

    checkpoint: str
    allow: list[str]


@dataclass(kw_only=True)
class CheckpointInterval:
    """Intervals between saved states, in addition to the end of each epoch."""

    steps: Positive | None
    minutes: Annotated[float, Gt(0)] | None


@dataclass(kw_only=True)
class CheckpointSettings:
    """Checkpoints of a run."""

    every: CheckpointInterval
    top_k: Positive


@dataclass(kw_only=True)
class DebugSettings:
    """Diagnostics of a run."""

    samples: Positive | None
    anomaly: bool
    trace_steps: NonNegative


@dataclass(kw_only=True)
class BatchNormSettings:
    """Synchronised and frozen batch norms."""

    sync: bool = False
    frozen: list[str] = field(default_factory=list)


@dataclass(kw_only=True)
class ParameterSettings:
    """Weight decay and learning-rate multipliers by kind or name of parameter."""

    no_decay: list[Literal["norms", "biases"]] = field(default_factory=list)
    lr_factors: dict[str, float] = field(default_factory=dict)
    vt_lr_factor: Annotated[float, Gt(0)] = 1.0


@dataclass(kw_only=True)
class InferenceSettings:
    """Processing of whole images by a segmenter, in validation, `mode=test` and `mode=predict`.

    Probabilities are brought back to the size of the image; labels are never resized.
    """

    short_side: Positive | None = None
    window: Positive | None = None
    overlap: Annotated[float, Ge(0), Lt(1)] = 0.33
    pad_to: Positive | None = None
    scales: list[float] = field(default_factory=lambda: [1.0])
    flip: bool = False

    @property
    def plain(self) -> bool:
        """True if the model is called once, on the image as it is."""
        return not self.changed

    @property
    def changed(self) -> list[str]:
        """Keys that change the result, `overlap` only if there is a window."""
        default = InferenceSettings()
        keys = ("short_side", "window", "pad_to", "scales", "flip")
        return [key for key in keys if getattr(self, key) != getattr(default, key)]


@dataclass(kw_only=True)
class PredictSettings:
    """Output of `mode=predict`."""

    images: NonNegative
    top: Positive
    merge_things: bool


@dataclass(kw_only=True)
class ExplainSettings:
    """Images of `mode=explain`."""

    images: NonNegative


@dataclass(kw_only=True)
class ExportSettings:
    """Artefacts of `mode=export`."""

    formats: Annotated[list[Literal["safetensors", "torch_export", "onnx"]], MinLen(1)]
    tolerance: Annotated[float, Gt(0)]


@dataclass(kw_only=True)
class ProfileSettings:
    """Measurements of `mode=profile`."""

    image_size: list[int]
    classes: Positive
    batch_size: Positive
    seconds: Annotated[float, Ge(0)]
    repeats: Positive


@dataclass(kw_only=True)
class CheckDataSettings:
    """Reading of a data set by `mode=check_data`."""

    workers: NonNegative | None


@dataclass(kw_only=True)
class ReportSettings:
    """Runs and contents of `mode=report`; `report=PATH` is short for `report.folders=[PATH]`."""

    folders: list[str] | None
    compare: list[str] | None
    published: bool


@dataclass(kw_only=True)
class SweepSettings:
    """Jobs of a sweep (`-m`)."""

    name: str | None
    retry_failed: bool
    wait: bool


@dataclass(kw_only=True)
class Config:
    """A run: plain values, sections, and a node with a `_target_` for each group.

    Args:
        everything: the same configuration as plain containers, as a run stores it.
        choices: the chosen option of each group; without those that a trained model brought.
    """

    name: str
    mode: Mode
    seed: Annotated[int, Ge(0), Le(LARGEST_SEED)]
    trust: list[str]
    resume: ResumeSettings
    weights: WeightSettings
    training: TrainingSettings
    checkpoint: CheckpointSettings
    debug: DebugSettings
    batch_norm: BatchNormSettings
    parameters: ParameterSettings
    inference: InferenceSettings
    sweep: SweepSettings
    task: Node
    model: Node
    data: Node
    optimizer: Node
    schedule: Node
    hardware: Node
    everything: Node
    distillation: Node | None = None
    logger: dict[str, Node] = field(default_factory=dict)
    choices: dict[str, str] = field(default_factory=dict)


@dataclass(kw_only=True)
class PredictConfig(Config):
    """Configuration of `mode=predict`; without `input` it uses validation images."""

    input: Annotated[str, MinLen(1)] | None
    predict: PredictSettings


@dataclass(kw_only=True)
class ExplainConfig(Config):
    """Configuration of `mode=explain`; without `input` it uses validation images."""

    input: Annotated[str, MinLen(1)] | None
    explain: ExplainSettings


@dataclass(kw_only=True)
class ExportConfig(Config):
    """Configuration of `mode=export`."""

    export: ExportSettings


@dataclass(kw_only=True)
class ProfileConfig(Config):
    """Configuration of `mode=profile`."""

    profile: ProfileSettings


@dataclass(kw_only=True)
class CheckDataConfig(Config):
    """Configuration of `mode=check_data`."""

    check_data: CheckDataSettings


@dataclass(kw_only=True)
class ReportConfig(Config):
    """Configuration of `mode=report`."""

    report: ReportSettings


CONFIGS: dict[str, type[Config]] = {
    "train": Config,
    "test": Config,
    "predict": PredictConfig,
    "explain": ExplainConfig,
    "export": ExportConfig,
    "profile": ProfileConfig,
    "check_data": CheckDataConfig,
    "report": ReportConfig,
}
"""Configuration class of each mode: the common keys, and those of `conf/mode/NAME.yaml`."""


def sections(config: type) -> dict[str, type]:
    """Return the dataclass of each section of a configuration, and of the sections in it, by dotted path."""
    return dict(_sections(config, ""))


def _sections(config: type, prefix: str) -> Iterator[tuple[str, type]]:
    for name, kind in typing.get_type_hints(config).items():
        if dataclasses.is_dataclass(kind):
            yield f"{prefix}{name}", typing.cast(type, kind)
            yield from _sections(typing.cast(type, kind), f"{prefix}{name}.")


def keys_of_mode(mode: str) -> list[str]:
    """Return the top-level keys of a mode that not all modes have."""
    common = {found.name for found in dataclasses.fields(Config)}
    return [found.name for found in dataclasses.fields(CONFIGS[mode]) if found.name not in common]


def explain_other_mode(key: str) -> str | None:
    """Return the message for a top-level key that only other modes have; None if no mode has it."""
    modes = [f"mode={mode}" for mode in CONFIGS if key in keys_of_mode(mode)]
    return f"{key}: only for {' and '.join(modes)}. Choose that mode, or leave it out." if modes else None
