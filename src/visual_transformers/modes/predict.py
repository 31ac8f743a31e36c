"""`mode=predict`: what a trained model says of images, as JSON, masks and pictures in `predict/`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from visual_transformers import atomic, json_text
from visual_transformers.config.schema import Config, Inference
from visual_transformers.errors import RunError
from visual_transformers.inference import coco_results, sliding_window
from visual_transformers.inference.images import ReadableImages, named_images, output_names, validation_images
from visual_transformers.inference.predictor import Trained
from visual_transformers.plotting import image_plots, run_plots
from visual_transformers.runs.run_dir import clear

LEFT = ("predictions.json", "predictions.png", "masks", "overlays", "coco_stuff_results.json", "inputs")
"""What this mode leaves in its folder."""
MAX_SHEET = 64
"""Images in predictions.png."""
MASK_VALUES = 256


def run(cfg: Config, directory: Path) -> None:
    """Predict every image of `input`, and leave the predictions in `predict/`.

    Raises:
        UserError: if there are no images or no weights, a setting does not apply, or, when all others are done,
            if some images could not be read.
    """
    named = named_images(cfg)
    trained = Trained.build(cfg, directory)
    paths, pattern = named or validation_images(cfg, directory / "predict" / "inputs")
    images, directory = ReadableImages(paths, trained.reading), directory / "predict"
    if trained.task.name == "classification":
        predictions = classify(trained, images, cfg.predict.top, directory)
    else:
        names = output_names(paths, pattern)
        predictions = segment(trained, images, names, cfg.inference, directory, merge_things=cfg.predict.merge_things)
    atomic.write_text(directory / "predictions.json", json_text.dumps(predictions, indent=2) + "\n")
    print(f"predicted {len(predictions)} images, left in {directory}")
    images.check_all_were_read()


def classify(trained: Trained, images: ReadableImages, top: int, directory: Path) -> list[dict[str, Any]]:
    """The `top` most probable classes of each image, the first images as a sheet, and a printed line an image."""
    clear(directory, LEFT, but_for=images.paths)
    predictions: list[dict[str, Any]] = []
    shown: list[NDArray[np.uint8]] = []
    captions: list[str] = []

    def probable(picture: Image.Image) -> tuple[torch.Tensor, list[dict[str, Any]]]:
        image = trained.prepare(picture)
        return image, most_probable(trained, trained.logits(trained.inputs(image))[0].softmax(dim=0), top)

    for path, _, (image, classes) in images.shown_to(probable):
        predictions.append({"file": str(path), "classes": classes})
        said = [f"{found['name']} {found['probability']:.1%}" for found in classes]
        print(f"{path}: {', '.join(said)}")
        if len(shown) < MAX_SHEET:
            shown.append(image.permute(1, 2, 0).numpy())
            captions.append(said[0])
    if shown:
        image_plots.labelled(directory / "predictions.png", shown, captions)
    return predictions


def most_probable(trained: Trained, probabilities: torch.Tensor, top: int) -> list[dict[str, Any]]:
    """Names and probabilities of the `top` first of all classes, from probabilities (classes,)."""
    values, indices = sliding_window.topk(min(top, len(sliding_window)))
    return [
        {"name": trained.classes[index], "probability": value}
        for value, index in zip(values.tolist(), indices.tolist(), strict=True)
    ]


def segment(
    trained: Trained,
    images: ReadableImages,
    names: dict[Path, str],
    settings: Inference,
    directory: Path,
    *,
    merge_things: bool = False,
) -> list[dict[str, Any]]:
    """A mask and an overlay of each image as it comes, and for COCO-Stuff the results in COCO's own format."""
    check_classes(trained.classes)
    ids, categories = coco_image_ids(trained, images), trained.category_ids
    if categories and merge_things:
        categories = coco_results.with_things_merged(categories)
    clear(directory, LEFT, but_for=images.paths)
    predictions, results, masks = [], [], {}

    def most_probable_pixels(picture: Image.Image) -> NDArray[np.uint8]:
        images = trained.inputs(trained.prepare(picture))
        found = sliding_window.of_pixels(trained.logits, images, settings, trained.stride, trained.mirrored_labels)[0]
        return found.argmax(dim=0).to(torch.uint8).cpu().numpy()

    for path, picture, mask in images.shown_to(most_probable_pixels):
        prediction = written(mask, picture, path, names[path], trained.classes, directory)
        predictions.append(prediction)
        if categories is not None:
            results += coco_results.entries(mask, ids[path], categories)
            masks[ids[path]] = directory / prediction["mask"]
    if categories is not None:
        coco_results.write(directory / "coco_stuff_results.json", results, masks, categories)
    return predictions


def written(
    mask: NDArray[np.uint8], picture: Image.Image, path: Path, name: str, classes: list[str], directory: Path
) -> dict[str, Any]:
    """Leave a mask (H, W) of class indices and its overlay; print what covers most, and return the prediction.

    The size is height and width in pixels; a class's share is of the pixels.
    """
    files = {"mask": f"masks/{name}.png", "overlay": f"overlays/{name}.png"}
    write_mask(directory / files["mask"], mask)
    image_plots.masked(directory / files["overlay"], np.asarray(picture), mask, classes)
    share = np.bincount(mask.ravel(), minlength=len(classes)) / mask.size
    found = [{"name": classes[i], "share": float(share[i])} for i in np.argsort(-share, kind="stable") if share[i]]
    most = ", ".join(f"{entry['name']} {entry['share']:.1%}" for entry in found[:3])
    print(f"{path}: {most}{', ...' if len(found) > 3 else ''}")
    return {"file": str(path), **files, "size": list(mask.shape), "classes": found}


def write_mask(path: Path, mask: NDArray[np.uint8]) -> None:
    """Write class indices (H, W) as a palette PNG: its pixels are the indices, its colours those of overlays."""
    image = Image.fromarray(mask)
    colours = run_plots.palette(MASK_VALUES)  # all of them, for a PNG of fewer would have less than 8 bits
    image.putpalette((colours * 255).round().astype(np.uint8).ravel().tolist())
    atomic.write(path, lambda temporary: image.save(temporary, format="PNG"))


def check_classes(classes: list[str]) -> None:
    """See that a class index fits a pixel of a mask.

    Raises:
        RunError: if there are too many classes.
    """
    if len(classes) > MASK_VALUES:
        raise RunError(
            f"the model has {len(classes)} classes, but a pixel of an 8-bit mask can hold only {MASK_VALUES}; "
            "train it with fewer classes"
        )


def coco_image_ids(trained: Trained, images: ReadableImages) -> dict[Path, int | str]:
    """The ids that COCO's result format gives the images; none for a model of other data.

    Raises:
        UserError: if two images would have one id, or the data set's settings are not
            those of the weights.
    """
    if trained.category_ids is None:
        return {}
    if len(trained.category_ids) != len(trained.classes):
        raise RunError(
            f"weights={trained.weights_path}: {len(trained.classes)} classes, but the data set's settings name "
            f"{len(trained.category_ids)}; set data.label_set to the one that the weights were trained for"
        )
    return coco_results.image_ids(images.paths)
