"""`mode=explain`: where the visual tokens of a trained model look, as the paper draws it, in `explain/`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from visual_transformers import atomic, json_text
from visual_transformers.config.schema import Config
from visual_transformers.errors import RunError
from visual_transformers.inference.images import ReadableImages, named_images, output_names, validation_images
from visual_transformers.inference.predictor import Trained
from visual_transformers.inference.sliding_window import at_least
from visual_transformers.inference.token_attention import Looks, looks, numbers, sheet, token_stages
from visual_transformers.runs.run_dir import clear


def run(cfg: Config, directory: Path) -> None:
    """Draw where the tokens look on every image of `input`, and leave the sheets and explain.json in `explain/`.

    Raises:
        UserError: if there are no images or no weights, the model has no visual tokens, or, when all others are done,
            if some images could not be read.
    """
    named = named_images(cfg)
    trained = Trained.build(cfg, directory)
    stages = token_stages(trained.model)
    if not stages:
        raise RunError(
            f"mode=explain shows where visual tokens look, and {type(trained.model).__name__} has none; "
            "name the weights of a VT model, as model=vt_resnet18 or model=vt_fpn"
        )
    paths, pattern = named or validation_images(cfg, directory / "explain" / "inputs")
    images, names, directory = (
        ReadableImages(paths, trained.reading),
        output_names(paths, pattern),
        directory / "explain",
    )
    clear(directory, [*earlier_sheets(directory), "explain.json", "inputs"], but_for=paths)
    explained = []

    def looked_at(picture: Image.Image) -> tuple[Tensor, Tensor, list[Looks]]:
        image = trained.prepare(picture)
        return image, *looks(trained.logits, stages, at_least(trained.inputs(image), trained.stride))

    for path, _, (image, logits, found) in images.shown_to(looked_at):
        record = {"file": str(path), "picture": f"{names[path]}.png", **top_class(trained, logits)}
        record["parts"] = [numbers(part) for part in found]
        sheet(directory / record["picture"], image.permute(1, 2, 0).numpy(), title(record), found)
        explained.append(record)
        entropies = (f"{part['name']} {part['mean_entropy']:.3f}" for part in record["parts"])
        print(f"{path}: mean entropy in nats: {', '.join(entropies)}")
    atomic.write_text(directory / "explain.json", json_text.dumps(explained, indent=2) + "\n")
    print(f"explained {len(explained)} images, left in {directory}")
    images.check_all_were_read()


def earlier_sheets(folder: Path) -> list[str]:
    """Sheets in a folder that the explain.json beside them names; none where that is missing or damaged."""
    try:
        listed = {record["picture"] for record in json.loads((folder / "explain.json").read_text(encoding="utf-8"))}
    except (OSError, ValueError, TypeError, KeyError):
        return []
    names = (file.relative_to(folder).as_posix() for file in folder.rglob("*.png"))
    return [name for name in names if name in listed]


def top_class(trained: Trained, logits: Tensor) -> dict[str, Any]:
    """The most probable class of an image and its probability; nothing for a segmenter."""
    if trained.task.name != "classification":
        return {}
    probability, index = logits.softmax(dim=0).max(dim=0)
    return {"predicted": {"name": trained.classes[int(index)], "probability": float(probability)}}


def title(record: dict[str, Any]) -> str:
    """What a sheet is of: the file's name, and what the model takes it for."""
    name, predicted = Path(record["file"]).name, record.get("predicted")
    return f"{name}: {predicted['name']} {predicted['probability']:.1%}" if predicted else name
