"""Formats of `mode=export`: how each is written, and how it is loaded to be run."""

from __future__ import annotations

import copy
import io
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from visual_transformers import __version__, atomic
from visual_transformers.checkpoints import weights
from visual_transformers.checkpoints.loading import load_weights
from visual_transformers.config.adoption import ADOPTED
from visual_transformers.config.instantiate import build
from visual_transformers.config.schema import Config
from visual_transformers.data.normalization import IMAGENET_MEAN, IMAGENET_STD
from visual_transformers.inference.predictor import Predictor
from visual_transformers.models.resnet import ResNet

Forward = Callable[[Tensor], Tensor]
"""Function from images (B, 3, H, W) to logits."""
EXAMPLE_SIZE = 96, 128
"""Height and width of the example image before it is prepared; a segmenter's preparation keeps them."""


@dataclass
class InputSizes:
    """Image sizes that an artefact takes.

    Args:
        minimum: minimum height and width in pixels; None if the artefact takes only the size of the example.
        shape: of the input; dimensions that vary are given by name.
        dynamic_shape: names and ranges of the dimensions that vary, for torch.export.
        compared_shapes: of the batches on which artefacts are compared; the first has the size of the example.
    """

    minimum: int | None
    shape: list[str | int]
    dynamic_shape: dict[int, Any]
    compared_shapes: list[tuple[int, int, int, int]]

    @classmethod
    def from_model(cls, model: nn.Module, prepared: Tensor) -> InputSizes:
        """Allow all sizes that give the coarsest feature map at least two pixels, where the traced operations agree.

        The size is fixed for a model without a stride, e.g. of another library, and for a prepared image (3, H, W)
        that is smaller.
        """
        height, width = prepared.shape[1:]
        stride = model.stage_strides[-1] if isinstance(model, ResNet) else getattr(model, "stride", None)
        example, batch = (1, 3, height, width), {0: Dim("batch", min=1)}
        if stride is None or min(height, width) <= stride:
            return cls(None, ["batch", 3, height, width], batch, [example, (3, 3, height, width)])
        side = stride + 1
        dynamic = batch | {2: Dim("height", min=side), 3: Dim("width", min=side)}
        compared = [example, (2, 3, side, 2 * side + 5), (3, 3, side + 42, side + 68)]
        return cls(side, ["batch", 3, "height", "width"], dynamic, compared)


@dataclass
class Reference:
    """Model that is exported, and that artefacts are compared with: in float32 on the CPU, in evaluation mode.

    Args:
        build_model: builds the same model without its weights.
        metadata: stored in every artefact.
        seed: of the images on which artefacts are compared.
    """

    model: nn.Module
    build_model: Callable[[], nn.Module]
    sizes: InputSizes
    metadata: dict[str, Any]
    seed: int

    @classmethod
    def from_predictor(cls, cfg: Config, predictor: Predictor) -> Reference:
        """Copy a trained model from its device."""
        model = copy.deepcopy(predictor.model).to("cpu", torch.float32)
        model = model.to(memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload]
        height, width = EXAMPLE_SIZE
        sizes = InputSizes.from_model(model, predictor.prepare(Image.new("RGB", (width, height), "grey")))
        preparation = f"{predictor.prepare}, then (x / 255 - {IMAGENET_MEAN}) / {IMAGENET_STD}"
        config = predictor.metadata.get("config", cfg.everything) | {group: cfg.everything[group] for group in ADOPTED}
        metadata = predictor.metadata | {
            "classes": predictor.classes,
            "config": config,
            "version": __version__,
            "input": {
                "name": "images",
                "dtype": "float32",
                "shape": sizes.shape,
                "least_side": sizes.minimum,
                "preparation": " ".join(preparation.split()),
            },
        }

        def build_model() -> nn.Module:
            return build(cfg.model, "model", trust=cfg.trust, num_classes=len(predictor.classes))

        return cls(model, build_model, sizes, metadata, cfg.seed)

    @property
    def example(self) -> Tensor:
        """Images that the model is traced with: two, because a batch size of 1 is traced as a constant."""
        return torch.zeros(2, *self.sizes.compared_shapes[0][1:])

    @cached_property
    def program(self) -> ExportedProgram:
        """Traced model."""
        with torch.no_grad():
            program = torch.export.export(self.model, (self.example,), dynamic_shapes=(self.sizes.dynamic_shape,))
        for node in program.graph.nodes:
            node.meta.pop("stack_trace", None)  # it holds paths and lines of this machine's source files
        return program

    @torch.no_grad()
    def max_relative_difference(self, forward: Forward) -> float:
        """Compare `forward` with the model on batches of random images.

        Returns:
            The maximum difference of a batch over the model's maximum output; infinity if shapes differ, NaN if an
            output is NaN.
        """
        generator, differences = torch.Generator().manual_seed(self.seed), []
        for shape in self.sizes.compared_shapes:
            images = torch.randn(shape, generator=generator)
            expected, found = self.model(images), forward(images)
            if found.shape != expected.shape:
                return float("inf")
            largest = expected.abs().max().clamp(min=torch.finfo(torch.float32).tiny)
            differences.append((found - expected).abs().max() / largest)
        return float(torch.stack(differences).max())


def write_safetensors(path: Path, reference: Reference) -> None:
    """Write the weights and their metadata; `weights=PATH` loads them."""
    weights.save(path, reference.model, reference.metadata)


def load_safetensors(path: Path, reference: Reference) -> Forward:
    """Build a model with the weights of the file."""
    model = reference.build_model()
    load_weights(model, weights.read(path), backbone_only=False, classes=reference.metadata["classes"])
    return model.eval()


def write_torch_export(path: Path, reference: Reference) -> None:
    """Write the traced model for torch, with the metadata as its extra file about.json."""
    content = io.BytesIO()  # torch warns if a file's name does not end in .pt2, as that of the temporary file
    torch.export.save(reference.program, content, extra_files={"about.json": json.dumps(reference.metadata)})
    atomic.write(path, lambda temporary: temporary.write_bytes(content.getbuffer()))


def load_torch_export(path: Path, reference: Reference) -> Forward:
    """Load the traced model; it needs none of this package's code."""
    return torch.export.load(path).module()


def write_onnx(path: Path, reference: Reference) -> None:
    """Write the traced model as a single ONNX file, with the metadata as JSON in its properties."""
    logging.disable(logging.INFO)  # onnxscript logs a line for every node of the graph
    try:
        program = torch.onnx.export(
            reference.program,
            dynamo=True,
            dynamic_shapes=(reference.sizes.dynamic_shape,),
            input_names=["images"],
            output_names=["logits"],
            verbose=False,
        )
    finally:
        logging.disable(logging.NOTSET)
    assert program is not None
    program.model.metadata_props.update({key: json.dumps(value) for key, value in reference.metadata.items()})
    atomic.write(path, lambda temporary: program.save(temporary, external_data=False))


def load_onnx(path: Path, reference: Reference) -> Forward:
    """Start a session of onnxruntime on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0])


@dataclass
class Format:
    """File name of a format, and functions that write it and load it to be run."""

    file: str
    write: Callable[[Path, Reference], None]
    load: Callable[[Path, Reference], Forward]


FORMATS = {
    "safetensors": Format("model.safetensors", write_safetensors, load_safetensors),
    "torch_export": Format("model.pt2", write_torch_export, load_torch_export),
    "onnx": Format("model.onnx", write_onnx, load_onnx),
}
"""Choices of `export.formats`."""
