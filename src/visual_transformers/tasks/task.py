"""The tasks: what a batch's loss is, which images or pixels count, and how a whole data set is scored."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visual_transformers.data.normalization import IGNORE
from visual_transformers.errors import ConfigError, suggestion
from visual_transformers.tasks.metrics import ClassificationScores, Scores, SegmentationScores


@dataclass(kw_only=True)
class Task(ABC):
    """Cross entropy over classes, of images or of pixels.

    Args:
        metric: the validation score that picks the best checkpoint, the higher the better.
        label_smoothing: share of each target that is spread over all classes, in training only.
    """

    name: ClassVar[str]
    metrics: ClassVar[tuple[str, ...]]
    ignore: ClassVar[int]
    metric: str
    label_smoothing: float = 0.0
    _weights: Tensor | None = field(default=None, init=False, repr=False, compare=False)
    """Of the classes in a training loss, float32 (C) on the device of the targets; None where all weigh alike."""

    def prepare(self, classes: list[str], device: torch.device) -> None:
        """Learn which classes the data set has, and where its targets will be.

        Raises:
            ConfigError: if there is only one, or the metric does not exist for them, as top5 of five classes.
        """
        if len(classes) < 2:
            raise ConfigError(
                f"data: has a single class ({', '.join(classes)}), so there is nothing to learn. Name at least two; "
                "for masks of one kind of object, the background is a class too."
            )
        if self.metric not in self.scores(classes).names:
            raise ConfigError(
                f"task.metric={self.metric}: with {len(classes)} classes there are "
                f"{', '.join(self.scores(classes).names)}"
            )

    def loss_sum(self, logits: Tensor, targets: Tensor, *, training: bool) -> Tensor:
        """Sum of the cross entropies of the targets that count, in float32 or more.

        Logits are (B, C, ...), targets (B, ...), or shares of the classes (B, C) of mixed images. In training labels
        are smoothed and classes weighted; `weight` is what the sum is divided by then, and `count` otherwise.
        """
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return F.cross_entropy(
            logits,
            targets,
            weight=self._weights.to(logits.dtype) if training and self._weights is not None else None,
            ignore_index=self.ignore,
            reduction="sum",
            label_smoothing=self.label_smoothing if training else 0.0,
        )

    def count(self, targets: Tensor) -> Tensor:
        """How many targets count: a scalar on their device."""
        return (targets != self.ignore).sum()

    def counted(self, targets: Tensor) -> Tensor | None:
        """Which targets count, as bool of their shape; None for all."""
        return targets != self.ignore

    def weight(self, targets: Tensor) -> Tensor:
        """What a training loss of these targets is divided by, a scalar on their device: without weights their count.

        As torch's cross entropy has it: the sum of the weights of the targets that count.
        """
        if self._weights is None:
            return self.count(targets)
        # What does not count falls into one more class, of no weight: picking out the rest would wait for the device.
        classes = torch.where(targets == self.ignore, len(self._weights), targets)
        return F.pad(self._weights, (0, 1))[classes].sum()

    def hard(self, targets: Tensor) -> Tensor:
        """Class indices, for scores."""
        return targets

    def check_output(self, model: nn.Module, images: Tensor, classes: int) -> None:
        """Try the model on images (B, 3, H, W) without training it.

        Raises:
            ConfigError: if its output has not the shape that this task needs.
        """
        with torch.inference_mode():
            self.check_logits(model.eval()(images), images, classes)

    def check_logits(self, logits: Any, images: Tensor, classes: int) -> None:
        """See that a model's output for images (B, 3, H, W) is what this task takes.

        Raises:
            ConfigError: if it is not.
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

    @abstractmethod
    def scores(self, classes: list[str]) -> Scores:
        """New, empty scores over a data set with these classes."""


@dataclass(kw_only=True)
class Classification(Task):
    """One class an image."""

    name: ClassVar[str] = "classification"
    metrics: ClassVar[tuple[str, ...]] = ClassificationScores.metrics
    ignore: ClassVar[int] = -100  # torch's own: no class index, so every image counts

    metric: str = "top1"

    def count(self, targets: Tensor) -> Tensor:
        """How many images there are, for all count."""
        return torch.full((), len(targets), device=targets.device)

    def counted(self, targets: Tensor) -> Tensor | None:
        """All of them."""
        return None

    def hard(self, targets: Tensor) -> Tensor:
        """Of mixed images the class of the larger share."""
        return targets.argmax(dim=1) if targets.ndim == 2 else targets

    @staticmethod
    def output_shape(images: Tensor, classes: int) -> tuple[int, ...]:
        """(B, classes)."""
        return images.shape[0], classes

    def scores(self, classes: list[str]) -> Scores:
        """top1, top5, loss."""
        return ClassificationScores(classes, self.ignore)


@dataclass(kw_only=True)
class Segmentation(Task):
    """One class a pixel; pixels labelled `transforms.IGNORE` count nowhere.

    Args:
        class_weights: weight of a class in the training loss, by its name; the others weigh 1. It is in force once
            `prepare` has told which classes there are.
    """

    name: ClassVar[str] = "segmentation"
    metrics: ClassVar[tuple[str, ...]] = SegmentationScores.metrics
    ignore: ClassVar[int] = IGNORE

    metric: str = "mIoU"
    class_weights: dict[str, float] = field(default_factory=dict)

    def prepare(self, classes: list[str], device: torch.device) -> None:
        """Look up whose weights `class_weights` are, besides.

        Raises:
            ConfigError: if the data set has no class of a name, or a weight is negative.
        """
        super().prepare(classes, device)
        for name, weight in self.class_weights.items():
            if name not in classes:
                raise ConfigError(
                    f"task.class_weights.{name}: the data set has no such class{suggestion(name, classes, 'it has')}"
                )
            if not 0 <= weight < math.inf:
                raise ConfigError(f"task.class_weights.{name}={weight}: must be at least 0, and finite")
        if self.class_weights:
            self._weights = torch.tensor([float(self.class_weights.get(name, 1)) for name in classes], device=device)

    @staticmethod
    def output_shape(images: Tensor, classes: int) -> tuple[int, ...]:
        """(B, classes, H, W)."""
        return images.shape[0], classes, *images.shape[2:]

    def scores(self, classes: list[str]) -> Scores:
        """mIoU, pixel accuracy, mean class accuracy, fwIoU, loss."""
        return SegmentationScores(classes, self.ignore)
