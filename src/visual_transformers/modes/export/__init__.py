"""Weights for other programs: each artefact is written, loaded from the disk, run, and compared with the model."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import torch

from visual_transformers import __version__, atomic, json_text
from visual_transformers.config.instantiate import blamed_on
from visual_transformers.config.schema import Config
from visual_transformers.errors import ConfigError, RunError
from visual_transformers.inference.predictor import Trained
from visual_transformers.modes.export.formats import FORMATS, Original
from visual_transformers.tables import print_table

ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")


def run(cfg: Config, directory: Path) -> None:
    """Write the trained model in each of `export.formats` into `export/`, and export.json beside them.

    Raises:
        UserError: if there are no weights, a package is missing, or a format cannot hold the model.
        RunError: if an artefact, loaded from the disk, gives other outputs than the model.
    """
    check_packages(cfg.export.formats)
    trained = Trained.build(cfg, directory)
    original = Original.of(cfg, trained)
    trained.task.check_output(original.model, original.example, len(trained.classes))
    folder, artefacts = directory / "export", []
    for name in cfg.export.formats:
        path = folder / FORMATS[name].file
        with blamed_on("model", f"{cfg.model['_target_']} cannot be written as {name}; leave it out of export.formats"):
            FORMATS[name].write(path, original)
            difference = original.largest_difference(FORMATS[name].load(path, original))
        artefacts.append(Artefact(name, path, path.stat().st_size, difference))
    report(cfg, trained, original, folder, artefacts)
    check_tolerance(artefacts, cfg.export.tolerance)


@dataclass
class Artefact:
    """A file that was written, its size in bytes, and how far its outputs are from the model's."""

    format: str
    path: Path
    size: int
    difference: float


def check_packages(formats: list[str]) -> None:
    """See that what the formats need is installed.

    Raises:
        ConfigError: naming what is not, how to install it, and how to do without.
    """
    missing = [name for name in ONNX_PACKAGES if importlib.util.find_spec(name) is None]
    if "onnx" in formats and missing:
        raise ConfigError(
            f"export.formats: onnx needs packages that are not installed ({', '.join(missing)}); "
            "pip install 'visual-transformers[export]', or do without: export.formats=[safetensors,torch_export]"
        )


def check_tolerance(artefacts: list[Artefact], tolerance: float) -> None:
    """See that every artefact gives what the model gives.

    Raises:
        RunError: naming each file that does not.
    """
    wrong = [
        f"{artefact.path}: its outputs differ from the model's by {artefact.difference:.1e} of the largest; do not "
        f"use it, or allow for that with export.tolerance (now {tolerance:g})"
        for artefact in artefacts
        if not artefact.difference <= tolerance  # true of NaN as well
    ]
    if wrong:
        raise RunError("\n".join(wrong))


def report(cfg: Config, trained: Trained, original: Original, folder: Path, artefacts: list[Artefact]) -> None:
    """Print what was written, and leave the same as export.json."""
    content = {
        "name": cfg.name,
        "weights": str(trained.weights_path),
        "version": __version__,
        "torch": torch.__version__,
        "input": original.about["input"],
        "compared_on": original.sizes.compared,
        "tolerance": cfg.export.tolerance,
        "artefacts": [
            {
                "format": artefact.format,
                "file": artefact.path.name,
                "bytes": artefact.size,
                "largest_relative_difference": artefact.difference,
            }
            for artefact in artefacts
        ],
    }
    atomic.write_text(folder / "export.json", json_text.dumps(content, indent=2) + "\n")
    print_table(
        f"{cfg.name}: exported to {folder}, images of {' x '.join(map(str, original.sizes.shape))}",
        [
            {
                "artefact": a.path.name,
                "size": f"{a.size / 1e6:.2f} MB",
                "largest relative difference": f"{a.difference:.1e}",
            }
            for a in artefacts
        ],
    )
