"""Knowledge distillation (Hinton et al. 2015): the loss, and the teacher with its weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt, Le
from torch import Tensor, nn

from visual_transformers.checkpoints import weights
from visual_transformers.checkpoints.loading import BACKBONE_HINT, load_weights
from visual_transformers.config.adoption import sanitized
from visual_transformers.config.instantiate import blamed_on, build
from visual_transformers.config.schema import Node
from visual_transformers.data.normalization import IMAGENET_MEAN, IMAGENET_STD
from visual_transformers.errors import ConfigError, WeightsError


@dataclass(kw_only=True)
class Distillation:
    """Distillation loss a KD + (1 - a) CE with its teacher; a is 0.8 in the paper.

    KD = T^2 KL(softmax(z_teacher / T) || softmax(z_student / T)) for each image or pixel, where `share` is a and
    `temperature` is T; the factor T^2 keeps the scale of the gradient. `build_distillation` sets the teacher, which
    maps the student's images (B, 3, H, W) to logits of the student's shape. It is in evaluation mode, and since this
    class is not a module, it is in no state dict and no optimizer.
    """

    teacher: nn.Module | None = None
    weights: str | None = None
    share: Annotated[float, Ge(0), Le(1)] = 0.8
    temperature: Annotated[float, Gt(0)] = 1.0

    @torch.no_grad()
    def compute_logits(self, images: Tensor) -> Tensor:
        """Return the teacher's logits for the student's images (B, 3, H, W), without gradients."""
        assert self.teacher is not None
        logits: Tensor = self.teacher(images)
        return logits

    def loss_sum(self, task_loss: Tensor, logits: Tensor, teacher_logits: Tensor, valid_mask: Tensor | None) -> Tensor:
        """Return a KD + (1 - a) CE, summed over the valid targets, in float32 or float64.

        Like the task's loss sum, it is divided by the number of targets of the whole batch, so that micro-batches and
        ranks add up to the loss of that batch.

        Args:
            task_loss: sum of the task's cross entropies, CE.
            logits: of the student, (B, C, ...).
            teacher_logits: of the same shape.
            valid_mask: mask of targets that are not ignored, bool (B, ...); None if all are valid.
        """
        student, teacher = (self._log_probabilities(z) for z in (logits, teacher_logits))
        divergence = F.kl_div(student, teacher, reduction="none", log_target=True).sum(dim=1)
        if valid_mask is not None:
            divergence = divergence.where(valid_mask, 0)
        return self.share * self.temperature**2 * divergence.sum() + (1 - self.share) * task_loss

    def _log_probabilities(self, logits: Tensor) -> Tensor:
        exact = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return (exact / self.temperature).log_softmax(dim=1)

    def check_output(self, images: Tensor, expected: tuple[int, ...]) -> None:
        """Try the teacher on images (B, 3, H, W) for which the student's logits have the shape `expected`.

        Raises:
            ConfigError: if the teacher cannot take them, or its logits have another shape.
        """
        with blamed_on("distillation", f"the teacher cannot take images of shape {tuple(images.shape)}"):
            logits = self.compute_logits(images)
        given = tuple(logits.shape) if isinstance(logits, Tensor) else f"a {type(logits).__name__}, not a tensor"
        if given != expected:
            raise ConfigError(
                f"distillation: the teacher gives {given} where the student gives {expected} (batch, classes, ...), so "
                "it has other classes than the data set (e.g. ImageNet's 1000). Choose a model trained on this data "
                "set: distillation=weights distillation.weights=PATH."
            )


def build_distillation(
    node: Node,
    *,
    classes: list[str],
    category_ids: list[int] | None = None,
    place: Callable[[nn.Module], nn.Module] = lambda model: model,
    trust: Sequence[str] = (),
) -> Distillation:
    """Build the distillation with its teacher: loaded, on the device, in evaluation mode and without gradients.

    Args:
        node: the keys of the group `distillation`.
        classes: class names of the data set, in its order.
        category_ids: see `load_weights`.
        place: moves a model to the device, e.g. `Hardware.place`.
        trust: the user's own packages that may be named.

    Raises:
        UserError: if no teacher is given, its weights cannot be downloaded or do not fit, or it was trained for other
            classes or for images with another normalization.
    """
    distillation: Distillation = build(node | {"teacher": None}, "distillation", trust=trust)
    teacher_node = node.get("teacher")
    if teacher_node is None and distillation.weights is None:
        raise ConfigError(
            "distillation: there is no teacher. Name its weights with distillation.weights=PATH, or choose one with "
            "distillation=fbnetv3_g."
        )
    teacher = None if teacher_node is None else _build_teacher(teacher_node, trust)
    if distillation.weights is not None:
        try:
            teacher = _load_teacher(teacher, distillation.weights, classes, category_ids, trust)
        except WeightsError as error:  # names `weights`, and may recommend to load only the backbone
            message = str(error).replace(f"; {BACKBONE_HINT}", "").replace(f"\n{BACKBONE_HINT}", "")
            raise ConfigError(f"distillation.{message}") from error
    assert teacher is not None
    distillation.teacher = place(teacher).eval().requires_grad_(False)
    return distillation


def _build_teacher(node: Node, trust: Sequence[str]) -> nn.Module:
    """Build the nested `_target_`, which may download weights."""
    try:
        teacher = build(node, "distillation.teacher", kind=(nn.Module,), trust=trust)
    except ConfigError as error:
        key = next((key for key in DOWNLOAD_KEYS if node.get(key)), None)
        if key is None or not _is_network_error(error):
            raise
        cause = f"{type(error.__cause__).__name__}: {error.__cause__}".splitlines()[0]
        raise ConfigError(
            f"distillation.teacher: the weights of {node.get('model_name', node['_target_'])} cannot be downloaded "
            f"({cause}). Download them where there is a network, and give the file with "
            f"distillation.teacher.{key}={DOWNLOAD_KEYS[key]} distillation.weights=PATH."
        ) from error
    published: dict[str, Any] = getattr(teacher, "pretrained_cfg", None) or {}  # timm's models have one
    for key, ours in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD)):
        expected = published.get(key, ours)
        if tuple(expected) != tuple(ours):
            raise ConfigError(
                f"distillation.teacher: {published.get('architecture')} was trained on images of {key} {expected}, but "
                f"ours are normalized by {ours}. Choose another teacher."
            )
    return teacher


DOWNLOAD_KEYS = {"pretrained": "false", "weights": "null"}
"""Keys with which timm's and torchvision's builders download weights, and the values that prevent it."""


def _load_teacher(
    teacher: nn.Module | None, path: str, classes: list[str], category_ids: list[int] | None, trust: Sequence[str]
) -> nn.Module:
    """Load the weights of a file into the teacher, or into the model that the file's configuration describes."""
    file = weights.read(path)
    if teacher is None:
        metadata = weights.read_metadata(path) | file.metadata
        if "config" not in metadata:
            raise WeightsError(
                f"weights={path}: does not say which model it is for. Describe the model with "
                "+distillation.teacher._target_=... and its keys."
            )
        outputs = len(metadata.get("classes", classes))
        node = sanitized(metadata["config"]["model"], "model", path, trust)
        teacher = build(node, "distillation.weights", kind=(nn.Module,), trust=trust, num_classes=outputs)
    print(f"teacher: {load_weights(teacher, file, backbone_only=False, classes=classes, category_ids=category_ids)}")
    return teacher


def _is_network_error(error: BaseException | None) -> bool:
    """Return True if an OSError is among the causes, e.g. an unknown host or a refused connection."""
    while error is not None:
        if isinstance(error, OSError):
            return True
        error = error.__cause__ or error.__context__
    return False
