"""What the exact re-association of the VT modules gains: time of pooling first against convolving first, in one run.

`python benchmarks/reassociation.py` prints median times of VT-FPN's tokenizer and projector at each level of a
512-pixel image, forward and backward, re-associated as is the default and with `reassociate=False`.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from visual_transformers.models.vt.layers import VTDesign
from visual_transformers.models.vt.projector import Projector
from visual_transformers.models.vt.tokenizers import FilterTokenizer

CHANNELS, TOKENS, TOKEN_CHANNELS, REPEATS = 256, 8, 1024, 7
DESIGNS = {"the paper's, 32 groups": (32, True), "the reference implementation's, dense": (1, False)}
"""Groups of the convolutions on pixels, and whether the tokenizer has any."""


class TokenizeAndProject(nn.Module):
    """One tokenizer and one projector, with the same weights in both ways of computing."""

    def __init__(self, groups: int, pixel_convs: bool, *, reassociate: bool):
        super().__init__()
        torch.manual_seed(0)
        design = VTDesign(
            tokens=TOKENS,
            token_channels=TOKEN_CHANNELS,
            group_width=CHANNELS // groups,
            pixel_convs=pixel_convs,
            reassociate=reassociate,
        )
        self.tokenizer = FilterTokenizer(design, CHANNELS)
        self.projector = Projector(design, CHANNELS, CHANNELS)

    def forward(self, pixels: Tensor, side: int) -> Tensor:
        """(B, HW, C) of a map of `side` x `side` -> the same shape."""
        return self.projector(pixels, self.tokenizer(pixels, (side, side)))


def median_seconds(work: Callable[[], Tensor]) -> float:
    """Median over a few repeats of forward and backward, after one to warm up."""
    times = []
    for _ in range(REPEATS + 1):
        start = time.perf_counter()
        work().sum().backward()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def main() -> None:
    """Print one line a design and level, and the ratio."""
    for name, (groups, pixel_convs) in DESIGNS.items():
        print(name)
        literal, reassociated = (TokenizeAndProject(groups, pixel_convs, reassociate=way) for way in (False, True))
        for side in (128, 64, 32, 16):
            pixels = torch.randn(2, side * side, CHANNELS, requires_grad=True)
            difference = (literal(pixels, side) - reassociated(pixels, side)).abs().max()
            before, after = (
                median_seconds(lambda x=pixels, m=module, s=side: m(x, s)) for module in (literal, reassociated)
            )
            print(
                f"{side:4d} x {side:<4d} literal {before * 1e3:7.1f} ms  re-associated {after * 1e3:7.1f} ms  "
                f"{before / after:4.1f} times faster  largest difference {difference:.1e}"
            )


if __name__ == "__main__":
    main()
