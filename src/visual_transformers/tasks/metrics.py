"""Scores of a whole data set: counts are summed over all batches and divided once at the end."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn
from torchmetrics import Metric

ClassTable = dict[str, dict[str, float]]
"""Rows by class name, columns by score; NaN if the score is undefined for a class."""


class ConfusionMatrix(Metric):
    """Confusion matrix (classes, classes) in float64, true classes in rows.

    torchmetrics' own selects the valid targets by a mask, which waits for the device in every update, and with
    deterministic algorithms it allocates targets x classes^2 numbers. Here ignored targets are counted in an extra bin.
    """

    counts: Tensor

    def __init__(self, classes: int, ignore_index: int):
        super().__init__(sync_on_compute=False)
        self.classes, self.ignore_index = classes, ignore_index
        self.add_state("counts", torch.zeros(classes**2 + 1, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, predictions: Tensor, targets: Tensor) -> None:
        """Add class indices of the same shape."""
        ignored = targets == self.ignore_index
        bins = torch.where(ignored, self.classes**2, targets * self.classes + predictions).flatten()
        self.counts.scatter_add_(0, bins, torch.ones_like(bins))

    def compute(self) -> Tensor:
        """Return the matrix."""
        return self.counts[:-1].reshape(self.classes, self.classes).double()


class Float64Sum(Metric):
    """Sum in float64, because sums over the pixels of a data set exceed the 24 bits of float32.

    torchmetrics' SumMetric (1.9) rounds its summands to float32 once it is moved to a device.
    """

    total: Tensor

    def __init__(self) -> None:
        super().__init__(sync_on_compute=False)
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, value: Tensor) -> None:
        """Add a number."""
        self.total += value

    def compute(self) -> Tensor:
        """Return the sum."""
        return self.total


class Scores(nn.Module, ABC):
    """Mean loss and scores of many batches.

    Args:
        classes: names of the classes.
        ignore_index: target that is ignored.
    """

    metrics: ClassVar[tuple[str, ...]]

    def __init__(self, classes: list[str], ignore_index: int):
        super().__init__()
        self.classes = classes
        self.confusion = ConfusionMatrix(len(classes), ignore_index)
        self.loss_sum, self.count = Float64Sum(), Float64Sum()

    @property
    def names(self) -> list[str]:
        """Names of the scores from `compute` except the loss; higher is better."""
        return list(self.metrics)

    def update(self, logits: Tensor, targets: Tensor, loss_sum: Tensor, count: Tensor) -> None:
        """Add a batch without waiting for the device."""
        self.loss_sum.update(loss_sum)
        self.count.update(count)
        self.confusion.update(logits.argmax(dim=1), targets)

    def compute(self) -> dict[str, float]:
        """Return loss and scores of all batches by name."""
        with warnings.catch_warnings():  # torchmetrics warns about counts that come from a checkpoint
            warnings.filterwarnings("ignore", ".*compute.*was called before the ..update.. method")
            return {"loss": float(self.loss_sum.compute() / self.count.compute())} | self._compute_scores()

    @abstractmethod
    def _compute_scores(self) -> dict[str, float]:
        """Return the scores by name."""

    @abstractmethod
    def compute_table(self) -> ClassTable:
        """Return the scores of each class."""

    def reset(self) -> None:
        """Forget all batches."""
        for metric in self._metrics():
            metric.reset()

    def sync(self) -> Scores:
        """Sum the counts of all ranks, for reading only until `unsync`. Collective: every rank must call it."""
        for metric in self._metrics():
            metric.sync()
        return self

    def unsync(self) -> None:
        """Restore the counts of this rank."""
        for metric in self._metrics():
            if metric._is_synced:
                metric.unsync()

    def make_persistent(self) -> Scores:
        """Include the counts in `state_dict`, for runs that stop within an epoch."""
        for metric in self._metrics():
            metric.persistent(True)
        return self

    def _metrics(self) -> list[Metric]:
        return [module for module in self.modules() if isinstance(module, Metric)]


class ClassificationScores(Scores):
    """top1, and top5 if there are more than five classes, of logits (B, C) and targets (B)."""

    metrics: ClassVar[tuple[str, ...]] = ("top1", "top5")

    def __init__(self, classes: list[str], ignore_index: int):
        super().__init__(classes, ignore_index)
        self.in_top5 = Float64Sum()

    @property
    def names(self) -> list[str]:
        """top1, and top5 if there are more than five classes."""
        return list(self.metrics if len(self.classes) > 5 else self.metrics[:1])

    def update(self, logits: Tensor, targets: Tensor, loss_sum: Tensor, count: Tensor) -> None:
        """Add a batch without waiting for the device."""
        super().update(logits, targets, loss_sum, count)
        if "top5" in self.names:
            self.in_top5.update((logits.detach().topk(5, dim=1).indices == targets[:, None]).sum())

    def _compute_scores(self) -> dict[str, float]:
        matrix = self.confusion.compute()
        scores = {"top1": float(matrix.diag().sum() / matrix.sum())}
        if "top5" in self.names:
            scores["top5"] = float(self.in_top5.compute() / matrix.sum())
        return scores

    def compute_table(self) -> ClassTable:
        """Return recall and precision of each class."""
        matrix = self.confusion.compute()
        return _tabulate(self.classes, recall=matrix.diag() / matrix.sum(1), precision=matrix.diag() / matrix.sum(0))


class SegmentationScores(Scores):
    """Scores of the confusion matrix over all valid pixels, of logits (B, C, H, W) and targets (B, H, W).

    With n_ij pixels of class i predicted as j: pixel accuracy = sum n_ii / sum n_ij, class accuracy =
    n_ii / sum_j n_ij, IoU = n_ii / (sum_j n_ij + sum_j n_ji - n_ii). mIoU omits classes that occur neither in targets
    nor in predictions; a class that occurs only in predictions has IoU 0, as in mmsegmentation. mIoU_true_classes and
    the mean class accuracy omit such a class too, like the evaluators of COCO and Detectron2. fwIoU weights IoU
    by true pixels.
    """

    metrics: ClassVar[tuple[str, ...]] = ("mIoU", "mIoU_true_classes", "pixel_accuracy", "mean_class_accuracy", "fwIoU")

    def _counts(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return correct, true and predicted pixels (C) by class."""
        matrix = self.confusion.compute()
        return matrix.diag(), matrix.sum(1), matrix.sum(0)

    def _compute_scores(self) -> dict[str, float]:
        hits, truth, predicted = self._counts()
        iou = hits / (truth + predicted - hits)  # NaN for an empty union
        return {
            "mIoU": float(iou.nanmean()),
            "mIoU_true_classes": float(iou[truth > 0].mean()),
            "pixel_accuracy": float(hits.sum() / truth.sum()),
            "mean_class_accuracy": float((hits / truth).nanmean()),
            "fwIoU": float((truth * iou).nansum() / truth.sum()),
        }

    def compute_table(self) -> ClassTable:
        """Return IoU, accuracy and share of the true pixels of each class."""
        hits, truth, predicted = self._counts()
        iou, share = hits / (truth + predicted - hits), truth / truth.sum()
        return _tabulate(self.classes, IoU=iou, accuracy=hits / truth, share_of_pixels=share)


def _tabulate(classes: list[str], **columns: Tensor) -> ClassTable:
    return {name: {key: float(column[i]) for key, column in columns.items()} for i, name in enumerate(classes)}
