"""`mode=explain`: draw the attention of a trained model's visual tokens and write the figures to `explain/`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from visual_transformers import atomic, json_text
from visual_transformers.config.schema import ExplainConfig
from visual_transformers.errors import RunError
from visual_transformers.inference.images import (
    ImageReader,
    find_named_images,
    make_output_names,
    save_validation_images,
)
from visual_transformers.inference.predictor import Predictor
from visual_transformers.inference.sliding_window import enlarge_to_stride
from visual_transformers.inference.token_attention import (
    TokenAttention,
    compute_token_attention,
    draw_sheet,
    find_token_stages,
    summarize,
)
from visual_transformers.runs.run_dir import remove_results


def run(cfg: ExplainConfig, directory: Path) -> None:
    """Draw the token attention on every image of `input`; write the figures and explain.json to `explain/`.

    Raises:
        UserError: if there are no images or no weights, if the model has no visual tokens or, after all others are
            drawn, if some images could not be read.
    """
    named = find_named_images(cfg)
    predictor = Predictor.build(cfg, directory)
    stages = find_token_stages(predictor.model)
    if not stages:
        raise RunError(
            f"mode=explain draws the attention of visual tokens, but {type(predictor.model).__name__} has none. "
            "Use the weights of a VT model, e.g. model=vt_resnet18 or model=vt_fpn"
        )
    paths, pattern = named or save_validation_images(cfg, cfg.explain.images, directory / "explain" / "inputs")
    images, names = ImageReader(paths, predictor.reading), make_output_names(paths, pattern)
    directory = directory / "explain"
    remove_results(directory, [*list_previous_figures(directory), "explain.json", "inputs"], keep=paths)
    explained = []

    def attend(picture: Image.Image) -> tuple[Tensor, Tensor, list[TokenAttention]]:
        image = predictor.prepare(picture)
        return image, *compute_token_attention(
            predictor.compute_logits, stages, enlarge_to_stride(predictor.to_inputs(image), predictor.stride)
        )

    for path, _, (image, logits, found) in images.run_model(attend):
        record = {"file": str(path), "picture": f"{names[path]}.png", **predict_class(predictor, logits)}
        record["parts"] = [summarize(part) for part in found]
        title, predicted = path.name, record.get("predicted")
        if predicted:
            title += f": {predicted['name']} {predicted['probability']:.1%}"
        draw_sheet(directory / record["picture"], image.permute(1, 2, 0).numpy(), title, found)
        explained.append(record)
        entropies = (f"{part['name']} {part['mean_entropy']:.3f}" for part in record["parts"])
        print(f"{path}: mean entropy in nats: {', '.join(entropies)}")
    atomic.write_text(directory / "explain.json", json_text.dumps(explained, indent=2) + "\n")
    print(f"explained {len(explained)} images, left in {directory}")
    images.report_problems()


def list_previous_figures(folder: Path) -> list[str]:
    """List the figures in a folder that its explain.json names; none if that file is missing or damaged."""
    try:
        listed = {record["picture"] for record in json.loads((folder / "explain.json").read_text(encoding="utf-8"))}
    except (OSError, ValueError, TypeError, KeyError):
        return []
    names = (file.relative_to(folder).as_posix() for file in folder.rglob("*.png"))
    return [name for name in names if name in listed]


def predict_class(predictor: Predictor, logits: Tensor) -> dict[str, Any]:
    """Return the most probable class of an image and its probability; nothing for a segmenter."""
    if predictor.task.name != "classification":
        return {}
    probability, index = logits.softmax(dim=0).max(dim=0)
    return {"predicted": {"name": predictor.classes[int(index)], "probability": float(probability)}}
