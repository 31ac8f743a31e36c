"""Losses, valid targets, class weights and refusals of the tasks."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from visual_transformers import runner
from visual_transformers.checkpoints.train_state import TrainState
from visual_transformers.config.validation import validate
from visual_transformers.data import DigitScenes as Scenes
from visual_transformers.distributed.hardware import Hardware
from visual_transformers.errors import ConfigError
from visual_transformers.runs.run_dir import RunDirectory
from visual_transformers.tasks.task import Classification, Segmentation


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


def test_a_metric_that_does_not_exist_for_the_data_set_is_refused():
    with pytest.raises(ConfigError, match=r"task\.metric=top5: .*\. Choose one of top1$"):
        Classification(metric="top5").prepare(["a", "b", "c"], torch.device("cpu"))


def test_the_loss_of_half_precision_logits_is_computed_in_float32():
    logits, targets = torch.randn(4, 10).bfloat16(), torch.randint(0, 10, (4,))
    loss = Classification().loss_sum(logits, targets, training=False)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, nn.functional.cross_entropy(logits.float(), targets, reduction="sum"))


def test_a_batch_without_a_labelled_pixel_has_no_loss():
    targets = torch.full((2, 4, 4), Segmentation.ignore_index)
    assert Segmentation().loss_sum(torch.randn(2, 5, 4, 4), targets, training=True) == 0
    assert Segmentation().count(targets) == 0


# Class weights


CLASSES = ["sky", "road", "car", "tree", "sign"]
WEIGHTS = torch.tensor([0.5, 1.0, 3.0, 0.0, 1.0]).double()


def weighted(**settings) -> Segmentation:
    task = Segmentation(class_weights={"car": 3.0, "sky": 0.5, "tree": 0.0}, **settings)
    task.prepare(CLASSES, torch.device("cpu"))
    return task


@pytest.fixture
def pixels() -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and labels of three images, with a third of the pixels ignored."""
    targets = torch.randint(0, 5, (3, 8, 8))
    targets[torch.rand(3, 8, 8) < 0.3] = Segmentation.ignore_index
    return torch.randn(3, 5, 8, 8).double(), targets


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_weighted_training_loss_is_torch_s_weighted_mean(pixels, smoothing):
    logits, targets = pixels
    task = weighted(label_smoothing=smoothing)
    expected = nn.functional.cross_entropy(
        logits, targets, weight=WEIGHTS, ignore_index=Segmentation.ignore_index, label_smoothing=smoothing
    )
    loss = task.loss_sum(logits, targets, training=True) / task.sum_weights(targets)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)


def test_evaluation_weighs_all_classes_alike(pixels):
    logits, targets = pixels
    task, plain = weighted(), Segmentation()
    expected = plain.loss_sum(logits, targets, training=False)
    assert torch.equal(task.loss_sum(logits, targets, training=False), expected)
    assert task.count(targets) == plain.count(targets) == (targets != Segmentation.ignore_index).sum()


def test_without_class_weights_a_loss_is_divided_by_the_count(pixels):
    _, targets = pixels
    task = Segmentation()
    task.prepare(CLASSES, torch.device("cpu"))
    assert torch.equal(task.sum_weights(targets), task.count(targets))
    images = torch.randint(0, 5, (7,))
    assert torch.equal(Classification().sum_weights(images), Classification().count(images))


def test_weights_are_put_on_the_device_once():
    task = Segmentation(class_weights={"car": 3.0})
    task.prepare(CLASSES, torch.device("meta"))
    targets = torch.zeros(2, 4, 4, dtype=torch.long, device="meta")  # weights on the CPU would fail with these
    assert task.sum_weights(targets).device.type == "meta"
    assert task.loss_sum(torch.zeros(2, 5, 4, 4, device="meta"), targets, training=True).device.type == "meta"


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"rode": 1.0}, r"task\.class_weights\.rode: the data set has no such class; did you mean road\?"),
        ({"xylophone": 1.0}, r"no such class; it has sky, road, car, tree, sign"),
        ({"sky": -1.0}, r"task\.class_weights\.sky=-1\.0: must be at least 0"),
    ],
)
def test_weights_of_unknown_classes_and_negative_ones_are_refused(weights, message):
    with pytest.raises(ConfigError, match=message):
        Segmentation(class_weights=weights).prepare(CLASSES, torch.device("cpu"))


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("+task.class_weights.sky=-1", ["task.class_weights.sky=-1", "at least 0"]),
        ("+task.class_weights.sky=heavy", ["task.class_weights={'sky': 'heavy'}", "expected a float for each name"]),
        ("task.class_weights=2", ["task.class_weights=2", "as {NAME: 0.5}"]),
    ],
)
def test_class_weights_of_a_wrong_kind_are_refused_by_name(composed, override, words):
    with pytest.raises(ConfigError) as refused:
        validate(composed("task=segmentation", override))
    assert all(word in str(refused.value) for word in words), str(refused.value)


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_step_follows_the_weighted_mean_of_the_whole_batch(tiny, tmp_path, pixels, accumulate, smoothing):
    logits, targets = pixels
    targets[0, :7] = Segmentation.ignore_index  # the first micro-batch has far fewer valid pixels
    model = nn.Conv2d(5, 5, 1).double()
    cfg = tiny(f"training.accumulate={accumulate}", "training.clip_norm=null")
    task = weighted(label_smoothing=smoothing)
    sets = {"train": range(len(logits))}
    parts = runner.Components(
        Hardware(channels_last=False), task, Scenes(batch_size=len(logits)), sets, model, model, nn.Identity()
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    schedule = torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
    state = TrainState(model, optimizer, schedule, parts.hardware.scaler(), task.make_scores(CLASSES))
    before = [p.detach().clone() for p in model.parameters()]
    expected = nn.functional.cross_entropy(
        model(logits), targets, weight=WEIGHTS, ignore_index=Segmentation.ignore_index, label_smoothing=smoothing
    )
    gradients = torch.autograd.grad(expected, list(model.parameters()))

    run = runner.Trainer(cfg, parts, RunDirectory(tmp_path), state, model, 1, 1, validation=None)
    run.step((logits, targets))
    assert run.meter.unread()[0][2] == pytest.approx(expected.item(), rel=1e-6)
    assert state.scores.compute()["loss"] == pytest.approx(expected.item(), rel=1e-12)
    for after, start, gradient in zip(model.parameters(), before, gradients, strict=True):
        torch.testing.assert_close(after.detach() - start, -gradient, rtol=1e-12, atol=1e-14)


def test_a_run_with_class_weights_learns_them_from_its_data_set(tiny_scenes, tmp_path):
    cfg = tiny_scenes("+task.class_weights.background=0.25")
    run = runner.Trainer.build(cfg, RunDirectory(tmp_path))
    _, targets = next(run.batches())
    background = run.components.data.classes.index("background")
    expected = torch.where(targets == background, 0.25, 1.0).sum()
    torch.testing.assert_close(run.components.task.sum_weights(targets.long()), expected, rtol=1e-6, atol=0)
    with pytest.raises(ConfigError, match=r"task\.class_weights\.backround: .*did you mean background"):
        runner.Trainer.build(tiny_scenes("+task.class_weights.backround=0.25"), RunDirectory(tmp_path))
