"""Selection of the weights to keep: the best, or the best few."""

from __future__ import annotations

import math
import shutil
from typing import Any

from torch import nn

from visual_transformers import atomic
from visual_transformers.checkpoints import weights
from visual_transformers.distributed import collectives
from visual_transformers.runs.run_dir import RunDirectory

Ranking = list[dict[str, Any]]
"""Step, epoch and scores of the kept weights, the best first."""


def update_ranking(
    ranking: Ranking,
    candidate: dict[str, Any],
    model: nn.Module,
    metadata: dict[str, Any],
    *,
    metric: str,
    top_k: int,
    files: RunDirectory,
) -> Ranking:
    """Insert a candidate into the ranking, and write its weights if they are among the best `top_k`.

    The best weights are `best.safetensors`; with `top_k` above 1, each of the best has a file in `top/` too. Of equal
    scores the earlier wins. NaN is never kept.
    """
    if math.isnan(candidate[metric]):
        return ranking
    place = sum(entry[metric] >= candidate[metric] for entry in ranking)
    ranking = [*ranking[:place], candidate, *ranking[place:]][:top_k]
    if place >= top_k or not collectives.is_main():
        return ranking
    in_top = files.top_weights(candidate["step"])
    weights.save(files.best if place == 0 else in_top, model, metadata | {"best": candidate})
    if top_k > 1 and place == 0:
        atomic.write(in_top, lambda temporary: shutil.copyfile(files.best, temporary))
    kept = {files.top_weights(entry["step"]) for entry in ranking} if top_k > 1 else set()
    for path in files.top.glob("*.safetensors"):
        if path not in kept:
            path.unlink()
    return ranking
