"""Which weights are kept: the best so far, and if asked the best few."""

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
"""Step, epoch and scores of the weights that are kept, the best first."""


def keep(
    ranking: Ranking,
    candidate: dict[str, Any],
    model: nn.Module,
    about: dict[str, Any],
    *,
    metric: str,
    top_k: int,
    files: RunDirectory,
) -> Ranking:
    """The ranking with a candidate in its place, whose weights are written if they are among the best `top_k`.

    The best are `best.safetensors`; where more are kept, each has a file in `top/` too. Of equals the earlier wins. A
    score that is NaN is never kept.
    """
    if math.isnan(candidate[metric]):
        return ranking
    place = sum(kept[metric] >= candidate[metric] for kept in ranking)
    ranking = [*ranking[:place], candidate, *ranking[place:]][:top_k]
    if place >= top_k or not collectives.is_main():
        return ranking
    written = files.best if place == 0 else files.top_weights(candidate["step"])
    weights.save(written, model, about | {"best": candidate})
    if top_k > 1 and place == 0:
        own = files.top_weights(candidate["step"])
        atomic.write(own, lambda temporary: shutil.copyfile(files.best, temporary))
    kept = {files.top_weights(one["step"]) for one in ranking} if top_k > 1 else set()
    for path in files.top.glob("*.safetensors"):
        if path not in kept:
            path.unlink()
    return ranking
