"""Look into Person: its layout, its labels, and the swap of left and right labels in mirrored images."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from visual_transformers.config.instantiate import build
from visual_transformers.config.validation import validate
from visual_transformers.data import Lip
from visual_transformers.data.augmentation import ScaleCropFlip
from visual_transformers.errors import BadFileError, DataError

Labels = NDArray[np.uint8]


@pytest.fixture
def lip(tmp_path: Path, write: Callable[..., Path], noise: Callable[..., Labels]) -> Callable[..., Lip]:
    """`lip({name: labels}, ...)` writes the same images as both splits, in the published layout."""

    def make(masks: dict[str, Labels], **options: Any) -> Lip:
        for split in ("train", "val"):
            (tmp_path / f"{split}_id.txt").write_text("".join(f"{name}\n" for name in masks))
            for name, labels in masks.items():
                write(tmp_path / f"TrainVal_images/{split}_images/{name}.jpg", noise(*labels.shape, 3))
                write(tmp_path / f"TrainVal_parsing_annotations/{split}_segmentations/{name}.png", labels)
        return Lip(root=str(tmp_path), **options)

    return make


@pytest.fixture
def everything() -> Labels:
    """Mask with labels 0 to 19 from left to right, three pixels each."""
    return np.tile(np.repeat(np.arange(20, dtype=np.uint8), 3), (4, 1))


def test_the_classes_are_those_of_the_published_list(shared_data: Path) -> None:
    lines = (shared_data / "labels/lip_labels.txt").read_text().splitlines()
    assert Lip.classes_from_settings({}) == [line.split(": ")[1] for line in lines]


def test_targets_are_the_labels_of_the_masks(lip: Callable[..., Lip], everything: Labels) -> None:
    everything[0, 0] = 255
    assert np.array_equal(lip({"77_471474": everything}).val_set()[0][1].numpy(), everything)


def test_images_come_in_the_order_of_the_list(lip: Callable[..., Lip], everything: Labels, tmp_path: Path) -> None:
    data = lip({"b_2": everything, "a_1": everything, "c_3": everything})
    (tmp_path / "val_id.txt").write_text("c_3\r\n\r\nb_2")
    assert [path.stem for path in data.train_set().images] == ["b_2", "a_1", "c_3"]
    assert [path.stem for path in data.val_set().images] == ["c_3", "b_2"]
    assert list(data.test_set().images) == list(data.val_set().images)


def test_the_mirrored_labels_are_all_that_have_a_left_and_a_right() -> None:
    pairs = {(Lip.NAMES[one], Lip.NAMES[other]) for one, other in Lip.mirrored_labels}
    assert pairs == {(name, name.replace("Left", "Right")) for name in Lip.NAMES if name.startswith("Left")}
    assert len(pairs) == 3


def test_a_mirrored_training_image_has_left_for_right(lip: Callable[..., Lip], everything: Labels) -> None:
    """Unmirrored, pixel x has the label x // 3; mirrored, that of the other side."""
    as_it_is = ScaleCropFlip(crop=60, min_scale=1.0, max_scale=1.0)
    samples = lip({"1": everything}, augmentation=as_it_is).train_set()
    swapped = torch.tensor([*range(14), 15, 14, 17, 16, 19, 18])
    plain = torch.arange(20).repeat_interleave(3)
    expected = {tuple(plain.tolist()), tuple(swapped[plain.flip(0)].tolist())}
    masks = [samples[0][1] for _ in range(20)]
    assert {tuple(labels[(labels != 255).all(dim=1)][0].tolist()) for labels in masks} == expected


# The paper's recipe


def test_its_configuration_is_the_papers_and_takes_photographs_of_any_shape(
    lip: Callable[..., Lip], everything: Labels, composed: Callable[..., Any], tmp_path: Path
) -> None:
    lip({"1": everything, "2": np.zeros((90, 31), np.uint8)})
    data = build(validate(composed("task=segmentation", "data=lip", f"data.root={tmp_path}")).data, "data")
    assert data.batch_size == 96
    assert [tuple(data.train_set()[i][0].shape) for i in range(2)] == [(3, 473, 473)] * 2


# Invalid data


def test_a_missing_folder_shows_the_layout(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere: no such folder; expected the layout") as caught:
        Lip(root=str(tmp_path / "nowhere"))
    assert "nowhere/TrainVal_parsing_annotations/val_segmentations/NAME.png" in str(caught.value)


def test_a_missing_list_shows_the_layout(lip: Callable[..., Lip], everything: Labels, tmp_path: Path) -> None:
    data = lip({"1": everything})
    (tmp_path / "val_id.txt").unlink()
    with pytest.raises(DataError, match=r"val_id.txt: no such file; expected the layout\n(.|\n)*val_images/NAME.jpg"):
        data.val_set()


def test_an_empty_list_is_named(lip: Callable[..., Lip], everything: Labels, tmp_path: Path) -> None:
    data = lip({"1": everything})
    (tmp_path / "val_id.txt").write_text("\n")
    with pytest.raises(DataError, match=r"val_id.txt: names no images"):
        data.val_set()


@pytest.mark.parametrize(
    "missing", ["TrainVal_images/val_images/2.jpg", "TrainVal_parsing_annotations/val_segmentations/2.png"]
)
def test_a_missing_file_is_named(lip: Callable[..., Lip], everything: Labels, tmp_path: Path, missing: str) -> None:
    data = lip({"1": everything, "2": everything})
    (tmp_path / missing).unlink()
    with pytest.raises(DataError, match=rf"1 of (the 2 images .*val_id.txt names|2 images have no mask).*{missing}"):
        data.val_set()


def test_labels_of_another_data_set_are_named(lip: Callable[..., Lip]) -> None:
    samples = lip({"1": np.array([[0, 19, 20, 58]], np.uint8)}).val_set()
    with pytest.raises(BadFileError, match=r"1.png: labels \[20, 58\] are out of range.*0 to 19.*data=mask_folder"):
        samples[0]


# Real photographs in this layout, with other labels


@pytest.fixture
def clothes(shared_data: Path) -> Lip:
    labels = (shared_data / "ccp_lip/labels.txt").read_text().splitlines()

    class Clothes(Lip):
        NAMES = tuple(label.split(": ")[1] for label in labels)
        mirrored_labels = ()

    return Clothes(root=str(shared_data / "ccp_lip"))


def test_real_photographs_have_their_stored_labels(clothes: Lip) -> None:
    train, val = clothes.train_set(), clothes.val_set()
    assert (len(train), len(val)) == (120, 40)
    for index in (0, 39):
        image, labels = val[index]
        assert image.shape[1:] == labels.shape
        assert np.array_equal(labels.numpy(), np.array(Image.open(val.masks.origin(index))))


def test_the_labels_of_other_clothes_are_found_before_training(shared_data: Path) -> None:
    data = Lip(root=str(shared_data / "ccp_lip"))
    with pytest.raises(BadFileError, match="are out of range"):
        data.check(data.train_set())
