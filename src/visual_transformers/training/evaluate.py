"""Scoring a model on every sample of a split, and drawing some of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from visual_transformers.config.schema import Config, Inference
from visual_transformers.data.datamodule import spread
from visual_transformers.data.loader import EvaluationBatches
from visual_transformers.distributed import collectives
from visual_transformers.errors import BadFileError, RunError
from visual_transformers.inference import token_attention
from visual_transformers.runs.results import Picture, Results
from visual_transformers.runs.run_dir import clear
from visual_transformers.tasks.metrics import Scores
from visual_transformers.training.components import Parts


@torch.inference_mode()
def evaluate(parts: Parts, batches: EvaluationBatches, stops: Callable[[], bool] = lambda: False) -> Scores | None:
    """Score the model on every sample once, whatever the number of processes. Collective.

    Args:
        parts: model, task and device.
        batches: this process's share of the samples, in rounds; their `skipped` becomes that of all processes.
        stops: asked before every round whether to stop.

    Returns:
        The scores over all processes; None if it was stopped.

    Raises:
        RunError: if the loader left samples out or gave some twice.
    """
    scores, seen = parts.scores(), 0
    collectives.share_buffers(parts.model)
    parts.model.eval()
    for batches_of_a_size in batches:
        if stops():
            return None
        for batch in batches_of_a_size:
            images, targets = parts.move(*batch)
            logits = parts.logits(images)
            loss_sum = parts.task.loss_sum(logits, targets, training=False)
            scores.update(logits, targets, loss_sum, parts.task.count(targets))
            seen += len(images)
    seen, batches.skipped = map(sum, zip(*collectives.gathered((seen, batches.skipped)), strict=True))
    batches.bad_files.check(batches.skipped)
    if seen + batches.skipped != batches.length:
        raise RunError(f"evaluated {seen} samples of a set of {batches.length}; the loader is at fault")
    return scores.together()


@torch.inference_mode()
def score(cfg: Config, parts: Parts, stops: Callable[[], bool] = lambda: False) -> Results | None:
    """Score the model on the test split, and draw some of it: samples spread evenly over the split. Collective.

    Returns:
        None if it was stopped.
    """
    batches = parts.batches("test")
    scores = evaluate(parts, batches, stops)
    if scores is None:
        return None
    samples, pictures = parts.sets["test"], []
    for index in spread(len(samples), cfg.training.samples) if collectives.is_main() else ():
        try:
            image, target = samples[index]
        except BadFileError:  # said and counted by the evaluation
            continue
        images, _ = parts.move(image[None], torch.empty(0))
        prediction = parts.logits(images).argmax(dim=1)[0]
        pictures.append(Picture(image, torch.as_tensor(target), prediction.cpu()))
    confusion = scores.confusion.compute().cpu()
    return Results(scores.compute(), scores.table(), confusion, pictures, batches.skipped)


def draw_attention(parts: Parts, pictures: list[Picture], folder: Path) -> None:
    """Draw where the tokens of a VT model look on each picture, a sheet each; nothing of a model without tokens.

    Sheets of an earlier scoring are taken away.
    """
    clear(folder.parent, [folder.name])
    stages = token_attention.token_stages(parts.model)
    watched = replace(parts, forward=parts.model, inference=Inference())  # hooks see neither compiled code nor windows
    for number, picture in enumerate(pictures if stages else (), start=1):
        images, _ = parts.move(picture.image[None], torch.empty(0))
        _, found = token_attention.looks(watched.logits, stages, images)
        title = f"picture {number} of samples.png"
        token_attention.sheet(folder / f"{number}.png", picture.image.permute(1, 2, 0).numpy(), title, found)
