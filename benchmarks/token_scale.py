"""Print how large the visual tokens of a model grow during training, and what they add to the pixels.

`python benchmarks/token_scale.py task=segmentation model=vt_fpn parameters.vt_lr_factor=1` trains with these overrides
and prints a row every `--every` steps, of the batch of that step. Columns that belong to one level of VT-FPN, or to one
module of a VT-ResNet, list the values from the first to the last:

- gradient: L2 norm before clipping; of which VT: that of the VT modules' parameters;
- tokens: root mean square of the tokens that leave the transformer;
- spread: their standard deviation over the tokens of an image;
- entropy: of the attention over pixels, as a fraction of that of uniform attention;
- pixels: standard deviation over space of the pixels that enter the projector;
- mean, variation: root mean square, over space, of the mean and standard deviation of what the projector adds.

Tokens drown the pixels where mean or variation is many times pixels.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_module
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from visual_transformers.cli.shorthands import expand
from visual_transformers.config.validation import validate
from visual_transformers.inference.token_attention import entropy
from visual_transformers.models.vt.modules import VTModule, VTPyramid
from visual_transformers.models.vt.projector import Projector
from visual_transformers.models.vt.tokenizers import Tokenizer
from visual_transformers.models.vt.transformer import TokenTransformer
from visual_transformers.runs.run_dir import RunDirectory
from visual_transformers.tables import print_table
from visual_transformers.training.evaluate import evaluate
from visual_transformers.training.trainer import Trainer


def rms(x: Tensor) -> float:
    """Root mean square."""
    return float(x.double().square().mean().sqrt())


class TokenScale:
    """Measure tokens, attention and projections of a model in the forward passes for which it is `active`."""

    def __init__(self, model: nn.Module):
        self.active = False
        self.columns: dict[str, list[float]] = defaultdict(list)
        for module in model.modules():
            for kind, measure in MEASURES.items():
                if isinstance(module, kind):
                    module.register_forward_hook(self._hook(measure))

    def _hook(self, measure: Any) -> Any:
        def hook(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
            if self.active:
                for column, value in measure(module, inputs, output.detach()).items():
                    self.columns[column].append(value)

        return hook


def of_tokenizer(tokenizer: Tokenizer, inputs: tuple[Any, ...], _: Tensor) -> dict[str, float]:
    """Return the relative entropy of the attention over pixels."""
    size = inputs[1]
    maps = tokenizer.attention(*inputs).detach().double().transpose(1, 2).unflatten(2, size)
    return {"entropy": float(entropy(maps).mean()) / math.log(math.prod(size))}


def of_transformer(_: nn.Module, inputs: tuple[Any, ...], tokens: Tensor) -> dict[str, float]:
    """Return the scale of the tokens (B, L, C_T), and their spread over the tokens of an image."""
    return {"tokens": rms(tokens), "spread": rms(tokens - tokens.mean(dim=1, keepdim=True))}


def of_projector(projector: Projector, inputs: tuple[Any, ...], output: Tensor) -> dict[str, float]:
    """Return the scale of the pixels (B, HW, C) and of what is added to them."""
    pixels = projector.skip(inputs[0]).detach()
    added = output - pixels
    centred = [x - x.mean(dim=1, keepdim=True) for x in (pixels, added)]
    return {"pixels": rms(centred[0]), "mean": rms(added.mean(dim=1)), "variation": rms(centred[1])}


MEASURES = {Tokenizer: of_tokenizer, TokenTransformer: of_transformer, Projector: of_projector}


def gradient_norm(model: nn.Module) -> float:
    """Return the L2 norm of the gradient of the VT modules' parameters."""
    modules = [module for module in model.modules() if isinstance(module, VTModule | VTPyramid)]
    return float(get_total_norm(p.grad for m in modules for p in m.parameters() if p.grad is not None))


def measured(run: Trainer, every: int, steps: int) -> list[dict[str, str]]:
    """Train for so many steps, and return a row for each that is measured."""
    scale, rows, norms = TokenScale(run.components.model), [], {}
    clip = run.train_step.clip

    def measure_and_clip() -> Tensor:
        if scale.active:
            norms["of which VT"] = gradient_norm(run.components.model)
        norms["gradient"] = norm = clip()
        return norm

    run.train_step.clip = measure_and_clip  # type: ignore[method-assign]
    batches = run.batches()
    while run.state.step < steps:
        scale.active = run.state.step % every == 0 or run.state.step == steps - 1
        run.step(next(batches))
        if scale.active:
            row = {"step": str(run.state.step)} | {name: f"{norms[name]:.3g}" for name in ("gradient", "of which VT")}
            rows.append(row | {name: " ".join(f"{x:.3g}" for x in xs) for name, xs in scale.columns.items()})
            print(" | ".join(rows[-1].values()), flush=True)
            scale.columns.clear()
    return rows


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--every", type=int, default=50, help="steps between two rows")
    parser.add_argument("--steps", type=int, default=None, help="steps to take; default: all of the run's")
    parser.add_argument("overrides", nargs="*", help="as of python -m visual_transformers")
    options = parser.parse_args()
    with initialize_config_module("visual_transformers.conf", version_base="1.3"):
        cfg = validate(compose("config", ["name=token_scale", *expand(options.overrides)]))
    with tempfile.TemporaryDirectory() as folder:
        run = Trainer.build(cfg, RunDirectory(Path(folder)))
        rows = measured(run, options.every, options.steps or run.total_steps)
        print_table("scale of tokens and pixels in training", rows)
        scores = evaluate(run.components, run.validation, lambda: False)
    assert scores is not None
    print(", ".join(f"{name} {value:.3f}" for name, value in scores.compute().items()))


if __name__ == "__main__":
    main()
