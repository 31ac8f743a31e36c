"""Input images of `mode=predict` and `mode=explain`: files that the user names, or validation images."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from glob import glob
from pathlib import Path
from typing import TypeVar

from PIL import Image

from visual_transformers import atomic
from visual_transformers.config.instantiate import build
from visual_transformers.config.schema import Config, ExplainConfig, PredictConfig
from visual_transformers.data.datamodule import DataModule
from visual_transformers.data.io.files import list_images
from visual_transformers.data.io.images import read_image
from visual_transformers.data.io.reading import DEFAULT_READING, Note, Reading
from visual_transformers.distributed.signals import interruptible
from visual_transformers.errors import ConfigError, DataError
from visual_transformers.paths import expand_home
from visual_transformers.runs.run_dir import remove_results

Result = TypeVar("Result")


def find_named_images(cfg: PredictConfig | ExplainConfig) -> tuple[list[Path], str] | None:
    """Return the files that `input` names and the pattern itself; None if it is not set.

    Raises:
        DataError: if it names no file.
    """
    return None if cfg.input is None else (find_images(cfg.input), cfg.input)


def save_validation_images(cfg: Config, count: int, folder: Path) -> tuple[list[Path], str]:
    """Save `count` validation images as PNG files in `folder`; return them and the folder as their pattern.

    Raises:
        DataError: if there are no images.
    """
    data: DataModule = build(cfg.data, "data", trust=cfg.trust)
    paths = []
    remove_results(folder.parent, [folder.name])
    for name, image in data.load_val_images(count):
        paths.append(folder / f"{name}.png")
        atomic.write(paths[-1], lambda path, image=image: image.save(path, format="PNG"))  # type: ignore[misc]
    if not paths:
        raise DataError(f"{cfg.mode}.images={count}: no validation images to use. Raise it, or set input=PATH.")
    return paths, str(folder)


def find_images(pattern: str) -> list[Path]:
    """List the files of a path, a folder (with its subfolders) or a glob, sorted.

    Raises:
        DataError: if there is no such file.
    """
    path = expand_home(pattern)
    if path.is_file():
        return [path]
    found = [*list_images(path)] if path.is_dir() else sorted(map(Path, glob(str(path), recursive=True)))  # noqa: PTH207
    files = [file for file in found if file.is_file() or (file.is_symlink() and not file.exists())]
    if not files:
        raise DataError(f"input={pattern}: no such image, no such folder of images, and no file matches it as a glob")
    return files


def make_output_names(paths: list[Path], pattern: str) -> dict[Path, str]:
    """Choose a unique name for the outputs of each of `find_images(pattern)`.

    The name is the path below the input folder (for a glob, below the deepest common folder), without the suffix
    unless two files differ only in it.
    """
    folder = expand_home(pattern)
    base = folder if folder.is_dir() else Path(os.path.commonpath([path.parent for path in paths]))
    relative = {path: path.relative_to(base) for path in paths}
    names = {path: name.with_suffix("") for path, name in relative.items()}
    while len(uses := Counter(names.values())) < len(names):
        names = {path: relative[path] if uses[name] > 1 else name for path, name in names.items()}
    return {path: name.as_posix() for path, name in names.items()}


class ImageReader:
    """Iterable of (path, RGB image), rotated as EXIF says; unreadable files are printed, skipped and counted."""

    def __init__(self, paths: list[Path], reading: Reading = DEFAULT_READING):
        self.paths, self.reading = paths, reading
        self.problems: list[str] = []
        self.transparent = 0

    def __iter__(self) -> Iterator[tuple[Path, Image.Image]]:
        for path in interruptible(self.paths):
            try:
                image, notes = read_image(path, self.reading)
            except DataError as error:
                self._skip(str(error))
            else:
                if Note.BAD_EXIF in notes:
                    print(f"note: {path}: its EXIF cannot be read; the image is not rotated")
                self.transparent += Note.TRANSPARENT in notes
                yield path, image

    def run_model(self, model: Callable[[Image.Image], Result]) -> Iterator[tuple[Path, Image.Image, Result]]:
        """Iterate over (path, RGB image, result of `model`); images on which the model fails are skipped.

        Raises:
            ConfigError: if the model raises it, because then it fails on every image.
        """
        for path, image in self:
            try:
                result = model(image)
            except ConfigError:
                raise
            except (RuntimeError, ValueError) as error:  # from torch: too small for a norm, too large for the memory
                reason = f"{type(error).__name__}: {error}".splitlines()[0]
                self._skip(f"{path}: the model cannot take it ({reason}); try another size, or inference.window")
            else:
                yield path, image, result

    def _skip(self, problem: str) -> None:
        self.problems.append(problem)
        print(f"skipped {problem}")

    def report_problems(self) -> None:
        """Print the number of transparent images, then raise an error if files were skipped.

        Raises:
            DataError: if files were skipped, so that the exit code reports it.
        """
        if self.transparent:
            ground = f"{self.reading.background} is shown there (data.reading.background)"
            print(f"note: {self.transparent} of {len(self.paths)} images are transparent somewhere; {ground}")
        if self.problems:
            raise DataError("\n".join([f"{format_skipped(len(self.problems), len(self.paths))}:", *self.problems]))


def format_skipped(count: int, files: int) -> str:
    """Say how many of the files were skipped."""
    if count == files:
        return "the only file was skipped" if files == 1 else f"all {files} files were skipped"
    return f"{count} of {files} files {'was' if count == 1 else 'were'} skipped, the others are done"
