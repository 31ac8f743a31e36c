"""What can be set beside the groups with a `_target_`: one dataclass for each section of the configuration.

The fields are the keys, their types are checked, and their meaning is said here and beside each key in
`conf/config.yaml`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Node = dict[str, Any]
Mode = Literal["train", "test", "predict", "explain", "export", "profile", "check_data", "report"]


@dataclass(kw_only=True)
class WeightSettings:
    """Where weights come from; `weights=PATH` is short for `weights.file=PATH`.

    Args:
        file: a file, or `torchvision:` and the name of published weights.
        backbone_only: load the layers before the head alone.
    """

    file: str | None = None
    backbone_only: bool = False


@dataclass(kw_only=True)
class Training:
    """How long and in what portions a model is trained.

    Args:
        epochs: passes over the training set.
        steps: optimizer steps, in place of `epochs`; null for whole epochs.
        accumulate: parts into which each batch is cut to save memory; the gradient is that of the whole batch.
        clip_norm: largest norm of the gradient, or null for no clipping.
        ema_decay: share that a moving average of weights and buffers keeps at each step; null for no average.
        skip_nonfinite: steps whose loss or gradient is not finite that are passed over before the run stops.
        log_every: optimizer steps between two records of the running loss.
        samples: pictures in samples.png.
    """

    epochs: int
    steps: int | None
    accumulate: int
    clip_norm: float | None
    ema_decay: float | None
    skip_nonfinite: int
    log_every: int
    samples: int


@dataclass(kw_only=True)
class ResumeSettings:
    """From which state training goes on.

    Args:
        checkpoint: `auto`: this run's, if there is one; `must`: this run's; `never`: none, an earlier run of this name
            is set aside; or the path of a checkpoint, of this or another run.
        allow: keys that may differ from the run that goes on, or the beginnings of keys.
    """

    checkpoint: str
    allow: list[str]


@dataclass(kw_only=True)
class Every:
    """How often the state is saved, beside each epoch's end.

    Args:
        steps: optimizer steps between two states, or null.
        minutes: minutes between them, or null.
    """

    steps: int | None
    minutes: float | None


@dataclass(kw_only=True)
class CheckpointSettings:
    """What is kept of a run.

    Args:
        every: how often its state is saved.
        top_k: how many of the best weights are kept.
    """

    every: Every
    top_k: int

    def __post_init__(self) -> None:
        if isinstance(self.every, dict):
            self.every = Every(**self.every)


@dataclass(kw_only=True)
class DebugSettings:
    """How to look into a run.

    Args:
        anomaly: whether autograd names the operation that made a gradient NaN.
        trace_steps: optimizer steps of which torch's profiler leaves a trace; 0 for none.
    """

    anomaly: bool
    trace_steps: int


@dataclass(kw_only=True)
class BatchNormSettings:
    """What batch norms look at and learn in training.

    Args:
        sync: take the statistics over the images of all processes.
        frozen: prefixes of modules whose batch norms keep statistics, weights and biases.
    """

    sync: bool = False
    frozen: list[str] = field(default_factory=list)


@dataclass(kw_only=True)
class Parameters:
    """What the optimizer does not do alike with all parameters.

    Args:
        no_decay: kinds that weight decay leaves alone: `norms`, the affine maps of all norm layers, and `biases`, every
            bias of another layer.
        lr_factors: learning-rate factor by parameter-name prefix; the longest match wins.
        vt_lr_factor: learning-rate factor of the VT modules, multiplied with theirs of `lr_factors`.
    """

    no_decay: list[str] = field(default_factory=list)
    lr_factors: dict[str, float] = field(default_factory=dict)
    vt_lr_factor: float = 1.0


@dataclass(kw_only=True)
class Inference:
    """How a segmenter is shown whole images, in validation, `mode=test` and `mode=predict`.

    Whatever is done to the image, probabilities are brought back to its own size: labels are never resized.

    Args:
        short_side: to which images are resized, pixels; null for their own size.
        window: side of the square sliding window, pixels; null for whole images.
        overlap: share of a window that the next one covers again.
        pad_to: multiple to which the sides of what the model sees are padded, pixels; null pads nothing.
        scales: resize factors whose probabilities are averaged.
        flip: whether to average over the mirrored image as well.
    """

    short_side: int | None = None
    window: int | None = None
    overlap: float = 0.33
    pad_to: int | None = None
    scales: list[float] = field(default_factory=lambda: [1.0])
    flip: bool = False

    @property
    def plain(self) -> bool:
        """Whether the model is called once, on the image as it is."""
        return not self.changed

    @property
    def changed(self) -> list[str]:
        """Keys that change anything."""
        usual = Inference()
        keys = ("short_side", "window", "pad_to", "scales", "flip")
        return [key for key in keys if getattr(self, key) != getattr(usual, key)]


@dataclass(kw_only=True)
class PredictSettings:
    """What `mode=predict` says of an image.

    Args:
        top: classes listed for an image, the most probable first.
        merge_things: whether the results for COCO-Stuff have all things as one category, 183.
    """

    top: int
    merge_things: bool


@dataclass(kw_only=True)
class ExportSettings:
    """What `mode=export` writes.

    Args:
        formats: of `safetensors`, `torch_export` and `onnx`.
        tolerance: largest difference between an artefact's outputs and the model's, as a part of the largest output.
    """

    formats: list[str]
    tolerance: float


@dataclass(kw_only=True)
class ProfileSettings:
    """What `mode=profile` measures.

    Args:
        image_size: height and width of the images, pixels.
        classes: outputs of the model.
        batch_size: images at a time.
        seconds: least time that each latency is measured for; 0 measures no time.
        repeats: least number of repetitions of each latency.
    """

    image_size: list[int]
    classes: int
    batch_size: int
    seconds: float
    repeats: int


@dataclass(kw_only=True)
class CheckDataSettings:
    """How `mode=check_data` looks at a data set.

    Args:
        workers: processes that read files; 0 reads in the main process, null takes one a core.
    """

    workers: int | None


@dataclass(kw_only=True)
class ReportSettings:
    """What `mode=report` reads and shows; `report=PATH` is short for `report.folders=[PATH]`.

    Args:
        folders: of runs and sweeps, with all that are below them; null for `runs` and `sweeps` in the current folder.
        compare: two models, by their names, whose classes are compared; null takes the two with most seeds.
        published: whether the figures of the paper and of the reference implementation stand beside ours.
    """

    folders: list[str] | None
    compare: list[str] | None
    published: bool


@dataclass(kw_only=True)
class SweepSettings:
    """How the jobs of a sweep (-m) are kept and started.

    Args:
        name: of its folder below `sweeps/`; null outside of a sweep, and named by the overrides in one.
        retry_failed: whether jobs that failed are started again; others that did not finish always are.
        wait: whether the command stays until its jobs on a cluster have ended.
    """

    name: str | None
    retry_failed: bool
    wait: bool


@dataclass(kw_only=True)
class Config:
    """A whole run: plain values, sections, and one node with a `_target_` for each group."""

    name: str
    mode: Mode
    seed: int
    trust: list[str]
    resume: ResumeSettings
    input: str | None
    weights: WeightSettings
    training: Training
    checkpoint: CheckpointSettings
    debug: DebugSettings
    batch_norm: BatchNormSettings
    parameters: Parameters
    inference: Inference
    predict: PredictSettings
    export: ExportSettings
    profile: ProfileSettings
    check_data: CheckDataSettings
    report: ReportSettings
    sweep: SweepSettings
    task: Node
    model: Node
    data: Node
    optimizer: Node
    schedule: Node
    hardware: Node
    everything: Node
    """The same configuration as plain containers, as a run stores it."""
    distillation: Node | None = None
    """None trains without a teacher."""
    logger: dict[str, Node] = field(default_factory=dict)
    choices: dict[str, str] = field(default_factory=dict)
    """The option that was chosen of each group; none of a group that a trained model brought, or without Hydra."""


SECTIONS: dict[str, type] = {
    "weights": WeightSettings,
    "resume": ResumeSettings,
    "training": Training,
    "checkpoint": CheckpointSettings,
    "debug": DebugSettings,
    "batch_norm": BatchNormSettings,
    "parameters": Parameters,
    "inference": Inference,
    "predict": PredictSettings,
    "export": ExportSettings,
    "profile": ProfileSettings,
    "check_data": CheckDataSettings,
    "report": ReportSettings,
    "sweep": SweepSettings,
}
NESTED: dict[str, type] = {"checkpoint.every": Every}
"""Sections within sections."""
