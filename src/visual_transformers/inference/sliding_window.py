"""Class probabilities of every pixel: one forward pass, or the mean over sliding windows, scales and mirrored images.

Images are padded only if `pad_to` asks for it, because padding changes the tokens, whose attention covers all pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from visual_transformers.config.schema import InferenceSettings
from visual_transformers.data.labels import build_mirror_table

Forward = Callable[[Tensor], Tensor]
"""(B, 3, H, W) -> logits (B, classes, H, W)."""


@torch.inference_mode()
def predict_pixels(
    forward: Forward,
    images: Tensor,
    settings: InferenceSettings,
    stride: int,
    mirrored_labels: Sequence[tuple[int, int]] = (),
) -> Tensor:
    """Predict probabilities (B, classes, H, W) in float32 for images (B, 3, H, W).

    Args:
        forward: returns the logits of images.
        images: normalised images.
        settings: `short_side` and each of `scales` resize the images, `flip` adds their mirror images; the
            probabilities are resized back and averaged.
        stride: minimum height and width of the model's input in pixels.
        mirrored_labels: pairs of classes that mirroring swaps, e.g. left and right arm.
    """
    size = images.shape[2:]
    base = settings.short_side / min(size) if settings.short_side else 1.0
    flips = (False, True) if settings.flip else (False,)
    views = [(base * scale, flip) for scale in settings.scales for flip in flips]
    total: Tensor | None = None
    for scale, flip in views:
        view = resize(images, [max(1, round(side * scale)) for side in size])
        probabilities = _average_windows(forward, view.flip(3) if flip else view, settings, stride)
        if flip:
            swapped = build_mirror_table(probabilities.shape[1], mirrored_labels).to(probabilities.device)
            probabilities = probabilities.flip(3)[:, swapped]
        probabilities = resize(probabilities, size)
        total = probabilities if total is None else total + probabilities
    assert total is not None
    return total / len(views)


def to_logits(probabilities: Tensor) -> Tensor:
    """Return logits whose softmax is `probabilities`, for losses that expect a model's output."""
    return probabilities.clamp_min(torch.finfo(probabilities.dtype).tiny).log()


def resize(images: Tensor, size: Sequence[int]) -> Tensor:
    """Interpolate (B, C, h, w) bilinearly to `size` (H, W), with antialiasing."""
    if tuple(images.shape[2:]) == tuple(size):
        return images
    return F.interpolate(images, size=tuple(size), mode="bilinear", align_corners=False, antialias=True)


def enlarge_to_stride(images: Tensor, stride: int) -> Tensor:
    """Enlarge every side of images (B, 3, H, W) that is below `stride` to it."""
    return resize(images, [max(side, stride) for side in images.shape[2:]])


def _window_starts(side: int, window: int, overlap: float) -> list[int]:
    """Return the evenly spaced starts of the windows along a side; the last window ends with the side."""
    step = max(1, round(window * (1 - overlap)))
    return [*range(0, side - window, step), max(0, side - window)]


def _average_windows(forward: Forward, images: Tensor, settings: InferenceSettings, stride: int) -> Tensor:
    """Average probabilities (B, classes, H, W) over square windows, each cropped at the image's border."""
    height, width = images.shape[2:]
    window = settings.window or max(height, width)
    total: Tensor | None = None
    counts = torch.zeros(height, width)
    for top in _window_starts(height, window, settings.overlap):
        for left in _window_starts(width, window, settings.overlap):
            crop = (..., slice(top, top + window), slice(left, left + window))
            probabilities = _predict_window(forward, images[crop], settings, stride)
            if total is None:
                total = probabilities.new_zeros(*probabilities.shape[:2], height, width)
            total[crop] += probabilities
            counts[crop] += 1
    assert total is not None
    return total / counts.to(total.device)


def _predict_window(forward: Forward, images: Tensor, settings: InferenceSettings, stride: int) -> Tensor:
    inputs = enlarge_to_stride(images, stride)
    height, width = inputs.shape[2:]
    if settings.pad_to:
        bottom, right = (-side % settings.pad_to for side in (height, width))
        inputs = F.pad(inputs, (0, right, 0, bottom))  # zeros are the mean colour of normalised images
    probabilities = forward(inputs)[..., :height, :width].softmax(dim=1, dtype=torch.float32)
    return resize(probabilities, images.shape[2:])
