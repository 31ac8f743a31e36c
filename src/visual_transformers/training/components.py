"""What `train` and `test` both work with, built from the configuration and tried out before work starts."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from visual_transformers.checkpoints import weights
from visual_transformers.config.instantiate import blamed_on, build
from visual_transformers.config.schema import Config, Inference
from visual_transformers.data.datamodule import DataModule, Samples, spread
from visual_transformers.data.loader import EvaluationBatches, parts_of_a_batch
from visual_transformers.data.normalization import Normalise
from visual_transformers.distributed import collectives
from visual_transformers.distributed.hardware import Hardware
from visual_transformers.errors import BadFileError
from visual_transformers.inference import sliding_window
from visual_transformers.tasks.metrics import Scores
from visual_transformers.tasks.task import Task
from visual_transformers.training.distillation import Distillation
from visual_transformers.training.teacher import build_distillation


@dataclass
class Parts:
    """Hardware, task, data and model, checked against each other."""

    hardware: Hardware
    task: Task
    data: DataModule
    sets: dict[str, Samples]
    model: nn.Module
    forward: nn.Module
    normalise: nn.Module
    inference: Inference = field(default_factory=Inference)

    @classmethod
    def build(cls, cfg: Config, file: weights.WeightFile | None, *splits: str) -> Parts:
        """Build everything and look at the data, so that whatever is wrong is said before work starts. Collective."""
        hardware: Hardware = build(cfg.hardware, "hardware", trust=cfg.trust)
        hardware.prepare(cfg.seed)
        task: Task = build(cfg.task, "task", trust=cfg.trust)
        with collectives.first_on_its_machine():  # so that what is downloaded and listed is so once
            data: DataModule = build(cfg.data, "data", trust=cfg.trust)
            task.prepare(data.classes, hardware.torch_device)
            model = hardware.place(build(cfg.model, "model", trust=cfg.trust, num_classes=len(data.classes)))
            normalise = hardware.place(Normalise())
            if file:
                ids, backbone_only = data.category_ids(cfg.data), cfg.weights.backbone_only
                print(weights.load(model, file, backbone_only=backbone_only, classes=data.classes, category_ids=ids))
            sets: dict[str, Samples] = {}
            for split in splits:
                if split == "test" and "val" in sets and not data.has_test_split:
                    sets["test"] = sets["val"]  # looked at already
                    continue
                with blamed_on("data", f"{cfg.data['_target_']} cannot give its {split} split"):
                    sets[split] = samples = getattr(data, f"{split}_set")()
                    data.check(samples)
                    images, _ = first_batch(samples)
                with blamed_on("model", f"{cfg.model['_target_']} cannot take images of shape {tuple(images.shape)}"):
                    task.check_output(model, normalise(hardware.move(images, images)[0]), len(data.classes))
        return cls(hardware, task, data, sets, model, hardware.compiled(model), normalise, cfg.inference)

    def move(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """A loader's batch on the device, as the model and the loss take it: uint8 becomes float32 and int64 there."""
        images, targets = self.hardware.move(images, targets)
        return self.normalise(images), targets.long()

    def logits(self, images: Tensor) -> Tensor:
        """What the model says of whole images (B, 3, H, W), shown to it as `inference` says."""
        if self.inference.plain:
            return self._once(images)
        stride = getattr(self.model, "stride", 1)
        swapped = self.data.mirrored_labels
        found = sliding_window.of_pixels(self._once, images, self.inference, stride, swapped)
        return sliding_window.as_logits(found)

    def _once(self, images: Tensor) -> Tensor:
        """One forward pass."""
        with self.hardware.autocast():
            return self.forward(images)

    def batches(self, split: str) -> EvaluationBatches:
        """Batches of every sample of a split, once."""
        return EvaluationBatches(
            self.sets[split],
            batch_size=self.data.eval_batch_size,
            loading=self.hardware.loading,
            bad_files=self.data.bad_files(self.sets[split]),
        )

    def scores(self) -> Scores:
        """New scores on the device."""
        return self.task.scores(self.data.classes).to(self.hardware.torch_device)

    def with_model(self, model: nn.Module) -> Parts:
        """The same with another model in the place of this one."""
        return self if model is self.model else replace(self, model=model, forward=model)


def first_batch(samples: Samples) -> tuple[Tensor, Tensor]:
    """The first of a few samples of a set, from its first to its last, that can be read, as a batch of one.

    Raises:
        BadFileError: if none of them can.
    """
    for index in spread(len(samples), A_FEW):
        try:
            image, target = samples[index]
            return image[None], torch.as_tensor(target)[None]
        except BadFileError as error:
            last = error
    raise last


A_FEW = 10


def check_smallest_part(cfg: Config, parts: Parts) -> None:
    """See that the model can train on the fewest images that it will be given at a time. Collective.

    Raises:
        ConfigError: if it cannot, as batch normalisation of one image whose coarsest map is one pixel.
    """
    samples, batch_size, accumulate = parts.sets["train"], parts.data.batch_size, cfg.training.accumulate
    ranks = collectives.ranks()
    last = len(samples) % batch_size or batch_size
    cut = [part for size in (last, batch_size) for part in parts_of_a_batch(size, accumulate)]
    smallest = min(len(part) for part in cut) // ranks
    if smallest > 1:
        return
    images, _ = parts.move(*first_batch(samples))
    problem = (
        f"data.batch_size={batch_size} leaves a batch of {last} in an epoch of {len(samples)}, and so "
        f"{NUMBERS[smallest]} at a time on {ranks} devices in training.accumulate={accumulate} parts, on which the "
        "model cannot train; choose another"
    )
    model = copy.deepcopy(parts.model).train()
    with torch.no_grad(), blamed_on("data", problem):
        for count in range(smallest, 2):
            model(images[:count])


NUMBERS = ("no image", "one image")


def taught_by(cfg: Config, parts: Parts) -> Distillation:
    """The teacher of a run, tried on an image.

    Raises:
        UserError: if it cannot be had, or knows other classes.
    """
    assert cfg.distillation is not None
    classes, ids = parts.data.classes, parts.data.category_ids(cfg.data)
    with collectives.first_on_its_machine():  # whose download the others find done
        found = build_distillation(
            cfg.distillation, classes=classes, category_ids=ids, place=parts.hardware.place, trust=cfg.trust
        )
    images, _ = parts.move(*first_batch(parts.sets["train"]))
    found.check_output(images, parts.task.output_shape(images, len(classes)))
    return found


def parameters(model: nn.Module) -> int:
    """How many trainable numbers a model has."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
