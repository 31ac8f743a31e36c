from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from omegaconf import open_dict
from torch import Tensor, nn

from visual_transformers.config.validation import validate
from visual_transformers.errors import ConfigError
from visual_transformers.tasks.task import Classification, Segmentation, Task
from visual_transformers.training.distillation import Distillation

SHAPES = {"images": (6, 5), "pixels": (6, 5, 4, 3)}


def by_hand(logits: Tensor, taught: Tensor, share: float, t: float, targets: Tensor, ignore: int) -> float:
    """Compute the mean loss of the valid targets in plain Python."""
    rows = zip(*(z.movedim(1, -1).flatten(0, -2).tolist() for z in (logits, taught)), strict=True)
    losses = []
    for (student, teacher), target in zip(rows, targets.flatten().tolist(), strict=True):
        if target == ignore:
            continue
        p, q = ([math.exp(z / t) / sum(math.exp(y / t) for y in row) for z in row] for row in (teacher, student))
        kd = t**2 * sum(a * (math.log(a) - math.log(b)) for a, b in zip(p, q, strict=True))
        ce = math.log(sum(math.exp(z) for z in student)) - student[target]
        losses.append(share * kd + (1 - share) * ce)
    return sum(losses) / len(losses)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize(("share", "temperature"), [(0.8, 1.0), (0.3, 4.0), (0.0, 2.0), (1.0, 0.5)])
def test_the_loss_is_the_published_formula_over_the_valid_targets(shape, share, temperature):
    task: Task = Segmentation() if len(shape) > 2 else Classification()
    logits, taught = torch.randn(shape).double(), torch.randn(shape).double()
    targets = torch.randint(5, (shape[0], *shape[2:]))
    targets.view(-1)[::4] = task.ignore_index
    valid_mask = targets != task.ignore_index
    distillation = Distillation(share=share, temperature=temperature)
    ce = task.loss_sum(logits, targets, training=False)
    loss = distillation.loss_sum(ce, logits, taught, valid_mask) / valid_mask.sum()
    assert loss.item() == pytest.approx(
        by_hand(logits, taught, share, temperature, targets, task.ignore_index), rel=1e-10
    )


def test_all_mixed_targets_are_valid():
    logits, taught = torch.randn(4, 5).double(), torch.randn(4, 5).double()
    targets, task = torch.rand(4, 5).double().softmax(1), Classification()
    ce = task.loss_sum(logits, targets, training=True)
    kd = (taught.softmax(1) * (taught.log_softmax(1) - logits.log_softmax(1))).sum()
    torch.testing.assert_close(Distillation().loss_sum(ce, logits, taught, None), 0.8 * kd + 0.2 * ce)


@pytest.mark.parametrize("micro_batches", [1, 2, 4])
def test_micro_batches_add_up_to_the_gradient_of_the_batch(micro_batches):
    """They have uneven sizes and numbers of valid pixels, and one has no image."""
    task, distillation = Segmentation(), Distillation(temperature=2.0)
    student, teacher = nn.Conv2d(3, 5, 1).double(), nn.Conv2d(3, 5, 1).double()
    images, targets = torch.randn(6, 3, 4, 4).double(), torch.randint(5, (6, 4, 4))
    targets[0] = targets[1, :3] = task.ignore_index
    count = task.count(targets)

    def gradient(*cuts: tuple[Tensor, Tensor]) -> Tensor:
        student.zero_grad()
        for x, y in cuts:
            logits = student(x)
            ce = task.loss_sum(logits, y, training=True)
            (distillation.loss_sum(ce, logits, teacher(x).detach(), y != task.ignore_index) / count).backward()
        return student.weight.grad.clone()

    cuts = list(zip(images.tensor_split(micro_batches), targets.tensor_split(micro_batches), strict=True))
    whole = gradient((images, targets))
    torch.testing.assert_close(gradient(*cuts, (images[:0], targets[:0])), whole, rtol=1e-12, atol=1e-14)


def test_half_precision_is_summed_in_float32():
    logits, taught = torch.randn(4, 1000).bfloat16(), torch.randn(4, 1000).bfloat16()
    distillation = Distillation(share=1.0)
    exact = distillation.loss_sum(torch.zeros(()), logits.double(), taught.double(), None)
    found = distillation.loss_sum(torch.zeros(()), logits, taught, None)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=0)


def test_a_teacher_with_the_same_logits_adds_nothing():
    logits = torch.randn(4, 5)
    assert Distillation(share=1.0).loss_sum(torch.ones(()), logits, logits, None).item() == pytest.approx(0, abs=1e-6)


def test_no_value_is_read_from_the_device():
    """Reading a value of a tensor on the meta device fails."""
    logits, taught, valid_mask = (
        torch.empty(4, 5, device="meta", dtype=d) for d in (torch.float16,) * 2 + (torch.bool,)
    )
    loss = Distillation().loss_sum(torch.empty((), device="meta"), logits, taught, valid_mask[:, 0])
    assert loss.shape == ()


def test_the_teacher_learns_nothing_and_is_in_no_state_dict():
    teacher = nn.Sequential(nn.Conv2d(3, 5, 1), nn.BatchNorm2d(5)).eval()
    before = copy.deepcopy(teacher.state_dict())
    distillation = Distillation(teacher=teacher)
    student = nn.Conv2d(3, 5, 1)
    student.distillation = distillation  # type: ignore[assignment]
    images = torch.randn(2, 3, 4, 4)
    taught = distillation.compute_logits(images)
    student.train()
    distillation.loss_sum(torch.zeros(()), student(images), taught, None).backward()
    assert not taught.requires_grad
    assert list(student.state_dict()) == ["weight", "bias"]
    assert all(torch.equal(tensor, before[name]) for name, tensor in teacher.state_dict().items())


