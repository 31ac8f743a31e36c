"""The images of `mode=predict` and `mode=explain`: files that the user names, or validation images."""

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
from visual_transformers.config.schema import Config
from visual_transformers.data.datamodule import DataModule
from visual_transformers.data.io.files import images_below
from visual_transformers.data.io.images import read_image
from visual_transformers.data.io.reading import USUAL, Note, Reading
from visual_transformers.distributed.stop_at_once import interruptible
from visual_transformers.errors import ConfigError, DataError
from visual_transformers.paths import expand_home
from visual_transformers.runs.run_dir import clear

Found = TypeVar("Found")


def named_images(cfg: Config) -> tuple[list[Path], str] | None:
    """Files of `input`, and the pattern that names them; None without it.

    Raises:
        DataError: if it names none.
    """
    return None if cfg.input is None else (image_paths(cfg.input), cfg.input)


def validation_images(cfg: Config, folder: Path) -> tuple[list[Path], str]:
    """Validation images, left as files in `folder`, and that folder as the pattern that names them.

    Raises:
        DataError: if there are none.
    """
    data: DataModule = build(cfg.data, "data", trust=cfg.trust)
    paths = []
    clear(folder.parent, [folder.name])
    for name, image in data.pictures(cfg.training.samples):
        paths.append(folder / f"{name}.png")
        atomic.write(paths[-1], lambda path, image=image: image.save(path, format="PNG"))  # type: ignore[misc]
    if not paths:
        raise DataError(f"training.samples={cfg.training.samples} validation images to show; give more, or input=PATH")
    return paths, str(folder)


def image_paths(pattern: str) -> list[Path]:
    """Files of an image path, a folder (with its subfolders) or a glob, sorted.

    Raises:
        DataError: if there are none.
    """
    path = expand_home(pattern)
    if path.is_file():
        return [path]
    found = [*images_below(path)] if path.is_dir() else sorted(map(Path, glob(str(path), recursive=True)))  # noqa: PTH207
    files = [file for file in found if file.is_file() or (file.is_symlink() and not file.exists())]
    if not files:
        raise DataError(f"input={pattern}: no such image, folder of images, or match of a glob")
    return files


def output_names(paths: list[Path], pattern: str) -> dict[Path, str]:
    """A name for what is written of each of `image_paths(pattern)`; no two are equal.

    It is the path below the input folder (for a glob, below the deepest folder that holds all), without the suffix
    unless that tells two files apart.
    """
    folder = expand_home(pattern)
    base = folder if folder.is_dir() else Path(os.path.commonpath([path.parent for path in paths]))
    whole = {path: path.relative_to(base) for path in paths}
    names = {path: name.with_suffix("") for path, name in whole.items()}
    while len(uses := Counter(names.values())) < len(names):
        names = {path: whole[path] if uses[name] > 1 else name for path, name in names.items()}
    return {path: name.as_posix() for path, name in names.items()}


class ReadableImages:
    """Iterates over (path, RGB image), upright as a camera's EXIF says; what fails is reported, skipped and counted.

    Args:
        paths: image files.
        reading: what they do not tell.
    """

    def __init__(self, paths: list[Path], reading: Reading = USUAL):
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
                    print(f"note: {path}: its EXIF cannot be read; taken as it is, not turned")
                self.transparent += Note.TRANSPARENT in notes
                yield path, image

    def shown_to(self, model: Callable[[Image.Image], Found]) -> Iterator[tuple[Path, Image.Image, Found]]:
        """Iterates over (path, RGB image, what the model makes of it); an image that it cannot take costs no other.

        Raises:
            ConfigError: from a model that can take no image at all.
        """
        for path, image in self:
            try:
                found = model(image)
            except ConfigError:
                raise
            except (RuntimeError, ValueError) as error:  # of torch: too small for a norm, too large for the memory
                reason = f"{type(error).__name__}: {error}".splitlines()[0]
                self._skip(f"{path}: the model cannot take it ({reason}); try another size, or inference.window")
            else:
                yield path, image, found

    def _skip(self, problem: str) -> None:
        self.problems.append(problem)
        print(f"skipped {problem}")

    def check_all_were_read(self) -> None:
        """Say at the end how many were transparent, and what was skipped.

        Raises:
            DataError: if anything was, so that the program's exit code says so.
        """
        if self.transparent:
            ground = f"{self.reading.background} is shown there (data.reading.background)"
            print(f"note: {self.transparent} of {len(self.paths)} images are transparent somewhere; {ground}")
        if self.problems:
            raise DataError("\n".join([f"{skipped(len(self.problems), len(self.paths))}:", *self.problems]))


def skipped(count: int, files: int) -> str:
    """How many of the files were skipped, in words."""
    if count == files:
        return "the only file was skipped" if files == 1 else f"all {files} files were skipped"
    return f"{count} of {files} files {'was' if count == 1 else 'were'} skipped, the others are done"
