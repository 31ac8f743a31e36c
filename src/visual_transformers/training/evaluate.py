"""Evaluation of a model on every sample of a split, and pictures of some of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from visual_transformers.config.schema import Config, InferenceSettings
from visual_transformers.data.datamodule import spread_indices
from visual_transformers.data.loader import EvaluationBatches
from visual_transformers.distributed import collectives
from visual_transformers.errors import BadFileError, RunError
from visual_transformers.inference import token_attention
from visual_transformers.runs.results import Picture, Results
from visual_transformers.runs.run_dir import remove_results
from visual_transformers.tasks.metrics import Scores
from visual_transformers.training.components import Components


@torch.inference_mode()
def evaluate(
    components: Components, batches: EvaluationBatches, should_stop: Callable[[], bool] = lambda: False
) -> Scores | None:
    """Score the model on every sample once, whatever the world size. Collective.

    Args:
        components: model, task and device.
        batches: this rank's share of the samples, in rounds; sets its `skipped` to the number over all ranks.
        should_stop: called before every round.

    Returns:
        The scores over all ranks; None if it was stopped.

    Raises:
        RunError: if the loader omitted or repeated samples.
    """
    scores, evaluated = components.make_scores(), 0
    collectives.broadcast_buffers(components.model)
    components.model.eval()
    for batches_of_a_size in batches:
        if should_stop():
            return None
        for batch in batches_of_a_size:
            images, targets = components.move(*batch)
            logits = components.logits(images)
            loss_sum = components.task.loss_sum(logits, targets, training=False)
            scores.update(logits, targets, loss_sum, components.task.count(targets))
            evaluated += len(images)
    evaluated, batches.skipped = map(sum, zip(*collectives.all_gather((evaluated, batches.skipped)), strict=True))
    batches.bad_files.check(batches.skipped)
    if evaluated + batches.skipped != batches.length:
        raise RunError(f"evaluated {evaluated} samples of a set of {batches.length}: the loader has a fault")
    return scores.sync()


@torch.inference_mode()
def score_test_split(
    cfg: Config, components: Components, should_stop: Callable[[], bool] = lambda: False
) -> Results | None:
    """Score the model on the test split, and predict some samples spread evenly over it. Collective.

    Returns:
        None if it was stopped.
    """
    batches = components.batches("test")
    scores = evaluate(components, batches, should_stop)
    if scores is None:
        return None
    samples, pictures = components.sets["test"], []
    for index in spread_indices(len(samples), cfg.training.samples) if collectives.is_main() else ():
        try:
            image, target = samples[index]
        except BadFileError:  # reported and counted by the evaluation
            continue
        images, _ = components.move(image[None], torch.empty(0))
        prediction = components.logits(images).argmax(dim=1)[0]
        pictures.append(Picture(image, torch.as_tensor(target), prediction.cpu()))
    confusion = scores.confusion.compute().cpu()
    return Results(scores.compute(), scores.compute_table(), confusion, pictures, batches.skipped)


def draw_attention(components: Components, pictures: list[Picture], folder: Path) -> None:
    """Draw the token attention on each picture, one sheet per picture; nothing for a model without visual tokens.

    Sheets of an earlier evaluation are removed.
    """
    remove_results(folder.parent, [folder.name])
    stages = token_attention.find_token_stages(components.model)
    # Hooks are not called in compiled code, and attention over windows would not be that over the whole image.
    plain = replace(components, forward=components.model, inference=InferenceSettings())
    for number, picture in enumerate(pictures if stages else (), start=1):
        images, _ = plain.move(picture.image[None], torch.empty(0))
        _, attention = token_attention.compute_token_attention(plain.logits, stages, images)
        title = f"picture {number} of samples.png"
        token_attention.draw_sheet(folder / f"{number}.png", picture.image.permute(1, 2, 0).numpy(), title, attention)
