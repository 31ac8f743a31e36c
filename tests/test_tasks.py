from __future__ import annotations

import pytest
import torch
from torch import nn

from visual_transformers.errors import ConfigError
from visual_transformers.tasks import Classification, Segmentation


def test_a_model_whose_output_does_not_fit_the_task_is_refused():
    images = torch.randn(1, 3, 8, 8)
    with pytest.raises(ConfigError, match=r"classification with 5 classes needs outputs of shape \(1, 5\)"):
        Classification().check_output(nn.Conv2d(3, 5, 1), images, 5)
    with pytest.raises(ConfigError, match=r"needs outputs of shape \(1, 5, 8, 8\)"):
        Segmentation().check_output(nn.Conv2d(3, 5, 3), images, 5)


def test_a_model_that_returns_more_than_logits_is_refused_by_what_it_returns():
    class Several(nn.Module):
        def forward(self, images):
            return {"out": images}

    with pytest.raises(ConfigError, match="but the model gives a dict, not a tensor; choose another model"):
        Segmentation().check_output(Several(), torch.randn(1, 3, 8, 8), 3)


def test_a_metric_that_the_data_set_has_not_is_refused():
    with pytest.raises(ConfigError, match=r"task\.metric=top5: with 3 classes there are top1"):
        Classification(metric="top5").check_metric(["a", "b", "c"])


def test_the_loss_of_half_precision_logits_is_computed_in_float32():
    logits, targets = torch.randn(4, 10).bfloat16(), torch.randint(0, 10, (4,))
    loss = Classification().loss_sum(logits, targets, smoothing=False)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, nn.functional.cross_entropy(logits.float(), targets, reduction="sum"))


def test_a_batch_without_a_labelled_pixel_has_no_loss():
    targets = torch.full((2, 4, 4), Segmentation.ignore)
    assert Segmentation().loss_sum(torch.randn(2, 5, 4, 4), targets, smoothing=True) == 0
    assert Segmentation().count(targets) == 0
