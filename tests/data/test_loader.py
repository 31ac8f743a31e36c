"""The order of training samples, their augmentation, and batches of images of several sizes."""

import itertools
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from visual_transformers.data import Digits, ImageNet, MaskFolder
from visual_transformers.data.augmentation import ScaleCropFlip
from visual_transformers.data.io.bad_files import BadFiles
from visual_transformers.data.loader import (
    EvaluationBatches,
    LoaderOptions,
    SeededSamples,
    StepSampler,
    fork_seeded_rng,
    training_batches,
)
from visual_transformers.errors import DataError

LENGTH, BATCH = 10, 4
STEPS = 3
"""Steps per epoch."""


def steps(start: int = 0, stop: int = 3 * STEPS, seed: int = 0, length: int = LENGTH, batch_size: int = BATCH) -> Any:
    return list(StepSampler(length=length, batch_size=batch_size, seed=seed, start=start, stop=stop))


def indices(batches: list[list[tuple[int, int]]]) -> list[int]:
    return [index for batch in batches for _, index in batch]


# The order of samples


@pytest.mark.parametrize("epoch", [0, 1, 2])
@pytest.mark.parametrize(("length", "batch_size"), [(10, 4), (12, 4), (3, 5), (5, 1)])
def test_each_index_comes_exactly_once_an_epoch(length: int, batch_size: int, epoch: int) -> None:
    per_epoch = -(-length // batch_size)
    batches = steps(stop=3 * per_epoch, length=length, batch_size=batch_size)
    one = batches[epoch * per_epoch : (epoch + 1) * per_epoch]
    assert sorted(key for batch in one for key in batch) == [(epoch, index) for index in range(length)]


def test_the_last_batch_of_an_epoch_holds_the_remaining_samples() -> None:
    assert [len(batch) for batch in steps()] == [4, 4, 2] * 3


def test_every_epoch_has_another_order() -> None:
    orders = [tuple(indices(steps(start=epoch * STEPS, stop=(epoch + 1) * STEPS))) for epoch in range(5)]
    assert len(set(orders)) == 5


def test_every_seed_has_another_order() -> None:
    assert len({tuple(indices(steps(seed=seed, stop=STEPS))) for seed in range(5)}) == 5


def test_the_order_does_not_depend_on_global_random_states() -> None:
    first = steps()
    torch.manual_seed(5)
    np.random.seed(5)
    assert steps() == first


@pytest.mark.parametrize("start", range(3 * STEPS + 1))
def test_starting_later_gives_the_rest_of_the_sequence(start: int) -> None:
    assert steps(start=start) == steps()[start:]


def test_the_length_is_the_number_of_steps() -> None:
    assert len(StepSampler(length=LENGTH, batch_size=BATCH, seed=0, start=2, stop=7)) == 5 == len(steps(2, 7))


@pytest.mark.parametrize("world_size", [2, 3, 4])
def test_ranks_together_take_the_batches_of_one(world_size: int) -> None:
    shares = [
        list(StepSampler(length=LENGTH, batch_size=BATCH, seed=0, start=0, stop=6, rank=rank, world_size=world_size))
        for rank in range(world_size)
    ]
    for batch, of_ranks in zip(steps(stop=6), zip(*shares, strict=True), strict=True):
        assert sorted(key for share in of_ranks for key in share) == sorted(batch)


# Augmentation


class Noise:
    """Samples whose images are drawn anew at each access."""

    def __len__(self) -> int:
        return LENGTH

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return torch.rand(3, 4, 4), index


def batches(samples: Any, workers: int = 0, **options: Any) -> list[tuple[Tensor, Tensor]]:
    options = {"batch_size": BATCH, "seed": 0, "start": 0, "stop": 2 * STEPS} | options
    return list(training_batches(samples, loading=LoaderOptions(workers=workers), **options))


def images_of(found: list[tuple[Tensor, Tensor]]) -> dict[int, Tensor]:
    """Image by target, for samples whose target is their index."""
    return {int(target): image for images, targets in found for image, target in zip(images, targets, strict=True)}


def few_digits() -> Any:
    samples = Digits(image_size=16).train_set()
    samples.labels = samples.labels[:LENGTH]
    return samples


@pytest.fixture
def street(tmp_path: Path, write: Callable[..., Path], noise: Callable[..., NDArray[np.uint8]]) -> MaskFolder:
    """Images and masks, augmented together."""
    for number in range(LENGTH):
        write(tmp_path / f"train/images/{number}.png", noise(20, 24, 3))
        write(tmp_path / f"train/masks/{number}.png", noise(20, 24) % 3)
    return MaskFolder(root=str(tmp_path), class_names=["a", "b", "c"], augmentation=ScaleCropFlip(crop=16))


def equal(first: list[tuple[Tensor, Tensor]], second: list[tuple[Tensor, Tensor]]) -> bool:
    return len(first) == len(second) and all(
        torch.equal(a, b) for one, other in zip(first, second, strict=True) for a, b in zip(one, other, strict=True)
    )


def test_two_workers_give_the_digits_of_the_main_process() -> None:
    assert equal(batches(few_digits(), workers=0), batches(few_digits(), workers=2))


def test_two_workers_give_the_crops_and_masks_of_the_main_process(street: MaskFolder) -> None:
    assert equal(batches(street.train_set(), workers=0), batches(street.train_set(), workers=2))


@pytest.mark.parametrize("workers", [0, 2])
def test_starting_later_gives_the_rest_of_the_batches(workers: int) -> None:
    assert equal(batches(Noise(), workers, start=4), batches(Noise())[4:])


def test_augmentation_does_not_depend_on_the_global_random_state() -> None:
    torch.manual_seed(1)
    first = batches(Noise())
    torch.manual_seed(2)
    assert equal(first, batches(Noise()))


def test_an_augmented_image_is_the_same_in_batches_of_another_size() -> None:
    fours, tens = (images_of(batches(Noise(), batch_size=size, stop=-(-LENGTH // size))) for size in (4, 10))
    assert len(fours) == len(tens) == LENGTH
    assert all(torch.equal(fours[index], tens[index]) for index in range(LENGTH))


def test_every_sample_has_its_own_augmentation() -> None:
    images = images_of(batches(Noise(), stop=STEPS))
    assert not any(torch.equal(a, b) for a, b in itertools.combinations(images.values(), 2))


def test_every_epoch_augments_anew() -> None:
    first, second = (images_of(batches(Noise(), start=epoch * STEPS, stop=(epoch + 1) * STEPS)) for epoch in (0, 1))
    assert not any(torch.equal(first[index], second[index]) for index in range(LENGTH))


def test_every_seed_augments_differently() -> None:
    first, second = (images_of(batches(Noise(), seed=seed, stop=STEPS)) for seed in (0, 1))
    assert not any(torch.equal(first[index], second[index]) for index in range(LENGTH))


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_do_not_change_the_global_random_state(workers: int) -> None:
    before = torch.get_rng_state()
    batches(Noise(), workers)
    list(EvaluationBatches(Noise(), batch_size=BATCH, loading=LoaderOptions(workers=workers)))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU, whose random state could change")
def test_samples_do_not_change_the_random_state_of_the_gpu() -> None:
    before = torch.cuda.get_rng_state()
    SeededSamples(Noise(), seed=0)[0, 1]
    assert torch.equal(torch.cuda.get_rng_state(), before)


# Evaluation

SHAPES = [(3, 8, 6), (3, 6, 8), (3, 8, 6), (3, 5, 5), (3, 6, 8), (3, 8, 6), (3, 8, 6)]


class Sizes:
    """Images of several sizes, each filled with its index, with masks of the same size."""

    def __len__(self) -> int:
        return len(SHAPES)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return torch.full(SHAPES[index], float(index)), torch.full(SHAPES[index][1:], index)


@pytest.fixture(params=[0, 1], ids=["no worker", "one worker"])
def loading(request: pytest.FixtureRequest) -> LoaderOptions:
    return LoaderOptions(workers=request.param)


def evaluation(loading: LoaderOptions, batch_size: int = 4) -> Iterator[tuple[Tensor, Tensor]]:
    return itertools.chain.from_iterable(EvaluationBatches(Sizes(), batch_size=batch_size, loading=loading))


@pytest.mark.parametrize("batch_size", [1, 3, 4, 100])
def test_evaluation_gives_every_sample_once(batch_size: int) -> None:
    counts = Counter(int(image.mean()) for images, _ in evaluation(LoaderOptions(), batch_size) for image in images)
    assert counts == dict.fromkeys(range(len(SHAPES)), 1)


def test_evaluation_neither_pads_nor_resizes(loading: LoaderOptions) -> None:
    samples = Sizes()
    for images, masks in evaluation(loading):
        for image, mask in zip(images, masks, strict=True):
            expected_image, expected_mask = samples[int(image.flatten()[0])]
            assert torch.equal(image, expected_image)
            assert torch.equal(mask, expected_mask)


def test_evaluation_batches_only_equal_sizes_together() -> None:
    found = [sorted(int(image.mean()) for image in images) for images, _ in evaluation(LoaderOptions(), batch_size=4)]
    assert found == [[0, 2], [1], [3], [4], [5, 6]]


def test_evaluation_batches_have_the_requested_size_if_image_sizes_are_equal() -> None:
    data = EvaluationBatches(Noise(), batch_size=BATCH, loading=LoaderOptions())
    assert [len(images) for images, _ in itertools.chain.from_iterable(data)] == [4, 4, 2]


def test_evaluation_gives_the_same_a_second_time(loading: LoaderOptions) -> None:
    data = EvaluationBatches(Noise(), batch_size=BATCH, loading=loading)
    assert equal(*(list(itertools.chain.from_iterable(data)) for _ in range(2)))


def test_evaluation_knows_the_number_of_samples() -> None:
    assert EvaluationBatches(Sizes(), batch_size=4, loading=LoaderOptions()).length == len(SHAPES)


# Unusable files


@pytest.fixture
def broken(class_folders: Callable[..., Path], cut_short: Callable[[Path], None]) -> tuple[ImageNet, Path]:
    """A data set with one truncated image, and that image."""
    root = class_folders({split: {"ant": 2, "cat": 3} for split in ("train", "val")})
    cut_short(root / "train/cat/1.JPEG")
    return ImageNet(root=str(root), image_size=16), root / "train/cat/1.JPEG"


@pytest.mark.parametrize("in_training", [True, False])
def test_a_bad_file_raises_a_data_error_with_its_name(
    broken: tuple[ImageNet, Path], loading: LoaderOptions, in_training: bool
) -> None:
    data, bad = broken
    with pytest.raises(DataError) as caught:
        if in_training:
            list(training_batches(data.train_set(), batch_size=2, seed=0, start=0, stop=3, loading=loading))
        else:
            list(EvaluationBatches(data.train_set(), batch_size=2, loading=loading))
    message = str(caught.value)
    assert message.startswith(f"{bad}: ")
    assert "Traceback" not in message
    assert "\n" not in message


def training(data: ImageNet, loading: LoaderOptions, bad_files: BadFiles, stop: int = 3) -> list[tuple[Tensor, Tensor]]:
    return batches(data.train_set(), loading.workers, batch_size=2, stop=stop, bad_files=bad_files)


def test_a_skipped_bad_file_costs_only_its_own_sample(
    broken: tuple[ImageNet, Path], loading: LoaderOptions, capsys: pytest.CaptureFixture[str]
) -> None:
    data, bad = broken
    bad_files = BadFiles(5, allowed=True, max_share=0.2)
    found = training(data, loading, bad_files, stop=6)  # two epochs
    assert sum(len(images) for images, _ in found) == 2 * 4
    assert bad_files.paths == [str(bad)]
    assert capsys.readouterr().err.count(str(bad)) == 1


def test_the_other_samples_are_those_of_a_set_without_the_bad_file(broken: tuple[ImageNet, Path]) -> None:
    data, _bad = broken
    found = training(data, LoaderOptions(), BadFiles(5, allowed=True, max_share=0.2))
    with fork_seeded_rng(0, 0, 0):
        expected = data.train_set()[0]
    matches = [torch.equal(image, expected[0]) for images, _ in found for image in images]
    assert any(matches)


def test_more_bad_files_than_allowed_stop_the_run(broken: tuple[ImageNet, Path], loading: LoaderOptions) -> None:
    data, _bad = broken
    with pytest.raises(DataError, match=r"1 of 5 samples had to be skipped, more than data\.max_skipped=0\.1"):
        training(data, loading, BadFiles(5, allowed=True, max_share=0.1))


def test_a_batch_of_only_bad_files_is_none(broken: tuple[ImageNet, Path], loading: LoaderOptions) -> None:
    data, _ = broken
    options = {"batch_size": 1, "stop": 5, "bad_files": BadFiles(5, allowed=True, max_share=1.0)}
    found = batches(data.train_set(), loading.workers, **options)
    assert sorted(0 if batch is None else len(batch[0]) for batch in found) == [0, 1, 1, 1, 1]


def test_evaluation_counts_what_it_skips(broken: tuple[ImageNet, Path], loading: LoaderOptions) -> None:
    data, _ = broken
    found = EvaluationBatches(
        data.train_set(), batch_size=2, loading=loading, bad_files=BadFiles(5, allowed=True, max_share=1.0)
    )
    for _ in range(2):
        assert sum(len(images) for images, _ in itertools.chain.from_iterable(found)) == 4
        assert found.skipped == 1


class Interrupts:
    """Samples whose target is 1 if Ctrl-C in the main process's terminal would reach the process that reads them."""

    def __init__(self) -> None:
        self.group = os.getpgid(0)

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        handled = signal.getsignal(signal.SIGINT) != signal.SIG_IGN
        return torch.zeros(1), int(handled and os.getpgid(0) == self.group)


@pytest.fixture
def _handle_ctrl_c() -> Iterator[None]:
    """Handle interrupts as a program in a terminal does; a shell starts background jobs with interrupts ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_handle_ctrl_c")
@pytest.mark.parametrize(("workers", "interrupted"), [(0, [1, 1]), (1, [0, 0])])
def test_workers_leave_an_interrupt_to_the_main_process(workers: int, interrupted: list[int]) -> None:
    ((batch,),) = EvaluationBatches(Interrupts(), batch_size=2, loading=LoaderOptions(workers=workers))
    assert batch[1].tolist() == interrupted