def test_a_teacher_of_other_classes_is_refused_before_work():
    teacher = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 1000))
    with pytest.raises(
        ConfigError, match=r"distillation: the teacher gives \(1, 1000\) .*gives \(1, 10\).*ImageNet's 1000"
    ):
        Distillation(teacher=teacher).check_output(torch.randn(1, 3, 8, 8), (1, 10))
    Distillation(teacher=teacher).check_output(torch.randn(1, 3, 8, 8), (1, 1000))


def test_a_teacher_that_cannot_take_the_images_is_refused():
    with pytest.raises(ConfigError, match=r"distillation: the teacher cannot take images of shape \(1, 3, 8, 8\)"):
        Distillation(teacher=nn.Conv2d(4, 2, 1)).check_output(torch.randn(1, 3, 8, 8), (1, 2))


@pytest.mark.parametrize("option", ["fbnetv3_g", "torchvision_resnet101", "weights"])
def test_every_file_of_the_group_is_accepted(composed, option):
    cfg = composed(f"distillation={option}", *(["distillation.weights=x"] if option == "weights" else []))
    node = validate(cfg).distillation
    assert node is not None
    assert (node["share"], node["temperature"]) == (0.8, 1.0)


def test_without_a_teacher_there_is_no_distillation(composed):
    assert validate(composed()).distillation is None
    cfg = composed()
    with open_dict(cfg):
        cfg.distillation = None
    assert validate(cfg).distillation is None


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["distillation=weights"], ["distillation.weights is not set"]),
        (["distillation=weights", "distillation.weights=null"], ["there is no teacher", "distillation.weights=PATH"]),
        (["distillation=fbnetv3_g", "distillation.share=1.5"], ["distillation.share=1.5", "at most 1"]),
        (["distillation=fbnetv3_g", "distillation.share=nan"], ["distillation.share=nan"]),
        (["distillation=fbnetv3_g", "distillation.temperature=0"], ["distillation.temperature=0", "above 0"]),
        (["distillation=fbnetv3_g", "distillation.temperature=x"], ["distillation.temperature=x", "expected float"]),
        (["distillation=fbnetv3_g", "distillation.teacher.pretrained=false"], ["pretrained=false", "has no weights"]),
        (["distillation=fbnetv3_g", "distillation.teacher._target_=os.system"], ["distillation.teacher._target_=os"]),
        (
            ["distillation=fbnetv3_g", "~distillation.teacher.model_name"],
            ["distillation.teacher.model_name is not set"],
        ),
        (
            ["distillation=fbnetv3_g", "+distillation.shore=1"],
            ["distillation.shore", "did you mean distillation.share"],
        ),
        (["distillation=fbnetv3_g", "distillation.teacher=fbnetv3_g"], ["distillation.teacher=fbnetv3_g", "_target_"]),
    ],
)
def test_a_wrong_setting_is_refused(composed: Callable[..., Any], overrides: list[str], words: list[str]):
    with pytest.raises(ConfigError) as refused:
        validate(composed(*overrides))
    assert all(word in str(refused.value) for word in words)
    assert len(str(refused.value).splitlines()) == 1


def test_a_teacher_can_be_described_on_the_command_line(composed):
    teacher = ["+distillation.teacher._target_=timm.create_model", "+distillation.teacher.model_name=resnet18"]
    node = validate(composed("distillation=weights", "distillation.weights=x", *teacher)).distillation
    assert node is not None
    assert node["teacher"] == {"_target_": "timm.create_model", "model_name": "resnet18"}


def test_batch_norm_settings_are_a_section_of_their_own(composed):
    settings = validate(composed("batch_norm.sync=true", "batch_norm.frozen=[backbone]")).batch_norm
    assert (settings.sync, settings.frozen) == (True, ["backbone"])
    with pytest.raises(ConfigError, match=r"batch_norm\.frozen=backbone: expected a list of str, as \[backbone\]"):
        validate(composed("batch_norm.frozen=backbone"))


def test_the_gradient_s_scale_hardly_depends_on_the_temperature():
    norms = []
    for temperature in (4.0, 40.0):
        logits, taught = torch.linspace(-1, 1, 5)[None].requires_grad_(), torch.linspace(1, -1, 5)[None]
        Distillation(share=1.0, temperature=temperature).loss_sum(torch.zeros(()), logits, taught, None).backward()
        norms.append(logits.grad.norm().item())
    assert norms[0] == pytest.approx(norms[1], rel=0.1)


def test_the_student_learns_the_teacher_s_probabilities():
    taught = torch.randn(3, 5)
    logits = nn.Parameter(torch.zeros(3, 5))
    optimizer = torch.optim.SGD([logits], lr=1.0)
    for _ in range(500):
        optimizer.zero_grad()
        Distillation(share=1.0, temperature=3.0).loss_sum(torch.zeros(()), logits, taught, None).backward()
        optimizer.step()
    torch.testing.assert_close(F.softmax(logits / 3, 1), F.softmax(taught / 3, 1), rtol=1e-3, atol=1e-3)
