"""A trained model as `predict`, `explain` and `export` use it: weights, classes, how images become inputs."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from glob import glob
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from visual_transformers.config import allowed_object, build
from visual_transformers.data.files import images_in, read_image
from visual_transformers.data.module import DataModule, Preparation
from visual_transformers.errors import DataError, RunError
from visual_transformers.models import weights
from visual_transformers.settings import Config
from visual_transformers.tasks import Task
from visual_transformers.training.hardware import Hardware
from visual_transformers.training.rundir import RunDirectory


@dataclass
class Trained:
    """A model with its weights, in evaluation mode on the device of `hardware`."""

    hardware: Hardware
    task: Task
    model: nn.Module
    classes: list[str]
    prepare: Preparation
    category_ids: list[int] | None
    weights_path: Path
    about: dict[str, Any] = field(default_factory=dict)
    """What the weight file says of its weights: the keys of `weights.ABOUT`."""

    @classmethod
    def build(cls, cfg: Config, directory: Path) -> Trained:
        """The model with the weights of `weights.file`, or with the best of this run.

        The classes are those that the file names; otherwise the data set's.

        Raises:
            UserError: if there are no weights, or they do not fit.
        """
        best = RunDirectory(directory).best
        if cfg.weights.file is None and not best.is_file():
            raise RunError(f"mode={cfg.mode} needs a trained model: there is no {best}; name a file with weights=PATH")
        file = weights.read(cfg.weights.file or best)
        hardware: Hardware = build(cfg.hardware, "hardware")
        hardware.prepare(cfg.seed)
        classes = file.about.get("classes") or build(cfg.data, "data").classes
        model = build(cfg.model, "model", num_classes=len(classes))
        print(weights.load(model, file, backbone_only=False, classes=classes))
        data = allowed_object(cfg.data["_target_"], "data")
        assert isinstance(data, type) and issubclass(data, DataModule)
        return cls(
            hardware=hardware,
            task=build(cfg.task, "task"),
            model=hardware.place(model).eval(),
            classes=classes,
            prepare=data.preparation(cfg.data),
            category_ids=data.category_ids(cfg.data),
            weights_path=file.path,
            about=file.about,
        )

    @property
    def stride(self) -> int:
        """Least side of an image that the model takes, pixels; 1 for a model that does not say."""
        return getattr(self.model, "stride", 1)

    @torch.inference_mode()
    def logits(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> logits in float32, on the device.

        Raises:
            RunError: if the model's output is not what the task needs.
        """
        images, _ = self.hardware.move(images, images)
        with self.hardware.autocast():
            logits = self.model(images)
        expected = self.task.output_shape(images, len(self.classes))
        if not isinstance(logits, Tensor) or tuple(logits.shape) != expected:
            raise RunError(
                f"{self.task.name} with {len(self.classes)} classes needs outputs of shape {expected} from images of "
                f"shape {tuple(images.shape)}, but {type(self.model).__name__} gives "
                f"{tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__}; choose the task that "
                "the weights were trained for"
            )
        return logits.float()


def image_paths(pattern: str) -> list[Path]:
    """Files of an image path, a folder (with its subfolders) or a glob, sorted.

    Raises:
        DataError: if there are none.
    """
    path = Path(pattern).expanduser()
    if path.is_file():
        return [path]
    found = images_in(path) if path.is_dir() else sorted(map(Path, glob(str(path), recursive=True)))  # noqa: PTH207
    files = [file for file in found if file.is_file()]
    if not files:
        raise DataError(f"input={pattern}: no such image, folder of images, or match of a glob")
    return files


def output_names(paths: list[Path], pattern: str) -> dict[Path, str]:
    """A name for what is written of each of `image_paths(pattern)`; no two are equal.

    It is the path below the input folder (for a glob, below the deepest folder that holds all), without the suffix
    unless that tells two files apart.
    """
    folder = Path(pattern).expanduser()
    base = folder if folder.is_dir() else Path(os.path.commonpath([path.parent for path in paths]))
    whole = {path: path.relative_to(base) for path in paths}
    names = {path: name.with_suffix("") for path, name in whole.items()}
    while len(uses := Counter(names.values())) < len(names):
        names = {path: whole[path] if uses[name] > 1 else name for path, name in names.items()}
    return {path: name.as_posix() for path, name in names.items()}


class ReadableImages:
    """Iterates over (path, RGB image); files that cannot be read are reported, skipped and counted."""

    def __init__(self, paths: list[Path]):
        self.paths = paths
        self.problems: list[str] = []

    def __iter__(self) -> Iterator[tuple[Path, Image.Image]]:
        for path in self.paths:
            try:
                image = read_image(path)
            except DataError as error:
                self.problems.append(str(error))
                print(f"skipped {error}")
            else:
                yield path, image

    def check_all_were_read(self) -> None:
        """Say at the end what was skipped.

        Raises:
            DataError: if anything was, so that the program's exit code says so.
        """
        if self.problems:
            raise DataError(
                f"{len(self.problems)} of {len(self.paths)} files were skipped, the others are done:\n"
                + "\n".join(self.problems)
            )
