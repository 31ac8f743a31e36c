"""`mode=export`: write a trained model in other formats, and compare what each file computes with the model."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from visual_transformers import __version__, atomic, json_text
from visual_transformers.config.instantiate import blamed_on
from visual_transformers.config.schema import ExportConfig
from visual_transformers.errors import ConfigError, RunError
from visual_transformers.inference.predictor import Predictor
from visual_transformers.modes.export.formats import FORMATS, Reference
from visual_transformers.tables import print_table

ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")


def run(cfg: ExportConfig, directory: Path) -> None:
    """Write the trained model in each of `export.formats`, and export.json, to `export/`.

    Raises:
        UserError: if there are no weights, a package is missing, or a format cannot hold the model.
        RunError: if an artefact, loaded from disk, gives other outputs than the model.
    """
    check_packages(cfg.export.formats)
    predictor = Predictor.build(cfg, directory)
    reference = Reference.from_predictor(cfg, predictor)
    predictor.task.check_output(reference.model, reference.example, len(predictor.classes))
    folder, artefacts = directory / "export", []
    for name in cfg.export.formats:
        path = folder / FORMATS[name].file
        with blamed_on("model", f"{cfg.model['_target_']} cannot be written as {name}; leave it out of export.formats"):
            FORMATS[name].write(path, reference)
            difference = reference.max_relative_difference(FORMATS[name].load(path, reference))
        size = path.stat().st_size
        artefacts.append({"format": name, "file": path.name, "bytes": size, "largest_relative_difference": difference})
    write_report(cfg, predictor, reference, folder, artefacts)
    check_tolerance(folder, artefacts, cfg.export.tolerance)


def check_packages(formats: Sequence[str]) -> None:
    """Raise ConfigError if a package that the formats need is not installed."""
    missing = [name for name in ONNX_PACKAGES if importlib.util.find_spec(name) is None]
    if "onnx" in formats and missing:
        raise ConfigError(
            f"export.formats: onnx needs packages that are not installed ({', '.join(missing)}). "
            "Run pip install 'visual-transformers[export]', or set export.formats=[safetensors,torch_export]"
        )


def write_report(
    cfg: ExportConfig, predictor: Predictor, reference: Reference, folder: Path, artefacts: list[dict[str, Any]]
) -> None:
    """Write export.json and print a table of the artefacts."""
    report = {
        "name": cfg.name,
        "weights": str(predictor.weights_path),
        "version": __version__,
        "torch": torch.__version__,
        "input": reference.metadata["input"],
        "compared_on": reference.sizes.compared_shapes,
        "tolerance": cfg.export.tolerance,
        "artefacts": artefacts,
    }
    atomic.write_text(folder / "export.json", json_text.dumps(report, indent=2) + "\n")
    print_table(
        f"{cfg.name}: exported to {folder}, images of {' x '.join(map(str, reference.sizes.shape))}",
        [
            {
                "artefact": artefact["file"],
                "size": f"{artefact['bytes'] / 1e6:.2f} MB",
                "largest relative difference": f"{artefact['largest_relative_difference']:.1e}",
            }
            for artefact in artefacts
        ],
    )


def check_tolerance(folder: Path, artefacts: list[dict[str, Any]], tolerance: float) -> None:
    """Raise RunError if an artefact gives other outputs than the model."""
    wrong = [
        f"{folder / artefact['file']}: its outputs differ from the model's by {difference:.1e} of the largest output. "
        f"Do not use it, or raise export.tolerance (now {tolerance:g})"
        for artefact in artefacts
        if not (difference := artefact["largest_relative_difference"]) <= tolerance  # `not <=` holds for NaN, too
    ]
    if wrong:
        raise RunError("\n".join(wrong))
