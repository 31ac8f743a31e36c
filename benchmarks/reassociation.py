"""What the exact re-association of the VT modules gains: time of pooling first against convolving first, in one run.

`python benchmarks/reassociation.py` prints median times of VT-FPN's tokenizer and projector at each level of a
512-pixel image, forward and backward, re-associated as in `models/tokens.py` and literally as in the equations.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from visual_transformers.models.tokens import FilterTokenizer, Projector

CHANNELS, TOKENS, TOKEN_CHANNELS, GROUPS, REPEATS = 256, 8, 1024, 32, 7


def literal(tokenizer: FilterTokenizer, projector: Projector, pixels: Tensor) -> Tensor:
    """Every 1x1 convolution over all pixels, as the equations are written."""
    values = tokenizer.value(pixels) @ tokenizer.embed.weight.T
    tokens = tokenizer.attention(pixels).transpose(1, 2) @ values
    logits = projector.query(pixels) @ projector.key(tokens).transpose(1, 2) / CHANNELS**0.5
    return pixels + logits.softmax(dim=2) @ projector.value(tokens)


def reassociated(tokenizer: FilterTokenizer, projector: Projector, pixels: Tensor) -> Tensor:
    """The modules as they are."""
    return projector(pixels, tokenizer(pixels))


def median_seconds(work: Callable[[], Tensor]) -> float:
    """Median over a few repeats of forward and backward, after one to warm up."""
    times = []
    for _ in range(REPEATS + 1):
        start = time.perf_counter()
        work().sum().backward()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def main() -> None:
    """Print one line a level, and the ratio."""
    torch.manual_seed(0)
    tokenizer = FilterTokenizer(CHANNELS, TOKENS, TOKEN_CHANNELS, GROUPS)
    projector = Projector(CHANNELS, CHANNELS, TOKEN_CHANNELS, GROUPS)
    for side in (128, 64, 32, 16):
        pixels = torch.randn(2, side * side, CHANNELS, requires_grad=True)
        difference = (literal(tokenizer, projector, pixels) - reassociated(tokenizer, projector, pixels)).abs().max()
        before = median_seconds(lambda x=pixels: literal(tokenizer, projector, x))
        after = median_seconds(lambda x=pixels: reassociated(tokenizer, projector, x))
        print(
            f"{side:4d} x {side:<4d} literal {before * 1e3:7.1f} ms  re-associated {after * 1e3:7.1f} ms  "
            f"{before / after:4.1f} times faster  largest difference {difference:.1e}"
        )


if __name__ == "__main__":
    main()
