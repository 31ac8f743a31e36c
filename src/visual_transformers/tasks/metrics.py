"""Scores over a whole data set: counts are summed over all batches first, and divided once at the end."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn
from torchmetrics import Metric

ClassTable = dict[str, dict[str, float]]
"""Rows by class name, columns by score; NaN where a class has nothing to score."""


class ConfusionMatrix(Metric):
    """Counts of (truth, prediction) over a data set; `compute` gives them as (classes, classes) in float64.

    Not torchmetrics' own: that one picks out the targets that count by a mask and so waits for the device at every
    update, and with deterministic algorithms it needs memory for targets x classes^2 numbers. Here what does not
    count falls into one more bin.
    """

    counts: Tensor

    def __init__(self, classes: int, ignore: int):
        super().__init__(sync_on_compute=False)
        self.classes, self.ignore = classes, ignore
        self.add_state("counts", torch.zeros(classes**2 + 1, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, predictions: Tensor, targets: Tensor) -> None:
        """Add class indices of one shape."""
        bins = torch.where(targets == self.ignore, self.classes**2, targets * self.classes + predictions).flatten()
        self.counts.scatter_add_(0, bins, torch.ones_like(bins))

    def compute(self) -> Tensor:
        """The matrix, truth in rows."""
        return self.counts[:-1].reshape(self.classes, self.classes).double()


class Total(Metric):
    """A sum in float64, for sums over a data set's pixels outgrow float32's 24 bits.

    Not torchmetrics' SumMetric: moved to a device, version 1.9's rounds what it adds to float32.
    """

    total: Tensor

    def __init__(self) -> None:
        super().__init__(sync_on_compute=False)
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, value: Tensor) -> None:
        """Add a number."""
        self.total += value

    def compute(self) -> Tensor:
        """The sum."""
        return self.total


class Scores(nn.Module, ABC):
    """Loss and predictions of many batches; `state_dict` holds what was counted so far.

    Args:
        classes: names of the classes.
        ignore: the target that counts nowhere.
    """

    metrics: ClassVar[tuple[str, ...]]

    def __init__(self, classes: list[str], ignore: int):
        super().__init__()
        self.classes = classes
        self.confusion = ConfusionMatrix(len(classes), ignore)
        self.loss_sum, self.count = Total(), Total()

    @property
    def names(self) -> list[str]:
        """Names of the scores that `compute` gives beside the loss, the higher the better."""
        return list(self.metrics)

    def update(self, logits: Tensor, targets: Tensor, loss_sum: Tensor, count: Tensor) -> None:
        """Add a batch; nothing is read back from the device."""
        self.loss_sum.update(loss_sum)
        self.count.update(count)
        self._update(logits.detach(), targets)

    @abstractmethod
    def _update(self, logits: Tensor, targets: Tensor) -> None:
        """Count a batch's predictions."""

    def compute(self) -> dict[str, float]:
        """The scores of everything added, by name."""
        with warnings.catch_warnings():  # of counts that were restored, not added here
            warnings.filterwarnings("ignore", ".*compute.*was called before the ..update.. method")
            return self._all()

    def _all(self) -> dict[str, float]:
        return {"loss": float(self.loss_sum.compute() / self.count.compute())} | self._compute()

    @abstractmethod
    def _compute(self) -> dict[str, float]:
        """The scores beside the loss."""

    @abstractmethod
    def table(self) -> ClassTable:
        """Scores of each class."""

    def reset(self) -> None:
        """Forget everything added."""
        for metric in self._metrics():
            metric.reset()

    def together(self) -> Scores:
        """Add up what all processes counted; to be read, not added to. Collective: every process must call it."""
        for metric in self._metrics():
            metric.sync()
        return self

    def apart(self) -> None:
        """Go back to what this process counted, to count on."""
        for metric in self._metrics():
            if metric._is_synced:
                metric.unsync()

    def persistent(self) -> Scores:
        """Make `state_dict` carry the counts, for a run that stops within an epoch."""
        for metric in self._metrics():
            metric.persistent(True)
        return self

    def _metrics(self) -> list[Metric]:
        return [module for module in self.modules() if isinstance(module, Metric)]


class ClassificationScores(Scores):
    """top1, and top5 where there are more than five classes: logits (B, C), targets (B)."""

    metrics: ClassVar[tuple[str, ...]] = ("top1", "top5")

    def __init__(self, classes: list[str], ignore: int):
        super().__init__(classes, ignore)
        self.in_top5 = Total()

    @property
    def names(self) -> list[str]:
        """top1, and top5 where it says anything."""
        return list(self.metrics if len(self.classes) > 5 else self.metrics[:1])

    def _update(self, logits: Tensor, targets: Tensor) -> None:
        self.confusion.update(logits.argmax(dim=1), targets)
        if "top5" in self.names:
            self.in_top5.update((logits.topk(5, dim=1).indices == targets[:, None]).sum())

    def _compute(self) -> dict[str, float]:
        matrix = self.confusion.compute()
        scores = {"top1": float(matrix.diag().sum() / matrix.sum())}
        if "top5" in self.names:
            scores["top5"] = float(self.in_top5.compute() / matrix.sum())
        return scores

    def table(self) -> ClassTable:
        """Recall and precision of each class."""
        matrix = self.confusion.compute()
        recall, precision = matrix.diag() / matrix.sum(1), matrix.diag() / matrix.sum(0)
        return {
            name: {"recall": float(r), "precision": float(p)}
            for name, r, p in zip(self.classes, recall, precision, strict=True)
        }


class SegmentationScores(Scores):
    """Scores of a confusion matrix over all pixels that count: logits (B, C, H, W), targets (B, H, W).

    n_ij pixels of class i are predicted as j: pixel accuracy = sum n_ii / sum n_ij, class accuracy = n_ii / sum_j n_ij,
    IoU = n_ii / (sum_j n_ij + sum_j n_ji - n_ii). Mean IoU leaves out classes that neither the truth nor the
    prediction has; one that is only predicted counts as 0, as in mmsegmentation. mIoU_true_classes and the mean class
    accuracy leave that one out too, as the evaluators of COCO and Detectron2 do. fwIoU weighs IoU by true pixels.
    """

    metrics: ClassVar[tuple[str, ...]] = ("mIoU", "mIoU_true_classes", "pixel_accuracy", "mean_class_accuracy", "fwIoU")

    def _update(self, logits: Tensor, targets: Tensor) -> None:
        self.confusion.update(logits.argmax(dim=1), targets)

    def _counts(self) -> tuple[Tensor, Tensor, Tensor]:
        matrix = self.confusion.compute()
        return matrix.diag(), matrix.sum(1), matrix.sum(0)

    def _compute(self) -> dict[str, float]:
        hits, truth, predicted = self._counts()
        union = truth + predicted - hits
        iou = hits / union  # NaN where the union is empty
        return {
            "mIoU": float(iou.nanmean()),
            "mIoU_true_classes": float(iou[truth > 0].mean()),
            "pixel_accuracy": float(hits.sum() / truth.sum()),
            "mean_class_accuracy": float((hits / truth).nanmean()),
            "fwIoU": float((truth * iou).nansum() / truth.sum()),
        }

    def table(self) -> ClassTable:
        """IoU, accuracy and share of the true pixels of each class."""
        hits, truth, predicted = self._counts()
        columns = {
            "IoU": hits / (truth + predicted - hits),
            "accuracy": hits / truth,
            "share_of_pixels": truth / truth.sum(),
        }
        return {name: {key: float(column[i]) for key, column in columns.items()} for i, name in enumerate(self.classes)}
