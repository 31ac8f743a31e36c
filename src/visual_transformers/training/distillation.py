"""Knowledge distillation (Hinton et al. 2015): what the student learns from its teacher's outputs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visual_transformers.config.instantiate import blamed_on
from visual_transformers.errors import ConfigError


@dataclass(kw_only=True)
class Distillation:
    """A teacher, and how much its word counts: the loss is a KD + (1 - a) CE; the paper's a is 0.8.

    KD = T^2 KL(softmax(z_teacher / T) || softmax(z_student / T)) for each image or pixel. The teacher is in evaluation
    mode, and as this is no module, it is in no state dict and in no optimizer.

    Args:
        teacher: takes the student's images (B, 3, H, W) and gives logits of the student's shape; null takes the model
            whose configuration the file `weights` carries. See `teacher.build_distillation`.
        weights: a file for the teacher, or the name of published weights; null leaves those that it was built with.
        share: a, from 0 to 1.
        temperature: T, above 0; the factor T^2 keeps the gradient's scale.
    """

    teacher: nn.Module | None = None
    weights: str | None = None
    share: float = 0.8
    temperature: float = 1.0

    @torch.no_grad()
    def teach(self, images: Tensor) -> Tensor:
        """What the teacher says of the student's images (B, 3, H, W): logits without a history."""
        assert self.teacher is not None
        logits: Tensor = self.teacher(images)
        return logits

    def loss_sum(self, task_loss: Tensor, logits: Tensor, taught: Tensor, counted: Tensor | None) -> Tensor:
        """The loss a KD + (1 - a) CE, summed over the positions that count, in float32 or more.

        Divided by the number of targets of the whole batch it is that batch's loss, whatever the parts and processes
        that the batch was cut into, as that of the task is.

        Args:
            task_loss: sum of the task's cross entropies, CE.
            logits: the student's, (B, C, ...).
            taught: the teacher's, of the same shape.
            counted: which positions count, bool (B, ...); None for all.
        """
        student, teacher = (self._log_shares(z) for z in (logits, taught))
        divergence = F.kl_div(student, teacher, reduction="none", log_target=True).sum(dim=1)
        if counted is not None:
            divergence = divergence.where(counted, 0)
        return self.share * self.temperature**2 * divergence.sum() + (1 - self.share) * task_loss

    def _log_shares(self, logits: Tensor) -> Tensor:
        exact = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return (exact / self.temperature).log_softmax(dim=1)

    def check_output(self, images: Tensor, expected: tuple[int, ...]) -> None:
        """Try the teacher on images (B, 3, H, W), for which the student's logits have the shape `expected`.

        Raises:
            ConfigError: if the teacher cannot take them, or its logits have another shape.
        """
        with blamed_on("distillation", f"the teacher cannot take images of shape {tuple(images.shape)}"):
            logits = self.teach(images)
        given = tuple(logits.shape) if isinstance(logits, Tensor) else f"a {type(logits).__name__}, not a tensor"
        if given != expected:
            raise ConfigError(
                f"distillation: the teacher gives {given} where the student gives {expected} (batch, classes, ...); it "
                "must know the data set's classes, and one of ImageNet's 1000 knows no others: choose another teacher, "
                "as a model trained on this data set, distillation=weights distillation.weights=PATH"
            )
