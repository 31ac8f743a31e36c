"""The formats of `mode=export`: what each is made of, how it is written, and how it is loaded to be run."""

from __future__ import annotations

import copy
import io
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
from visual_transformers.config.adoption import ADOPTED
from visual_transformers.config.instantiate import build
from visual_transformers.config.schema import Config
from visual_transformers.data.normalization import IMAGENET_MEAN, IMAGENET_STD
from visual_transformers.inference.predictor import Trained
from visual_transformers.models.resnet import ResNet

Forward = Callable[[Tensor], Tensor]
"""From images (B, 3, H, W) to logits, as the model itself."""
EXAMPLE_SIZE = 96, 128
"""Height and width of the image whose prepared size a model is traced at; a segmenter's preparation keeps it."""


@dataclass
class Sizes:
    """The sizes of images that an artefact takes.

    Args:
        height, width: of the example that the model is traced at.
        least: least height and width, pixels; None if the artefact takes the example's size alone.
    """

    height: int
    width: int
    least: int | None

    @classmethod
    def of(cls, model: nn.Module, prepared: Tensor) -> Sizes:
        """Any size with at least two pixels on the model's coarsest map, on which the traced operations agree.

        Where the model names no stride, as those of other libraries, or the prepared image (3, H, W) is smaller, the
        size of that image alone.
        """
        height, width = prepared.shape[1:]
        stride = model.stage_strides[-1] if isinstance(model, ResNet) else getattr(model, "stride", None)
        return cls(height, width, None if stride is None or min(height, width) <= stride else stride + 1)

    @property
    def dynamic(self) -> dict[int, Any]:
        """Names and ranges of the dimensions that vary, as torch.export asks for them."""
        batch = {0: Dim("batch", min=1)}
        if self.least is None:
            return batch
        return batch | {2: Dim("height", min=self.least), 3: Dim("width", min=self.least)}

    @property
    def compared(self) -> list[tuple[int, int, int, int]]:
        """Shapes of the batches on which an artefact is compared: the example's size, the least height, an odd one."""
        if self.least is None:
            return [(1, 3, self.height, self.width), (3, 3, self.height, self.width)]
        return [
            (1, 3, self.height, self.width),
            (2, 3, self.least, 2 * self.least + 5),
            (3, 3, self.least + 42, self.least + 68),
        ]

    @property
    def shape(self) -> list[str | int]:
        """The shape of the input: numbers where it is fixed, names where it varies."""
        return ["batch", 3, *((self.height, self.width) if self.least is None else ("height", "width"))]


