"""Scores over a whole data set: counts are summed over all batches first, and divided once at the end."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchmetrics import Metric, SumMetric
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix

ClassTable = dict[str, dict[str, float]]
"""Rows by class name, columns by score; NaN where a class has nothing to score."""


class Scores(nn.Module):
    """Loss and predictions of many batches; `state_dict` holds what was counted so far."""

    def __init__(self, classes: list[str]):
        super().__init__()
        self.classes = classes
        # Sums in float64, for those over a data set's pixels outgrow float32's 24 bits. Not MeanMetric: with
        # nan_strategy="disable", which spares a wait for the device, torchmetrics 1.9 passes over its weights.
        self.loss_sum, self.count = (SumMetric(nan_strategy="disable").set_dtype(torch.float64) for _ in range(2))

    @property
    def names(self) -> list[str]:
        """Names of the scores that `compute` gives beside the loss, the higher the better."""
        raise NotImplementedError

    def update(self, logits: Tensor, targets: Tensor, loss_sum: Tensor, count: Tensor) -> None:
        """Add a batch; nothing is read back from the device."""
        self.loss_sum.update(loss_sum)
        self.count.update(count)
        self._update(logits.detach(), targets)

    def _update(self, logits: Tensor, targets: Tensor) -> None:
        raise NotImplementedError

    def compute(self) -> dict[str, float]:
        """The scores of everything added, by name."""
        return {"loss": float(self.loss_sum.compute() / self.count.compute())} | self._compute()

    def _compute(self) -> dict[str, float]:
        raise NotImplementedError

    def table(self) -> ClassTable:
        """Scores of each class."""
        raise NotImplementedError

    def reset(self) -> None:
        """Forget everything added."""
        for metric in self._metrics():
            metric.reset()

    def persistent(self) -> Scores:
        """Make `state_dict` carry the counts, for a run that stops within an epoch."""
        for metric in self._metrics():
            metric.persistent(True)
        return self

    def _metrics(self) -> list[Metric]:
        return [module for module in self.modules() if isinstance(module, Metric)]


class ClassificationScores(Scores):
    """top1, and top5 where there are more than five classes: logits (B, C), targets (B)."""

    def __init__(self, classes: list[str]):
        super().__init__(classes)
        self.top = nn.ModuleDict(
            {
                f"top{k}": MulticlassAccuracy(len(classes), top_k=k, average="micro", validate_args=False)
                for k in (1, 5)
                if k == 1 or k < len(classes)
            }
        )
        self.confusion = MulticlassConfusionMatrix(len(classes), validate_args=False)

    @property
    def names(self) -> list[str]:
        """top1, and top5 where it says anything."""
        return list(self.top)

    def _update(self, logits: Tensor, targets: Tensor) -> None:
        self.confusion.update(logits.argmax(dim=1), targets)
        for accuracy in self.top.values():
            accuracy.update(logits, targets)  # type: ignore[operator]

    def _compute(self) -> dict[str, float]:
        return {name: float(accuracy.compute()) for name, accuracy in self.top.items()}  # type: ignore[operator]

    def table(self) -> ClassTable:
        """Recall and precision of each class."""
        matrix = self.confusion.compute().double()
        recall, precision = matrix.diag() / matrix.sum(1), matrix.diag() / matrix.sum(0)
        return {
            name: {"recall": float(r), "precision": float(p)}
            for name, r, p in zip(self.classes, recall, precision, strict=True)
        }


class SegmentationScores(Scores):
    """Scores of a confusion matrix over all pixels that count: logits (B, C, H, W), targets (B, H, W).

    n_ij pixels of class i are predicted as j: pixel accuracy = sum n_ii / sum n_ij, class accuracy = n_ii / sum_j n_ij,
    IoU = n_ii / (sum_j n_ij + sum_j n_ji - n_ii). Mean scores leave out classes that neither the truth nor the
    prediction has (a class that is only predicted counts as 0); fwIoU weighs IoU by the truth's pixels.
    """

    def __init__(self, classes: list[str], ignore: int):
        super().__init__(classes)
        self.confusion = MulticlassConfusionMatrix(len(classes), ignore_index=ignore, validate_args=False)

    def _update(self, logits: Tensor, targets: Tensor) -> None:
        self.confusion.update(logits.argmax(dim=1), targets)

    @property
    def names(self) -> list[str]:
        """The four scores of a confusion matrix."""
        return ["mIoU", "pixel_accuracy", "mean_class_accuracy", "fwIoU"]

    def _counts(self) -> tuple[Tensor, Tensor, Tensor]:
        matrix = self.confusion.compute().double()
        return matrix.diag(), matrix.sum(1), matrix.sum(0)

    def _compute(self) -> dict[str, float]:
        hits, truth, predicted = self._counts()
        union = truth + predicted - hits
        iou = hits / union  # NaN where the union is empty
        return {
            "mIoU": float(iou.nanmean()),
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
