"""Probabilities over windows, scales and mirrored images, against step-by-step computations."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torchvision.transforms import v2

from visual_transformers import runner
from visual_transformers.config.schema import InferenceSettings
from visual_transformers.data.io.bad_files import NONE_ALLOWED
from visual_transformers.data.normalization import Normalise
from visual_transformers.distributed.hardware import Hardware
from visual_transformers.inference import sliding_window
from visual_transformers.models import panoptic_fpn
from visual_transformers.tasks.task import Segmentation
from visual_transformers.training.evaluate import evaluate


def predict_one(forward, image: torch.Tensor, settings: InferenceSettings, stride: int) -> torch.Tensor:
    """Predict the probabilities of one image."""
    return sliding_window.predict_pixels(forward, image[None], settings, stride)[0]


def forward(images: torch.Tensor) -> torch.Tensor:
    """Segmenter of 4 classes whose prediction for a pixel depends on the border of its input."""
    random = torch.Generator().manual_seed(3)
    weight = torch.randn(4, 3, 5, 5, generator=random)
    return F.conv2d(images, weight, padding=2) + images.mean(dim=(1, 2, 3), keepdim=True)


@pytest.mark.parametrize("window", [None, 31, 500])
def test_without_a_window_or_with_one_that_covers_the_image_there_is_one_forward_pass(window):
    image = torch.randn(3, 23, 31)
    predicted = predict_one(forward, image, InferenceSettings(window=window), stride=8)
    assert torch.equal(predicted, forward(image[None]).softmax(dim=1)[0])


@pytest.mark.parametrize(("window", "overlap"), [(10, 0.0), (10, 0.5), (12, 0.33), (25, 0.9), (7, 0.25)])
def test_sliding_windows_are_averaged_and_the_last_ends_with_the_image(window, overlap):
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
    predicted = predict_one(forward, image, InferenceSettings(window=window, overlap=overlap), stride=1)
    torch.testing.assert_close(predicted, total / count)
    assert count.min() > 0


def test_predictions_of_the_mirrored_image_are_mirrored_back_and_averaged():
    image = torch.randn(3, 24, 40)
    mirrored = forward(image.flip(2)[None]).softmax(dim=1)[0].flip(2)
    expected = (forward(image[None]).softmax(dim=1)[0] + mirrored) / 2
    torch.testing.assert_close(predict_one(forward, image, InferenceSettings(flip=True), stride=1), expected)


def test_scales_are_averaged_as_probabilities_at_the_size_of_the_image():
    image, predicted = torch.randn(3, 24, 40), []
    for size in ([12, 20], [24, 40], [36, 60]):
        scaled = v2.functional.resize(image, size, antialias=True)
        predicted.append(v2.functional.resize(forward(scaled[None]).softmax(dim=1)[0], [24, 40], antialias=True))
    averaged = predict_one(forward, image, InferenceSettings(scales=[0.5, 1.0, 1.5]), stride=1)
    torch.testing.assert_close(averaged, torch.stack(predicted).mean(dim=0))


def test_only_sides_below_the_models_stride_are_enlarged():
    seen = []

    def recording(images: torch.Tensor) -> torch.Tensor:
        seen.append(tuple(images.shape[2:]))
        return forward(images)

    predicted = predict_one(recording, torch.randn(3, 5, 40), InferenceSettings(window=16, overlap=0.0), stride=32)
    assert seen == [(32, 32)] * 3
    assert predicted.shape == (4, 5, 40)
    predict_one(recording, torch.randn(3, 5, 40), InferenceSettings(), stride=32)
    assert seen[3:] == [(32, 40)]


def test_all_options_together_give_probabilities():
    options = InferenceSettings(window=16, overlap=0.4, scales=[0.5, 1.3], flip=True)
    predicted = predict_one(forward, torch.randn(3, 24, 40), options, stride=8)
    torch.testing.assert_close(predicted.sum(dim=0), torch.ones(24, 40))
    assert predicted.min() >= 0


@pytest.mark.parametrize(("height", "width"), [(24, 40), (40, 24)])
def test_the_short_side_is_resized_and_the_result_brought_back(height, width):
    image = torch.randn(3, height, width)
    scaled = v2.functional.resize(image, [36], antialias=True)
    assert min(scaled.shape[1:]) == 36
    expected = v2.functional.resize(forward(scaled[None]).softmax(dim=1)[0], [height, width], antialias=True)
    torch.testing.assert_close(predict_one(forward, image, InferenceSettings(short_side=36), 1), expected)


def test_padding_is_removed_from_the_prediction():
    image, seen = torch.randn(3, 24, 40), []

    def recording(images: torch.Tensor) -> torch.Tensor:
        seen.append(images)
        return forward(images)

    predicted = predict_one(recording, image, InferenceSettings(pad_to=32), 1)
    (padded,) = seen
    assert padded.shape == (1, 3, 32, 64)
    assert torch.equal(padded[0, :, :24, :40], image)
    assert padded[0, :, 24:].abs().max() == padded[0, :, :, 40:].abs().max() == 0
    assert torch.equal(predicted, forward(padded).softmax(dim=1)[0, :, :24, :40])


def test_images_of_a_batch_are_predicted_independently():
    images, options = torch.randn(3, 3, 24, 40), InferenceSettings(window=16, flip=True)
    averaged = sliding_window.predict_pixels(forward_singly, images, options, 1)
    torch.testing.assert_close(
        averaged, torch.stack([predict_one(forward_singly, image, options, 1) for image in images])
    )


def forward_singly(images: torch.Tensor) -> torch.Tensor:
    return torch.cat([forward(image[None]) for image in images])


def test_the_logits_of_probabilities_have_them_as_their_softmax():
    probabilities = torch.randn(2, 4, 5, 6).softmax(dim=1)
    torch.testing.assert_close(sliding_window.to_logits(probabilities).softmax(dim=1), probabilities)
    assert sliding_window.to_logits(torch.tensor([0.0, 1.0])).isfinite().all()


class OneBatch:
    """Loader of one batch of two images and their masks."""

    length, skipped, bad_files = 2, 0, NONE_ALLOWED

    def __init__(self, sizes):
        self.batch = torch.randint(256, (2, 3, *sizes), dtype=torch.uint8), torch.randint(4, (2, *sizes)).byte()

    def __iter__(self):
        yield [self.batch]


@pytest.mark.parametrize(
    "inference",
    [
        InferenceSettings(),
        InferenceSettings(short_side=48, flip=True),
        InferenceSettings(window=40),
        InferenceSettings(pad_to=32),
    ],
    ids=str,
)
def test_evaluation_scores_at_the_size_of_the_labels(inference):
    model = panoptic_fpn(num_classes=4, backbone="resnet18", pyramid_channels=32, branch_channels=32).eval()
    hardware, batches = Hardware(), OneBatch((50, 70))
    parts = runner.Components(
        hardware, Segmentation(), FourClasses(), {}, model, model, Normalise(), inference=inference
    )
    predicted = evaluate(parts, batches).compute()
    images, labels = parts.move(*batches.batch)
    with torch.inference_mode():
        probabilities = sliding_window.predict_pixels(model, images, inference, model.stride)
    hits = (probabilities.argmax(dim=1) == labels).double().mean()
    assert predicted["pixel_accuracy"] == pytest.approx(float(hits), abs=1e-9)
    expected = F.nll_loss(probabilities.log(), labels)
    assert predicted["loss"] == pytest.approx(float(expected), rel=1e-5)


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
    plain = sliding_window.predict_pixels(left_and_right, image, InferenceSettings(), 1)
    flipped = sliding_window.predict_pixels(
        left_and_right, image, InferenceSettings(flip=True), 1, mirrored_labels=[(1, 2)]
    )
    torch.testing.assert_close(flipped, plain)
