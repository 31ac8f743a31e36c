"""Probabilities over windows, scales and the mirror, against the same computed step by step."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torchvision.transforms import v2

from visual_transformers import runner
from visual_transformers.config.schema import Inference
from visual_transformers.data.io.bad_files import NONE_ALLOWED
from visual_transformers.data.normalization import Normalise
from visual_transformers.distributed.hardware import Hardware
from visual_transformers.inference import sliding_window
from visual_transformers.models import panoptic_fpn
from visual_transformers.tasks.task import Segmentation
from visual_transformers.training.evaluate import evaluate


def of_one(forward, image: torch.Tensor, settings: Inference, stride: int) -> torch.Tensor:
    """Probabilities of one image."""
    return sliding_window.of_pixels(forward, image[None], settings, stride)[0]


def forward(images: torch.Tensor) -> torch.Tensor:
    """A stand-in segmenter of 4 classes: what it says of a pixel depends on where its input ends."""
    random = torch.Generator().manual_seed(3)
    weight = torch.randn(4, 3, 5, 5, generator=random)
    return F.conv2d(images, weight, padding=2) + images.mean(dim=(1, 2, 3), keepdim=True)


def test_without_options_the_probabilities_are_those_of_one_forward_pass():
    image = torch.randn(3, 23, 31)
    found = of_one(forward, image, Inference(), stride=8)
    assert torch.equal(found, forward(image[None]).softmax(dim=1)[0])


@pytest.mark.parametrize("window", [31, 500])
def test_a_window_that_covers_the_image_is_one_forward_pass(window):
    image = torch.randn(3, 23, 31)
    found = of_one(forward, image, Inference(window=window), stride=8)
    assert torch.equal(found, forward(image[None]).softmax(dim=1)[0])


@pytest.mark.parametrize(("window", "overlap"), [(10, 0.0), (10, 0.5), (12, 0.33), (25, 0.9), (7, 0.25)])
def test_sliding_windows_average_what_each_says_and_the_last_ends_with_the_image(window, overlap):
    image = torch.randn(3, 24, 40)
    total, count = torch.zeros(4, 24, 40), torch.zeros(24, 40)
    step = round(window * (1 - overlap))
    tops, lefts = [0], [0]
    for positions, side in ((tops, 24), (lefts, 40)):
        while positions[-1] + window < side:
            positions.append(min(positions[-1] + step, side - window))
    for top in tops:
        for left in lefts:
            cut = image[:, top : top + window, left : left + window]
            total[:, top : top + window, left : left + window] += forward(cut[None]).softmax(dim=1)[0]
            count[top : top + window, left : left + window] += 1
    found = of_one(forward, image, Inference(window=window, overlap=overlap), stride=1)
    torch.testing.assert_close(found, total / count)
    assert count.min() > 0


def test_the_mirrored_image_is_averaged_in_after_mirroring_it_back():
    image = torch.randn(3, 24, 40)
    mirrored = forward(image.flip(2)[None]).softmax(dim=1)[0].flip(2)
    expected = (forward(image[None]).softmax(dim=1)[0] + mirrored) / 2
    torch.testing.assert_close(of_one(forward, image, Inference(flip=True), stride=1), expected)


def test_scales_are_averaged_as_probabilities_at_the_image_s_own_size():
    image, found = torch.randn(3, 24, 40), []
    for size in ([12, 20], [24, 40], [36, 60]):
        scaled = v2.functional.resize(image, size, antialias=True)
        found.append(v2.functional.resize(forward(scaled[None]).softmax(dim=1)[0], [24, 40], antialias=True))
    of_all = of_one(forward, image, Inference(scales=[0.5, 1.0, 1.5]), stride=1)
    torch.testing.assert_close(of_all, torch.stack(found).mean(dim=0))


def test_sides_below_the_model_s_stride_are_enlarged_for_it_and_nothing_else_is():
    seen = []

    def watched(images: torch.Tensor) -> torch.Tensor:
        seen.append(tuple(images.shape[2:]))
        return forward(images)

    found = of_one(watched, torch.randn(3, 5, 40), Inference(window=16, overlap=0.0), stride=32)
    assert seen == [(32, 32)] * 3
    assert found.shape == (4, 5, 40)
    of_one(watched, torch.randn(3, 5, 40), Inference(), stride=32)
    assert seen[3:] == [(32, 40)]


def test_probabilities_stay_so_under_every_option_together():
    options = Inference(window=16, overlap=0.4, scales=[0.5, 1.3], flip=True)
    found = of_one(forward, torch.randn(3, 24, 40), options, stride=8)
    torch.testing.assert_close(found.sum(dim=0), torch.ones(24, 40))
    assert found.min() >= 0


@pytest.mark.parametrize(("height", "width"), [(24, 40), (40, 24)])
def test_the_short_side_is_resized_and_the_result_brought_back(height, width):
    image = torch.randn(3, height, width)
    scaled = v2.functional.resize(image, [36], antialias=True)
    assert min(scaled.shape[1:]) == 36
    expected = v2.functional.resize(forward(scaled[None]).softmax(dim=1)[0], [height, width], antialias=True)
    torch.testing.assert_close(of_one(forward, image, Inference(short_side=36), 1), expected)


def test_padding_is_seen_by_the_model_and_cut_off_again():
    image, seen = torch.randn(3, 24, 40), []

    def watched(images: torch.Tensor) -> torch.Tensor:
        seen.append(images)
        return forward(images)

    found = of_one(watched, image, Inference(pad_to=32), 1)
    (padded,) = seen
    assert padded.shape == (1, 3, 32, 64)
    assert torch.equal(padded[0, :, :24, :40], image)
    assert padded[0, :, 24:].abs().max() == padded[0, :, :, 40:].abs().max() == 0
    assert torch.equal(found, forward(padded).softmax(dim=1)[0, :, :24, :40])


def test_a_batch_is_its_images_one_by_one():
    images, options = torch.randn(3, 3, 24, 40), Inference(window=16, flip=True)
    of_all = sliding_window.of_pixels(forward_alone, images, options, 1)
    torch.testing.assert_close(of_all, torch.stack([of_one(forward_alone, image, options, 1) for image in images]))


def forward_alone(images: torch.Tensor) -> torch.Tensor:
    return torch.cat([forward(image[None]) for image in images])


def test_the_logits_of_probabilities_have_them_as_their_softmax():
    probable = torch.randn(2, 4, 5, 6).softmax(dim=1)
    torch.testing.assert_close(sliding_window.as_logits(probable).softmax(dim=1), probable)
    assert sliding_window.as_logits(torch.tensor([0.0, 1.0])).isfinite().all()


class Evaluated:
    """One batch of two images and their masks, as a loader gives it."""

    length, skipped, bad_files = 2, 0, NONE_ALLOWED

    def __init__(self, sizes):
        self.batch = torch.randint(256, (2, 3, *sizes), dtype=torch.uint8), torch.randint(4, (2, *sizes)).byte()

    def __iter__(self):
        yield [self.batch]


@pytest.mark.parametrize(
    "inference", [Inference(), Inference(short_side=48, flip=True), Inference(window=40), Inference(pad_to=32)], ids=str
)
def test_evaluation_scores_labels_at_their_own_size(inference):
    model = panoptic_fpn(num_classes=4, backbone="resnet18", pyramid_channels=32, branch_channels=32).eval()
    hardware, batches = Hardware(), Evaluated((50, 70))
    parts = runner.Parts(hardware, Segmentation(), FourClasses(), {}, model, model, Normalise(), inference=inference)
    found = evaluate(parts, batches).compute()
    images, labels = parts.move(*batches.batch)
    with torch.inference_mode():
        probable = sliding_window.of_pixels(model, images, inference, model.stride)
    hits = (probable.argmax(dim=1) == labels).double().mean()
    assert found["pixel_accuracy"] == pytest.approx(float(hits), abs=1e-9)
    expected = F.nll_loss(probable.log(), labels)
    assert found["loss"] == pytest.approx(float(expected), rel=1e-5)


class FourClasses:
    classes = ("a", "b", "c", "d")
    mirrored_labels = ()


def test_a_mirrored_image_swaps_left_and_right_classes():
    def left_and_right(images: torch.Tensor) -> torch.Tensor:
        """Class 1 left of the middle, class 2 right of it, whatever the image."""
        logits = torch.zeros(len(images), 3, *images.shape[2:])
        half = images.shape[3] // 2
        logits[:, 1, :, :half] = logits[:, 2, :, half:] = 9
        return logits

    image = torch.randn(1, 3, 4, 8)
    plain = sliding_window.of_pixels(left_and_right, image, Inference(), 1)
    flipped = sliding_window.of_pixels(left_and_right, image, Inference(flip=True), 1, mirrored_labels=[(1, 2)])
    torch.testing.assert_close(flipped, plain)
