"""Tasks: loss of a batch, valid targets, and scores of a data set."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

import torch
import torch.nn.functional as F
from annotated_types import Ge, Lt
from torch import Tensor, nn

from visual_transformers.data.labels import IGNORE_INDEX
from visual_transformers.errors import ConfigError, suggest
from visual_transformers.tasks.metrics import ClassificationScores, Scores, SegmentationScores


@dataclass(kw_only=True)
class Task(ABC):
    """Cross entropy over the classes of images or pixels.

    Args:
        metric: validation score that selects the best checkpoint; higher is better.
        label_smoothing: share of each target that is spread over all classes, in training only.
    """

    name: ClassVar[str]
    metrics: ClassVar[tuple[str, ...]]
    scores_type: ClassVar[type[Scores]]
    ignore_index: ClassVar[int]
    profile_image_size: ClassVar[tuple[int, int]]
    """Height and width at which the paper counts the costs of the task's models, pixels."""
    profile_classes: ClassVar[int]
    metric: str
    label_smoothing: Annotated[float, Ge(0), Lt(1)] = 0.0
    _weights: Tensor | None = field(default=None, init=False, repr=False, compare=False)
    """Class weights of the training loss, float32 (C) on the device of the targets; None if all are 1."""

    def prepare(self, classes: list[str], device: torch.device) -> None:
        """Check the task against the classes of the data set; `device` is that of the targets.

        Raises:
            ConfigError: if there is only one class, or the metric does not exist for them, e.g. top5 of five classes.
        """
        if len(classes) < 2:
            raise ConfigError(
                f"data: has a single class ({', '.join(classes)}), so there is nothing to learn. Name at least two; "
                "for masks of one kind of object, the background is a class too."
            )
        names = self.make_scores(classes).names
        if self.metric not in names:
            raise ConfigError(
                f"task.metric={self.metric}: with {len(classes)} classes there is no such score. Choose one of "
                f"{', '.join(names)}"
            )

    def loss_sum(self, logits: Tensor, targets: Tensor, *, training: bool) -> Tensor:
        """Sum the cross entropies of the valid targets in at least float32.

        Training smooths the labels and weights the classes. Divide the sum by `sum_weights` in training, by `count`
        otherwise.

        Args:
            logits: (B, C, ...).
            targets: class indices (B, ...), or class shares (B, C) of mixed images.
            training: whether this is a training loss.
        """
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return F.cross_entropy(
            logits,
            targets,
            weight=self._weights.to(logits.dtype) if training and self._weights is not None else None,
            ignore_index=self.ignore_index,
            reduction="sum",
            label_smoothing=self.label_smoothing if training else 0.0,
        )

    def valid_mask(self, targets: Tensor) -> Tensor | None:
        """Mask of targets that are not ignored; None if all are valid."""
        return targets != self.ignore_index

    def count(self, targets: Tensor) -> Tensor:
        """Count the valid targets: a scalar on their device."""
        mask = self.valid_mask(targets)
        return torch.full((), len(targets), device=targets.device) if mask is None else mask.sum()

    def sum_weights(self, targets: Tensor) -> Tensor:
        """Sum the class weights of the valid targets, the denominator of torch's weighted cross entropy; a scalar."""
        if self._weights is None:
            return self.count(targets)
        # Ignored targets get an extra class of weight 0, because selecting the others would wait for the device.
        classes = torch.where(targets == self.ignore_index, len(self._weights), targets)
        return F.pad(self._weights, (0, 1))[classes].sum()

    def class_indices(self, targets: Tensor) -> Tensor:
        """Class indices of (possibly mixed) targets."""
        return targets

    def check_output(self, model: nn.Module, images: Tensor, classes: int) -> None:
        """Run the model on images (B, 3, H, W) in evaluation mode and check its logits.

        Raises:
            ConfigError: if their shape does not fit this task.
        """
        with torch.inference_mode():
            self.check_logits(model.eval()(images), images, classes)

    def check_logits(self, logits: Any, images: Tensor, classes: int) -> None:
        """Check a model's output for images (B, 3, H, W).

        Raises:
            ConfigError: if it is no tensor of the shape that this task needs.
        """
        expected = self.output_shape(images, classes)
        given = tuple(logits.shape) if isinstance(logits, Tensor) else f"a {type(logits).__name__}, not a tensor"
        if given != expected:
            raise ConfigError(
                f"{self.name} with {classes} classes needs outputs of shape {expected} from images of shape "
                f"{tuple(images.shape)}, but the model gives {given}; choose another model or task"
            )

    @staticmethod
    @abstractmethod
    def output_shape(images: Tensor, classes: int) -> tuple[int, ...]:
        """Shape of the logits for these images."""

    def make_scores(self, classes: list[str]) -> Scores:
        """Create empty scores for a data set with these classes."""
        return self.scores_type(classes, self.ignore_index)


@dataclass(kw_only=True)
class Classification(Task):
    """One class per image."""

    name: ClassVar[str] = "classification"
    scores_type: ClassVar[type[Scores]] = ClassificationScores
    metrics: ClassVar[tuple[str, ...]] = ClassificationScores.metrics
    ignore_index: ClassVar[int] = -100  # torch's default, which no class index equals: every image is valid
    profile_image_size: ClassVar[tuple[int, int]] = (224, 224)
    profile_classes: ClassVar[int] = 1000

    metric: str = "top1"

    def valid_mask(self, targets: Tensor) -> Tensor | None:
        """Return None, because every image is valid."""
        return None

    def class_indices(self, targets: Tensor) -> Tensor:
        """Class indices (B) of targets (B), or the classes with the largest share of mixed targets (B, C)."""
        return targets.argmax(dim=1) if targets.ndim == 2 else targets

    @staticmethod
    def output_shape(images: Tensor, classes: int) -> tuple[int, ...]:
        """(B, classes)."""
        return images.shape[0], classes


@dataclass(kw_only=True)
class Segmentation(Task):
    """One class per pixel; pixels of class index `IGNORE_INDEX` are ignored.

    Args:
        class_weights: weight of a class in the training loss by its name; 1 for all others. `prepare` applies them.
    """

    name: ClassVar[str] = "segmentation"
    scores_type: ClassVar[type[Scores]] = SegmentationScores
    metrics: ClassVar[tuple[str, ...]] = SegmentationScores.metrics
    ignore_index: ClassVar[int] = IGNORE_INDEX
    profile_image_size: ClassVar[tuple[int, int]] = (800, 1216)
    profile_classes: ClassVar[int] = 91

    metric: str = "mIoU"
    class_weights: dict[str, float] = field(default_factory=dict)

    def prepare(self, classes: list[str], device: torch.device) -> None:
        """Check the task, and move its class weights to `device`.

        Raises:
            ConfigError: if a class does not exist or its weight is negative, too.
        """
        super().prepare(classes, device)
        for name, weight in self.class_weights.items():
            if name not in classes:
                raise ConfigError(
                    f"task.class_weights.{name}: the data set has no such class{suggest(name, classes, 'it has')}"
                )
            if not 0 <= weight < math.inf:
                raise ConfigError(f"task.class_weights.{name}={weight}: must be at least 0, and finite")
        if self.class_weights:
            self._weights = torch.tensor([float(self.class_weights.get(name, 1)) for name in classes], device=device)

    @staticmethod
    def output_shape(images: Tensor, classes: int) -> tuple[int, ...]:
        """(B, classes, H, W)."""
        return images.shape[0], classes, *images.shape[2:]
