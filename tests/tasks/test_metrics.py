"""Scores against brute force and torchmetrics."""

from __future__ import annotations

import math
import warnings

import pytest
import torch
from torch.nn import functional as F
from torchmetrics.classification import MulticlassConfusionMatrix, MulticlassJaccardIndex

from visual_transformers.tasks.metrics import ClassificationScores, ConfusionMatrix, SegmentationScores

CLASSES = 7
NAMES = [f"class {i}" for i in range(CLASSES)]
IGNORE = 255


@pytest.fixture
def segmentation_batches():
    """Three batches of different sizes; class 5 never occurs, class 6 is only predicted; a fifth is ignored."""
    batches = []
    for count in (2, 1, 4):
        targets = torch.randint(0, 5, (count, 9, 11))
        targets[torch.rand(targets.shape) < 0.2] = IGNORE
        logits = torch.randn(count, CLASSES, 9, 11)
        logits[:, 5] = -100
        batches.append((logits, targets))
    return batches


def score(scores, batches):
    for logits, targets in batches:
        count = (targets != IGNORE).sum()
        scores.update(logits, targets, F.cross_entropy(logits, targets, ignore_index=IGNORE, reduction="sum"), count)
    return scores


def brute_force_iou(batches):
    """Compute IoU, hits and true pixels by class in loops over pixels."""
    hits, truth, predicted = ([0] * CLASSES for _ in range(3))
    for logits, targets in batches:
        for t, p in zip(targets.flatten().tolist(), logits.argmax(1).flatten().tolist(), strict=True):
            if t != IGNORE:
                truth[t] += 1
                predicted[p] += 1
                hits[t] += t == p
    unions = [t + p - h for t, p, h in zip(truth, predicted, hits, strict=True)]
    return [h / u if u else math.nan for h, u in zip(hits, unions, strict=True)], hits, truth


def test_scores_match_brute_force_over_the_whole_set(segmentation_batches):
    iou, hits, truth = brute_force_iou(segmentation_batches)
    scores = score(SegmentationScores(NAMES, IGNORE), segmentation_batches).compute()
    present = [x for x in iou if not math.isnan(x)]
    assert len(present) == 6
    assert scores["mIoU"] == pytest.approx(sum(present) / 6, abs=1e-12)
    assert scores["pixel_accuracy"] == pytest.approx(sum(hits) / sum(truth), abs=1e-12)
    accuracies = [h / t for h, t in zip(hits, truth, strict=True) if t]
    assert scores["mean_class_accuracy"] == pytest.approx(sum(accuracies) / len(accuracies), abs=1e-12)
    weighted = sum(t * x for t, x in zip(truth, iou, strict=True) if t) / sum(truth)
    assert scores["fwIoU"] == pytest.approx(weighted, abs=1e-12)


def test_miou_matches_torchmetrics(segmentation_batches):
    oracle = MulticlassJaccardIndex(CLASSES, ignore_index=IGNORE, average="macro")
    for logits, targets in segmentation_batches:
        oracle.update(logits, targets)
    scores = score(SegmentationScores(NAMES, IGNORE), segmentation_batches).compute()
    assert scores["mIoU"] == pytest.approx(float(oracle.compute()), abs=1e-6)


def test_counts_match_torchmetrics(segmentation_batches):
    matrix, oracle = ConfusionMatrix(CLASSES, IGNORE), MulticlassConfusionMatrix(CLASSES, ignore_index=IGNORE)
    for logits, targets in segmentation_batches:
        matrix.update(logits.argmax(1), targets)
        oracle.update(logits.argmax(1), targets)
    assert torch.equal(matrix.compute().long(), oracle.compute())


def test_miou_is_of_the_data_set_and_not_a_mean_over_batches(segmentation_batches):
    whole = score(SegmentationScores(NAMES, IGNORE), segmentation_batches).compute()["mIoU"]
    each = [score(SegmentationScores(NAMES, IGNORE), [b]).compute()["mIoU"] for b in segmentation_batches]
    assert abs(whole - sum(each) / len(each)) > 1e-4


def test_predictions_on_ignored_pixels_change_nothing(segmentation_batches):
    before = score(SegmentationScores(NAMES, IGNORE), segmentation_batches).compute()
    for logits, targets in segmentation_batches:
        logits.movedim(1, -1)[targets == IGNORE] = torch.randn(CLASSES)
    assert score(SegmentationScores(NAMES, IGNORE), segmentation_batches).compute() == before


def test_the_class_table_holds_the_iou_of_every_class(segmentation_batches):
    iou, _, truth = brute_force_iou(segmentation_batches)
    table = score(SegmentationScores(NAMES, IGNORE), segmentation_batches).compute_table()
    assert [row["IoU"] for row in table.values()] == pytest.approx(iou, abs=1e-12, nan_ok=True)
    shares = [row["share_of_pixels"] for row in table.values()]
    assert shares == pytest.approx([t / sum(truth) for t in truth], abs=1e-12)


def test_loss_is_the_mean_over_all_valid_targets(segmentation_batches):
    logits = torch.cat([b[0].movedim(1, -1).reshape(-1, CLASSES) for b in segmentation_batches])
    targets = torch.cat([b[1].flatten() for b in segmentation_batches])
    expected = F.cross_entropy(logits, targets, ignore_index=IGNORE).item()
    scores = score(SegmentationScores(NAMES, IGNORE), segmentation_batches).compute()
    assert scores["loss"] == pytest.approx(expected, rel=1e-5)


def test_a_batch_of_ignored_pixels_leaves_the_loss_finite():
    logits, targets = torch.randn(1, CLASSES, 4, 4), torch.full((1, 4, 4), IGNORE)
    batches = [(logits, targets), (logits, torch.zeros(1, 4, 4, dtype=torch.long))]
    assert math.isfinite(score(SegmentationScores(NAMES, IGNORE), batches).compute()["loss"])


def test_top1_and_top5_match_brute_force():
    batches = [(torch.randn(n, CLASSES), torch.randint(0, CLASSES, (n,))) for n in (13, 4)]
    logits, targets = (torch.cat(t) for t in zip(*batches, strict=True))
    ranked = logits.argsort(dim=1, descending=True)
    scores = score(ClassificationScores(NAMES, IGNORE), batches).compute()
    for k in (1, 5):
        expected = sum(t in row[:k] for t, row in zip(targets.tolist(), ranked.tolist(), strict=True)) / 17
        assert scores[f"top{k}"] == pytest.approx(expected, abs=1e-6)


def test_there_is_no_top5_of_five_classes_and_no_warning_that_it_was_not_counted():
    scores = ClassificationScores(NAMES[:5], IGNORE)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        computed = score(scores, [(torch.randn(8, 5), torch.randint(0, 5, (8,)))]).compute()
    assert scores.names == ["top1"]
    assert list(computed) == ["loss", "top1"]


def test_counts_survive_a_state_dict(segmentation_batches):
    first = score(SegmentationScores(NAMES, IGNORE).make_persistent(), segmentation_batches[:1])
    second = SegmentationScores(NAMES, IGNORE).make_persistent()
    second.load_state_dict(first.state_dict())
    whole = score(SegmentationScores(NAMES, IGNORE), segmentation_batches).compute()
    assert score(second, segmentation_batches[1:]).compute() == whole