@dataclass
class Original:
    """What every artefact is made of and compared with: the model in float32 on the CPU.

    Args:
        model: in evaluation mode, in contiguous memory.
        fresh: builds the same model without its weights.
        sizes: of the images.
        about: what each artefact says of itself.
        seed: of the images on which artefacts are compared.
    """

    model: nn.Module
    fresh: Callable[[], nn.Module]
    sizes: Sizes
    about: dict[str, Any]
    seed: int

    @classmethod
    def of(cls, cfg: Config, trained: Trained) -> Original:
        """A copy of the trained model, whatever the hardware that it is on."""
        model = copy.deepcopy(trained.model).to("cpu", torch.float32)
        model = model.to(memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload]
        height, width = EXAMPLE_SIZE
        prepared = trained.prepare(Image.new("RGB", (width, height), "grey"))
        sizes = Sizes.of(model, prepared)
        config = trained.about.get("config", cfg.everything) | {group: cfg.everything[group] for group in ADOPTED}
        about = trained.about | {
            "classes": trained.classes,
            "config": config,
            "version": __version__,
            "input": {
                "name": "images",
                "dtype": "float32",
                "shape": sizes.shape,
                "least_side": sizes.least,
                "preparation": " ".join(
                    f"{trained.prepare}, then (x / 255 - {IMAGENET_MEAN}) / {IMAGENET_STD}".split()
                ),
            },
        }
        return cls(
            model,
            lambda: build(cfg.model, "model", trust=cfg.trust, num_classes=len(trained.classes)),
            sizes,
            about,
            cfg.seed,
        )

    @property
    def example(self) -> Tensor:
        """The images that the model is traced with; a batch of one would be taken for a constant."""
        return torch.zeros(2, 3, self.sizes.height, self.sizes.width)

    @cached_property
    def program(self) -> ExportedProgram:
        """The traced model, from which two of the formats are made."""
        with torch.no_grad():
            program = torch.export.export(self.model, (self.example,), dynamic_shapes=(self.sizes.dynamic,))
        for node in program.graph.nodes:
            node.meta.pop("stack_trace", None)  # the paths of this machine's source files, line for line
        return program

    @torch.no_grad()
    def largest_difference(self, forward: Forward) -> float:
        """The largest difference between the outputs of `forward` and the model's, as a part of the model's largest.

        Over several batches of random images; infinite where even the shapes differ, NaN where an output is.
        """
        generator, differences = torch.Generator().manual_seed(self.seed), []
        for shape in self.sizes.compared:
            images = torch.randn(shape, generator=generator)
            expected, found = self.model(images), forward(images)
            if found.shape != expected.shape:
                return float("inf")
            largest = expected.abs().max().clamp(min=torch.finfo(torch.float32).tiny)
            differences.append((found - expected).abs().max() / largest)
        return float(torch.stack(differences).max())


def write_safetensors(path: Path, original: Original) -> None:
    """The weights alone, with their metadata; `weights=PATH` takes them up again."""
    weights.save(path, original.model, original.about)


def load_safetensors(path: Path, original: Original) -> Forward:
    """A new model with the file's weights."""
    model = original.fresh()
    weights.load(model, weights.read(path), backbone_only=False, classes=original.about["classes"])
    return model.eval()


def write_torch_export(path: Path, original: Original) -> None:
    """The traced model for torch alone; the metadata are the extra file about.json."""
    content = io.BytesIO()  # torch warns of any file whose name does not end in .pt2, as a temporary one's
    torch.export.save(original.program, content, extra_files={"about.json": json.dumps(original.about)})
    atomic.write(path, lambda temporary: temporary.write_bytes(content.getbuffer()))


def load_torch_export(path: Path, original: Original) -> Forward:
    """The traced model, without its Python code."""
    return torch.export.load(path).module()


def write_onnx(path: Path, original: Original) -> None:
    """The traced model as ONNX in one file, with the metadata as its properties, each of them JSON."""
    with quiet("onnxscript", "onnx_ir"):
        program = torch.onnx.export(
            original.program,
            dynamo=True,
            dynamic_shapes=(original.sizes.dynamic,),
            input_names=["images"],
            output_names=["logits"],
            verbose=False,
        )
    assert program is not None
    program.model.metadata_props.update({key: json.dumps(value) for key, value in original.about.items()})
    atomic.write(path, lambda temporary: program.save(temporary, external_data=False))


@contextmanager
def quiet(*libraries: str) -> Iterator[None]:
    """Keep back what libraries log of their ordinary work, a line for each node of a graph; warnings come through."""
    loggers = [logging.getLogger(name) for name in libraries]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.WARNING)
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def load_onnx(path: Path, original: Original) -> Forward:
    """A session of onnxruntime on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0])


@dataclass
class Format:
    """The name of a format's file, how it is written, and how it is loaded to be run."""

    file: str
    write: Callable[[Path, Original], None]
    load: Callable[[Path, Original], Forward]


FORMATS = {
    "safetensors": Format("model.safetensors", write_safetensors, load_safetensors),
    "torch_export": Format("model.pt2", write_torch_export, load_torch_export),
    "onnx": Format("model.onnx", write_onnx, load_onnx),
}
"""The choices of `export.formats`."""
