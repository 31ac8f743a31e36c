"""The tasks: what a batch's loss is, which images or pixels count, and how a whole data set is scored."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visual_transformers.data.transforms import IGNORE
from visual_transformers.errors import ConfigError
from visual_transformers.metrics import ClassificationScores, Scores, SegmentationScores


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

    def loss_sum(self, logits: Tensor, targets: Tensor, *, smoothing: bool) -> Tensor:
        """Sum of the cross entropies of the targets that count, in float32 or more.

        Logits are (B, C, ...), targets (B, ...), or shares of the classes (B, C) of mixed images.
        """
        return F.cross_entropy(
            logits.to(torch.promote_types(logits.dtype, torch.float32)),
            targets,
            ignore_index=self.ignore,
            reduction="sum",
            label_smoothing=self.label_smoothing if smoothing else 0.0,
        )

    def count(self, targets: Tensor) -> Tensor:
        """How many targets count: a scalar on their device."""
        return (targets != self.ignore).sum()

    def hard(self, targets: Tensor) -> Tensor:
        """Class indices, for scores."""
        return targets

    def check_metric(self, classes: list[str]) -> None:
        """See that the metric exists for this data set.

        Raises:
            ConfigError: if it does not, as top5 of five classes.
        """
        if self.metric not in self.scores(classes).names:
            raise ConfigError(
                f"task.metric={self.metric}: with {len(classes)} classes there are "
                f"{', '.join(self.scores(classes).names)}"
            )

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
        """All images count."""
        return torch.full((), len(targets), device=targets.device)

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
    """One class a pixel; pixels labelled `transforms.IGNORE` count nowhere."""

    name: ClassVar[str] = "segmentation"
    metrics: ClassVar[tuple[str, ...]] = SegmentationScores.metrics
    ignore: ClassVar[int] = IGNORE

    metric: str = "mIoU"

    @staticmethod
    def output_shape(images: Tensor, classes: int) -> tuple[int, ...]:
        """(B, classes, H, W)."""
        return images.shape[0], classes, *images.shape[2:]

    def scores(self, classes: list[str]) -> Scores:
        """mIoU, pixel accuracy, mean class accuracy, fwIoU, loss."""
        return SegmentationScores(classes, self.ignore)
