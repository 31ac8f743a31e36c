"""A trained model as `predict`, `explain` and `export` use it: weights, classes, how images become inputs."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from visual_transformers.checkpoints import weights
from visual_transformers.config.diff import changed_settings
from visual_transformers.config.instantiate import allowed_object, build
from visual_transformers.config.schema import Config, Node
from visual_transformers.data.datamodule import DataModule, Preparation
from visual_transformers.data.io.reading import Reading
from visual_transformers.data.normalization import Normalise
from visual_transformers.distributed.hardware import Hardware
from visual_transformers.errors import RunError
from visual_transformers.runs.run_dir import RunDirectory
from visual_transformers.tasks.task import Task


def trained_weights(cfg: Config, directory: Path) -> weights.WeightFile:
    """The weights of `weights.file`, or the best ones of the run in `directory`.

    Raises:
        UserError: if there are none, or they cannot be read.
    """
    best = RunDirectory(directory).best
    if cfg.weights.file is None and not best.is_file():
        raise RunError(
            f"mode={cfg.mode} needs a trained model, and has nothing to score or to show: there is no {best}; name a "
            "file with weights=PATH"
        )
    return weights.read(cfg.weights.file or best)


def say_other_settings(cfg: Config, file: weights.WeightFile) -> None:
    """Print with what other settings of data and model the weights were trained, or that nobody can tell."""
    published_as = weights.read_about(file.path) if weights.is_published(file.path) else {}
    trained: Node = (file.about | published_as).get("config", {})
    if "data" not in trained:
        used = cfg.data["_target_"].rsplit(".", 1)[-1]
        print(f"note: {file.path} does not say how its images were prepared; they are prepared as data={used} does it")
    for group in ("data", "model"):
        for change in changed_settings(trained.get(group, cfg.everything[group]), cfg.everything[group], group):
            print(f"note: these weights were trained with another setting: {change}")


@dataclass
class Trained:
    """A model with its weights, in evaluation mode on the device of `hardware`."""

    hardware: Hardware
    task: Task
    model: nn.Module
    classes: list[str]
    prepare: Preparation
    normalise: nn.Module
    reading: Reading
    category_ids: list[int] | None
    mirrored_labels: tuple[tuple[int, int], ...]
    weights_path: Path
    about: dict[str, Any] = field(default_factory=dict)
    """What the weight file says of its weights: the keys of `weights.ABOUT`."""

    @classmethod
    def build(cls, cfg: Config, directory: Path) -> Trained:
        """The model with the weights of `weights.file`, or with the best of this run.

        The classes are those that the file names; otherwise the data set's, whose folder is read only where its
        settings do not tell them.

        Raises:
            UserError: if there are no weights, or they do not fit.
        """
        file = trained_weights(cfg, directory)
        say_other_settings(cfg, file)
        hardware: Hardware = build(cfg.hardware, "hardware", trust=cfg.trust)
        hardware.prepare(cfg.seed)
        data = allowed_object(cfg.data["_target_"], "data", trust=cfg.trust)
        assert isinstance(data, type) and issubclass(data, DataModule)
        classes = (
            file.about.get("classes")
            or data.known_classes(cfg.data)
            or build(cfg.data, "data", trust=cfg.trust).classes
        )
        model = build(cfg.model, "model", trust=cfg.trust, num_classes=len(classes))
        ids = data.category_ids(cfg.data)
        print(weights.load(model, file, backbone_only=False, classes=classes, category_ids=ids))
        return cls(
            hardware=hardware,
            task=build(cfg.task, "task", trust=cfg.trust),
            model=hardware.place(model).eval(),
            classes=classes,
            prepare=data.preparation(cfg.data),
            normalise=hardware.place(Normalise()),
            reading=data.reads(cfg.data),
            category_ids=ids,
            mirrored_labels=data.mirrored_labels,
            weights_path=file.path,
            about=file.about,
        )

    @property
    def stride(self) -> int:
        """Least side of an image that the model takes, pixels; 1 for a model that does not say."""
        return getattr(self.model, "stride", 1)

    def inputs(self, image: Tensor) -> Tensor:
        """A prepared image, uint8 (3, H, W), on the device as the model takes it: (1, 3, H, W), as in training."""
        images, _ = self.hardware.move(image[None], image)
        return self.normalise(images)

    @torch.inference_mode()
    def logits(self, images: Tensor) -> Tensor:
        """`inputs` -> logits in float32, on the device.

        Raises:
            ConfigError: if the model's output is not what the task needs.
        """
        images, _ = self.hardware.move(images, images)
        with self.hardware.autocast():
            logits = self.model(images)
        self.task.check_logits(logits, images, len(self.classes))
        return logits.float()
