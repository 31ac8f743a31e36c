"""`mode=predict`: predict images with a trained model and write JSON, masks and figures to `predict/`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from visual_transformers import atomic, json_text
from visual_transformers.config.schema import InferenceSettings, PredictConfig
from visual_transformers.errors import RunError
from visual_transformers.inference import coco_results, sliding_window
from visual_transformers.inference.images import (
    ImageReader,
    find_named_images,
    make_output_names,
    save_validation_images,
)
from visual_transformers.inference.predictor import Predictor
from visual_transformers.plotting import image_plots, run_plots
from visual_transformers.runs.run_dir import remove_results

OUTPUTS = ("predictions.json", "predictions.png", "masks", "overlays", "coco_stuff_results.json", "inputs")
MAX_SHEET = 64
"""Maximum number of images in predictions.png."""
MASK_VALUES = 256
"""Number of class indices that fit a pixel of a mask."""


def run(cfg: PredictConfig, directory: Path) -> None:
    """Predict every image of `input` and write the predictions to `predict/`.

    Raises:
        UserError: if there are no images or no weights, if a setting does not apply or, after all others are
            predicted, if some images could not be read.
    """
    named = find_named_images(cfg)
    predictor = Predictor.build(cfg, directory)
    paths, pattern = named or save_validation_images(cfg, cfg.predict.images, directory / "predict" / "inputs")
    images, directory = ImageReader(paths, predictor.reading), directory / "predict"
    if predictor.task.name == "classification":
        predictions = classify(predictor, images, cfg.predict.top, directory)
    else:
        names = make_output_names(paths, pattern)
        predictions = segment(predictor, images, names, cfg.inference, directory, merge_things=cfg.predict.merge_things)
    atomic.write_text(directory / "predictions.json", json_text.dumps(predictions, indent=2) + "\n")
    print(f"predicted {len(predictions)} images, left in {directory}")
    images.report_problems()


def classify(predictor: Predictor, images: ImageReader, top: int, directory: Path) -> list[dict[str, Any]]:
    """Return and print the `top` most probable classes of each image; draw the first images as predictions.png."""
    remove_results(directory, OUTPUTS, keep=images.paths)
    predictions: list[dict[str, Any]] = []
    sheet: list[NDArray[np.uint8]] = []
    captions: list[str] = []

    def predict(picture: Image.Image) -> tuple[torch.Tensor, list[dict[str, Any]]]:
        image = predictor.prepare(picture)
        probabilities = predictor.compute_logits(predictor.to_inputs(image))[0].softmax(dim=0)
        values, indices = probabilities.topk(min(top, len(probabilities)))
        return image, [
            {"name": predictor.classes[index], "probability": value}
            for value, index in zip(values.tolist(), indices.tolist(), strict=True)
        ]

    for path, _, (image, classes) in images.run_model(predict):
        predictions.append({"file": str(path), "classes": classes})
        texts = [f"{entry['name']} {entry['probability']:.1%}" for entry in classes]
        print(f"{path}: {', '.join(texts)}")
        if len(sheet) < MAX_SHEET:
            sheet.append(image.permute(1, 2, 0).numpy())
            captions.append(texts[0])
    if sheet:
        image_plots.plot_captioned(directory / "predictions.png", sheet, captions)
    return predictions


def segment(
    predictor: Predictor,
    images: ImageReader,
    names: dict[Path, str],
    settings: InferenceSettings,
    directory: Path,
    *,
    merge_things: bool = False,
) -> list[dict[str, Any]]:
    """Write a mask and an overlay of each image, and for COCO-Stuff the results in COCO's format."""
    check_class_count(predictor.classes)
    image_ids, categories = assign_coco_ids(predictor, images), predictor.category_ids
    if categories and merge_things:
        categories = coco_results.merge_things(categories)
    remove_results(directory, OUTPUTS, keep=images.paths)
    predictions, results, masks = [], [], {}

    def predict_mask(picture: Image.Image) -> NDArray[np.uint8]:
        images = predictor.to_inputs(predictor.prepare(picture))
        found = sliding_window.predict_pixels(
            predictor.compute_logits, images, settings, predictor.stride, predictor.mirrored_labels
        )[0]
        return found.argmax(dim=0).to(torch.uint8).cpu().numpy()

    for path, picture, mask in images.run_model(predict_mask):
        prediction = save_prediction(mask, picture, path, names[path], predictor.classes, directory)
        predictions.append(prediction)
        if categories is not None:
            results += coco_results.encode_mask(mask, image_ids[path], categories)
            masks[image_ids[path]] = directory / prediction["mask"]
    if categories is not None:
        coco_results.write_results(directory / "coco_stuff_results.json", results, masks, categories)
    return predictions


def save_prediction(
    mask: NDArray[np.uint8], picture: Image.Image, path: Path, name: str, classes: list[str], directory: Path
) -> dict[str, Any]:
    """Write a mask (H, W) of class indices and its overlay; print and return the share of pixels of each class."""
    files = {"mask": f"masks/{name}.png", "overlay": f"overlays/{name}.png"}
    write_mask(directory / files["mask"], mask)
    image_plots.plot_mask(directory / files["overlay"], np.asarray(picture), mask, classes)
    shares = np.bincount(mask.ravel(), minlength=len(classes)) / mask.size
    largest_first = [i for i in np.argsort(-shares, kind="stable") if shares[i]]
    texts = [f"{classes[i]} {shares[i]:.1%}" for i in largest_first[:3]]
    print(f"{path}: {', '.join(texts)}{', ...' if len(largest_first) > 3 else ''}")
    found = [{"name": classes[i], "share": float(shares[i])} for i in largest_first]
    return {"file": str(path), **files, "size": list(mask.shape), "classes": found}


def write_mask(path: Path, mask: NDArray[np.uint8]) -> None:
    """Write class indices (H, W) as a palette PNG, with the colours of the overlays."""
    image = Image.fromarray(mask)
    colours = run_plots.make_palette(MASK_VALUES)  # a smaller palette would give a PNG of fewer than 8 bits
    image.putpalette((colours * 255).round().astype(np.uint8).ravel().tolist())
    atomic.write(path, lambda temporary: image.save(temporary, format="PNG"))


def check_class_count(classes: list[str]) -> None:
    """Raise RunError if a class index does not fit a pixel of a mask."""
    if len(classes) > MASK_VALUES:
        raise RunError(
            f"the model has {len(classes)} classes, but an 8-bit mask can hold only {MASK_VALUES}. "
            "Train it with fewer classes"
        )


def assign_coco_ids(predictor: Predictor, images: ImageReader) -> dict[Path, int | str]:
    """Return the image ids of COCO's result format; none for a model of other data."""
    if predictor.category_ids is None:
        return {}
    if len(predictor.category_ids) != len(predictor.classes):
        raise RunError(
            f"weights={predictor.weights_path} has {len(predictor.classes)} classes, but data.label_set has "
            f"{len(predictor.category_ids)}. Set data.label_set to the one that the weights were trained with"
        )
    return coco_results.assign_image_ids(images.paths)
