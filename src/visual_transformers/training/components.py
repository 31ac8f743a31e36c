"""Components of a run: model, data, task and hardware, built and validated before work starts."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn
from torch.utils.data import Subset

from visual_transformers.checkpoints import weights
from visual_transformers.checkpoints.loading import load_weights
from visual_transformers.config.instantiate import blamed_on, build
from visual_transformers.config.schema import Config, InferenceSettings
from visual_transformers.data.datamodule import DataModule, Samples, spread_indices
from visual_transformers.data.loader import EvaluationBatches, split_micro_batches
from visual_transformers.data.normalization import Normalise
from visual_transformers.distributed import collectives
from visual_transformers.distributed.hardware import Hardware
from visual_transformers.errors import BadFileError
from visual_transformers.inference import sliding_window
from visual_transformers.tasks.metrics import Scores
from visual_transformers.tasks.task import Task
from visual_transformers.training.distillation import Distillation, build_distillation


@dataclass
class Components:
    """Model, data, task and hardware of a run, built and validated before work starts.

    Args:
        sets: samples by split.
        forward: the module to call in place of the model; compiled if the hardware settings say so.
        normalise: scales the uint8 images of a batch for the model.
    """

    hardware: Hardware
    task: Task
    data: DataModule
    sets: dict[str, Samples]
    model: nn.Module
    forward: nn.Module
    normalise: nn.Module
    inference: InferenceSettings = field(default_factory=InferenceSettings)

    @classmethod
    def build(cls, cfg: Config, file: weights.WeightFile | None, *splits: str) -> Components:
        """Build everything, load the weights of `file`, and try the model on an image of each split. Collective."""
        hardware: Hardware = build(cfg.hardware, "hardware", trust=cfg.trust)
        hardware.prepare(cfg.seed)
        task: Task = build(cfg.task, "task", trust=cfg.trust)
        with collectives.local_main_process_first():  # which downloads and lists files once
            data: DataModule = build(cfg.data, "data", trust=cfg.trust)
            task.prepare(data.classes, hardware.torch_device)
            model = hardware.place(build(cfg.model, "model", trust=cfg.trust, num_classes=len(data.classes)))
            normalise = hardware.place(Normalise())
            if file:
                ids, backbone_only = data.category_ids(cfg.data), cfg.weights.backbone_only
                print(load_weights(model, file, backbone_only=backbone_only, classes=data.classes, category_ids=ids))
            sets: dict[str, Samples] = {}
            for split in splits:
                if split == "test" and "val" in sets and not data.has_test_split:
                    sets["test"] = sets["val"]  # checked already
                    continue
                with blamed_on("data", f"{cfg.data['_target_']} cannot give its {split} split"):
                    samples = getattr(data, f"{split}_set")()
                    data.check(samples)
                    if cfg.debug.samples:
                        samples = Subset(samples, spread_indices(len(samples), cfg.debug.samples))
                    sets[split] = samples
                    images, _ = first_batch(samples)
                with blamed_on("model", f"{cfg.model['_target_']} cannot take images of shape {tuple(images.shape)}"):
                    task.check_output(model, normalise(hardware.move(images, images)[0]), len(data.classes))
        return cls(hardware, task, data, sets, model, hardware.maybe_compile(model), normalise, cfg.inference)

    def move(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Copy a loader's batch to the device, and turn uint8 into normalized float images and int64 targets there."""
        images, targets = self.hardware.move(images, targets)
        return self.normalise(images), targets.long()

    def logits(self, images: Tensor) -> Tensor:
        """Compute the logits of whole images (B, 3, H, W) in the way that the section `inference` describes."""
        if self.inference.plain:
            return self._forward(images)
        stride = getattr(self.model, "stride", 1)
        mirrored = self.data.mirrored_labels
        probabilities = sliding_window.predict_pixels(self._forward, images, self.inference, stride, mirrored)
        return sliding_window.to_logits(probabilities)

    def _forward(self, images: Tensor) -> Tensor:
        with self.hardware.autocast():
            return self.forward(images)

    def batches(self, split: str) -> EvaluationBatches:
        """Return batches of every sample of a split, once."""
        return EvaluationBatches(
            self.sets[split],
            batch_size=self.data.eval_batch_size,
            loading=self.hardware.loading,
            bad_files=self.data.bad_files(self.sets[split]),
        )

    def make_scores(self) -> Scores:
        """Return empty scores on the device."""
        return self.task.make_scores(self.data.classes).to(self.hardware.torch_device)

    def with_model(self, model: nn.Module) -> Components:
        """Return the components with another model."""
        return self if model is self.model else replace(self, model=model, forward=model)


def first_batch(samples: Samples) -> tuple[Tensor, Tensor]:
    """Return a batch of one: the first readable one of a few samples spread over a set.

    Raises:
        BadFileError: if none of them can be read.
    """
    for index in spread_indices(len(samples), MAX_TRIES):
        try:
            image, target = samples[index]
            return image[None], torch.as_tensor(target)[None]
        except BadFileError as error:
            last = error
    raise last


MAX_TRIES = 10


def check_smallest_micro_batch(cfg: Config, components: Components) -> None:
    """Check that the model can be trained on the smallest share of a micro-batch that a rank gets. Collective.

    Raises:
        ConfigError: if it cannot, e.g. because batch norm gets one image whose coarsest feature map is one pixel.
    """
    samples, batch_size = components.sets["train"], components.data.batch_size
    accumulate, world_size = cfg.training.accumulate, collectives.world_size()
    last = len(samples) % batch_size or batch_size
    micro_batches = [part for size in (last, batch_size) for part in split_micro_batches(size, accumulate)]
    smallest = min(map(len, micro_batches)) // world_size
    if smallest > 1:
        return
    images, _ = components.move(*first_batch(samples))
    problem = (
        f"data.batch_size={batch_size} leaves a batch of {last} in an epoch of {len(samples)}, and so "
        f"{('no image', 'one image')[smallest]} at a time on {world_size} devices in training.accumulate={accumulate} "
        "micro-batches, on which the model cannot train. Choose another batch size"
    )
    model = copy.deepcopy(components.model).train()
    with torch.no_grad(), blamed_on("data", problem):
        for count in range(smallest, 2):
            model(images[:count])


def load_teacher(cfg: Config, components: Components) -> Distillation:
    """Build the distillation with its teacher, and try the teacher on an image. Collective.

    Raises:
        UserError: if the teacher cannot be loaded, or has other classes.
    """
    assert cfg.distillation is not None
    classes, ids = components.data.classes, components.data.category_ids(cfg.data)
    with collectives.local_main_process_first():  # which downloads the weights
        distillation = build_distillation(
            cfg.distillation, classes=classes, category_ids=ids, place=components.hardware.place, trust=cfg.trust
        )
    images, _ = components.move(*first_batch(components.sets["train"]))
    distillation.check_output(images, components.task.output_shape(images, len(classes)))
    return distillation


def count_parameters(model: nn.Module) -> int:
    """Return the number of trainable parameters."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
