"""Trained model for `predict`, `explain` and `export`: weights, classes, and the preparation of images."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from visual_transformers.checkpoints import weights
from visual_transformers.checkpoints.loading import load_weights
from visual_transformers.config.diff import changed_settings
from visual_transformers.config.instantiate import allowed_object, build
from visual_transformers.config.schema import Config, Node
from visual_transformers.data.datamodule import DataModule, EvalTransform
from visual_transformers.data.io.reading import Reading
from visual_transformers.data.normalization import Normalise
from visual_transformers.distributed.hardware import Hardware
from visual_transformers.errors import RunError
from visual_transformers.runs.run_dir import RunDirectory
from visual_transformers.tasks.task import Task


def read_weights(cfg: Config, directory: Path) -> weights.WeightFile:
    """Read the weights of `weights.file`, or by default the best weights of the run in `directory`.

    Raises:
        UserError: if the file is missing or cannot be read.
    """
    best = RunDirectory(directory).best
    if cfg.weights.file is None and not best.is_file():
        raise RunError(
            f"mode={cfg.mode} needs a trained model, but there is no {best}. Name a weight file with weights=PATH"
        )
    return weights.read(cfg.weights.file or best)


def print_changed_settings(cfg: Config, file: weights.WeightFile) -> None:
    """Print which settings of data and model differ from those that the weights were trained with."""
    published = weights.read_metadata(file.path) if weights.is_published(file.path) else {}
    trained: Node = (file.metadata | published).get("config", {})
    if "data" not in trained:
        used = cfg.data["_target_"].rsplit(".", 1)[-1]
        print(f"note: {file.path} does not name its data settings; images are prepared like those of data={used}")
    for group in ("data", "model"):
        for change in changed_settings(trained.get(group, cfg.everything[group]), cfg.everything[group], group):
            print(f"note: these weights were trained with another setting: {change}")


@dataclass
class Predictor:
    """Model with trained weights, in evaluation mode on the device of `hardware`, and all that its use requires."""

    hardware: Hardware
    task: Task
    model: nn.Module
    classes: list[str]
    prepare: EvalTransform
    normalise: nn.Module
    reading: Reading
    category_ids: list[int] | None
    mirrored_labels: tuple[tuple[int, int], ...]
    weights_path: Path
    metadata: dict[str, Any] = field(default_factory=dict)
    """Metadata of the weight file, by `weights.METADATA_KEYS`."""

    @classmethod
    def build(cls, cfg: Config, directory: Path) -> Predictor:
        """Build the model of the configuration and load its weights, see `read_weights`.

        The classes come from the weight file, or else from the data set; its folder is read only if its settings do not
        determine them.

        Raises:
            UserError: if the weights are missing or do not fit.
        """
        file = read_weights(cfg, directory)
        print_changed_settings(cfg, file)
        hardware: Hardware = build(cfg.hardware, "hardware", trust=cfg.trust)
        hardware.prepare(cfg.seed)
        data = allowed_object(cfg.data["_target_"], "data", trust=cfg.trust)
        assert isinstance(data, type) and issubclass(data, DataModule)
        classes = (
            file.metadata.get("classes")
            or data.classes_from_settings(cfg.data)
            or build(cfg.data, "data", trust=cfg.trust).classes
        )
        model = build(cfg.model, "model", trust=cfg.trust, num_classes=len(classes))
        ids = data.category_ids(cfg.data)
        print(load_weights(model, file, backbone_only=False, classes=classes, category_ids=ids))
        return cls(
            hardware=hardware,
            task=build(cfg.task, "task", trust=cfg.trust),
            model=hardware.place(model).eval(),
            classes=classes,
            prepare=data.build_eval_transform(cfg.data),
            normalise=hardware.place(Normalise()),
            reading=data.reading_from_settings(cfg.data),
            category_ids=ids,
            mirrored_labels=data.mirrored_labels,
            weights_path=file.path,
            metadata=file.metadata,
        )

    @property
    def stride(self) -> int:
        """Minimum height and width of an image in pixels, 1 if the model does not define it."""
        return getattr(self.model, "stride", 1)

    def to_inputs(self, image: Tensor) -> Tensor:
        """Turn a prepared image, uint8 (3, H, W), into a normalised input (1, 3, H, W) on the device."""
        images, _ = self.hardware.move(image[None], image)
        return self.normalise(images)

    @torch.inference_mode()
    def compute_logits(self, images: Tensor) -> Tensor:
        """Run the model on `to_inputs(image)` and return float32 logits.

        Raises:
            ConfigError: if the shape of the logits does not fit the task.
        """
        images, _ = self.hardware.move(images, images)
        with self.hardware.autocast():
            logits = self.model(images)
        self.task.check_logits(logits, images, len(self.classes))
        return logits.float()
