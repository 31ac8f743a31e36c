"""Image folders: files and classes, invalid folders, and the images that the model receives."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from visual_transformers.data import ImageNet
from visual_transformers.data.augmentation import CropAndFlip
from visual_transformers.data.dataset import ClassifiedImages
from visual_transformers.errors import DataError

TRAIN = {"dog": 3, "ant": 2, "cat": 1}
VAL = {"cat": 2, "dog": 1, "ant": 2}
GREYS = {"ant": 40, "cat": 120, "dog": 200}


@pytest.fixture
def root(class_folders: Callable[..., Path]) -> Path:
    return class_folders({"train": TRAIN, "val": VAL})


def data_set(root: Path, **options: Any) -> ImageNet:
    return ImageNet(root=str(root), **options)


def files(samples: ClassifiedImages) -> list[tuple[str, int]]:
    """List every file with its class index."""
    return [(str(path), samples.target(index)) for index, path in enumerate(samples.images)]


def compare_classes(samples: ClassifiedImages, classes: list[str]) -> list[tuple[str, str]]:
    """List for each sample the class whose grey it shows, and the class that its target names."""
    pairs = []
    for index in range(len(samples)):
        image, target = samples[index]
        grey = image.float().mean().item()
        pairs.append((min(GREYS, key=lambda name: abs(GREYS[name] - grey)), classes[target]))
    return pairs


# Files and classes


@pytest.mark.parametrize("split", ["train", "val"])
def test_files_and_targets_are_those_of_torchvisions_image_folder(root: Path, split: str) -> None:
    data, oracle = data_set(root), ImageFolder(str(root / split))
    samples = data.train_set() if split == "train" else data.val_set()
    assert data.classes == oracle.classes
    assert files(samples) == oracle.samples
    assert [samples[i][1] for i in range(len(samples))] == oracle.targets


def test_null_takes_every_class_in_sorted_order(root: Path) -> None:
    assert data_set(root, classes=None).classes == ["ant", "cat", "dog"]


def test_a_number_takes_the_first_classes_in_sorted_order(root: Path) -> None:
    data = data_set(root, classes=2)
    assert data.classes == ["ant", "cat"]
    assert (len(data.train_set()), len(data.val_set())) == (2 + 1, 2 + 2)


def test_a_list_keeps_its_own_order(root: Path) -> None:
    data = data_set(root, classes=["dog", "ant"])
    assert data.classes == ["dog", "ant"]
    assert {image_class for image_class, _ in compare_classes(data.val_set(), data.classes)} == {"dog", "ant"}


@pytest.mark.parametrize("classes", [None, 2, ["dog", "ant"], ["cat", "dog", "ant"]])
def test_every_target_names_the_class_that_the_image_shows(root: Path, classes: Any) -> None:
    data = data_set(root, classes=classes)
    pairs = [pair for samples in (data.train_set(), data.val_set()) for pair in compare_classes(samples, data.classes)]
    assert len(pairs) > 0
    assert all(image_class == target_class for image_class, target_class in pairs), pairs


@pytest.mark.parametrize("classes", [0, -1, 4, 1.5, "ant", [], ["ant", "ant"], {"ant": 0}], ids=repr)
def test_a_wrong_choice_of_classes_is_refused_by_the_settings_name(root: Path, classes: Any) -> None:
    with pytest.raises(DataError, match=r"data\.classes"):
        data_set(root, classes=classes)


def test_a_chosen_class_without_a_folder_is_named(root: Path) -> None:
    with pytest.raises(DataError, match="unicorn") as caught:
        data_set(root, classes=["ant", "unicorn"])
    assert "ant" not in str(caught.value).replace(str(root), "")


@pytest.mark.parametrize("val", [None, "named"])
@pytest.mark.parametrize("folder", ["val", "val_use", "validation", "valid", "Validation", "held-out"])
def test_the_validation_folder_may_have_any_name(
    class_folders: Callable[..., Path], folder: str, val: str | None
) -> None:
    root = class_folders({"train": TRAIN, folder: VAL, "docs": {}, "other": {"unicorn": 1}})
    (root / "images").mkdir()
    data = data_set(root, val=val and folder)
    assert data.val_set().images.root == root / folder
    assert len(data.val_set()) == sum(VAL.values())


def test_folders_below_the_root_are_found_next_to_each_other(class_folders: Callable[..., Path]) -> None:
    data = data_set(class_folders({"images/train": TRAIN, "images/valid": VAL}), train="images/train")
    assert data.val_set().images.root == Path(data.root) / "images/valid"


@pytest.mark.parametrize("other", [{"ant": 1}, VAL], ids=["fewer classes", "the same classes"])
def test_the_folder_whose_name_begins_with_val_is_preferred_to_others(
    class_folders: Callable[..., Path], other: dict[str, int]
) -> None:
    assert data_set(class_folders({"train": TRAIN, "test": other, "valid": VAL})).val_set().images.root.name == "valid"


def test_the_folder_with_all_classes_is_preferred_to_one_with_some(class_folders: Callable[..., Path]) -> None:
    root = class_folders({"train": TRAIN, "val": {"ant": 1}, "val_use": VAL})
    assert data_set(root).val_set().images.root.name == "val_use"
    with pytest.raises(DataError, match=r"several folders have the classes of train: val, val_use\. Pick .*data\.val"):
        data_set(root, classes=["ant"])


def test_several_validation_folders_are_all_named(class_folders: Callable[..., Path]) -> None:
    root = class_folders({"train": TRAIN, "val": VAL, "val_use": VAL, "test": VAL})
    with pytest.raises(DataError, match=f"^{root}: several folders .* of train: val, val_use\\. Pick .*data\\.val"):
        data_set(root)


@pytest.mark.parametrize(
    ("others", "candidates"),
    [({}, "there is none"), ({"test": {"unicorn": 1}, "a": {}}, "there are a, test")],
    ids=["none", "others"],
)
def test_no_validation_folder_is_an_error_that_lists_the_candidates(
    class_folders: Callable[..., Path], others: dict[str, dict[str, int]], candidates: str
) -> None:
    root = class_folders({"train": TRAIN, **others})
    for name in others:
        (root / name).mkdir(exist_ok=True)
    with pytest.raises(
        DataError, match=rf"^{root}: no folder next to train has its classes \({candidates}\).*data\.val"
    ):
        data_set(root)


def test_hidden_folders_are_no_classes(root: Path) -> None:
    (root / "train/.ipynb_checkpoints").mkdir()
    (root / "val/.cache").mkdir()
    assert data_set(root).classes == ["ant", "cat", "dog"]


# Names of classes

WNIDS = {"n01440764": "tench", "n02012849": "crane bird", "n03126707": "crane", "n03445777": "golf ball"}


@pytest.fixture
def wordnet_root(class_folders: Callable[..., Path]) -> Path:
    return class_folders({split: dict.fromkeys(WNIDS, 1) for split in ("train", "val")})


def test_folders_named_by_wordnet_ids_are_called_by_words(wordnet_root: Path) -> None:
    data = data_set(wordnet_root)
    assert data.classes == list(WNIDS.values())
    assert [path.parent.name for path in data.val_set().images] == list(WNIDS)
    assert [name for name, _ in data.load_val_images(4)] == [f"{name}/0" for name in WNIDS.values()]


@pytest.mark.parametrize("classes", [["golf ball", "tench"], ["n03445777", "n01440764"], ["golf ball", "n01440764"]])
def test_classes_are_chosen_by_ids_or_by_words(wordnet_root: Path, classes: list[str]) -> None:
    data = data_set(wordnet_root, classes=classes)
    assert data.classes == ["golf ball", "tench"]
    assert [path.parent.name for path in data.val_set().images] == ["n03445777", "n01440764"]


def test_an_id_and_its_words_are_the_same_class_twice(wordnet_root: Path) -> None:
    with pytest.raises(DataError, match=r"data\.classes.*twice"):
        data_set(wordnet_root, classes=["tench", "n01440764"])


def test_the_test_set_is_the_validation_set(root: Path) -> None:
    data = data_set(root)
    assert files(data.test_set()) == files(data.val_set())


# Invalid folders and files


def test_a_missing_root_shows_the_layout_that_is_expected(tmp_path: Path) -> None:
    missing = tmp_path / "nowhere"
    with pytest.raises(DataError) as caught:
        data_set(missing, val="val_use")
    message = str(caught.value)
    assert f"{missing}/train/<class>/" in message
    assert f"{missing}/val_use/<class>/" in message


@pytest.mark.parametrize("options", [{"train": "absent"}, {"val": "absent"}], ids=["train", "val"])
def test_a_missing_split_folder_is_named(root: Path, options: dict[str, str]) -> None:
    with pytest.raises(DataError, match=f"^{root}/absent: no such folder"):
        data_set(root, **options)


def test_a_training_folder_without_class_folders_is_named(class_folders: Callable[..., Path]) -> None:
    root = class_folders({"train": TRAIN, "val": VAL})
    (root / "empty").mkdir()
    with pytest.raises(DataError, match=f"{root}/empty: holds no class folders"):
        data_set(root, train="empty")


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_class_that_one_split_lacks_is_named(class_folders: Callable[..., Path], split: str) -> None:
    root = class_folders({"train": TRAIN, "val": VAL} | {split: {"ant": 1, "dog": 1}})
    with pytest.raises(DataError, match=f"^{root}/val: .*cat"):
        data_set(root)


def test_a_class_that_validation_lacks_may_be_left_out(class_folders: Callable[..., Path]) -> None:
    root = class_folders({"train": TRAIN, "val": {"ant": 1, "dog": 1}})
    assert len(data_set(root, classes=["ant", "dog"]).val_set()) == 2


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_class_folder_without_images_is_named(class_folders: Callable[..., Path], split: str) -> None:
    root = class_folders({"train": TRAIN, "val": VAL} | {split: {"ant": 1, "cat": 0, "dog": 1}})
    data = data_set(root)
    with pytest.raises(DataError, match=f"^{root}/{split}: .*cat"):
        data.train_set() if split == "train" else data.val_set()


def test_excluded_files_are_left_out(root: Path) -> None:
    (root / "bad.txt").write_text("val/cat/1.JPEG\nval/dog/0.JPEG\n")
    data = data_set(root, exclude=str(root / "bad.txt"))
    assert [f"{path.parent.name}/{path.name}" for path in data.val_set().images] == [
        "ant/0.JPEG",
        "ant/1.JPEG",
        "cat/0.JPEG",
    ]
    assert data.val_set().labels.tolist() == [0, 0, 1]
    assert len(data.train_set()) == sum(TRAIN.values())


@pytest.mark.parametrize("truncated", [True, False])
def test_a_file_that_is_no_image_is_named(root: Path, cut_short: Callable[[Path], None], truncated: bool) -> None:
    bad = root / "val/cat/1.JPEG"
    cut_short(bad) if truncated else bad.write_text("not an image")
    samples = data_set(root).val_set()
    with pytest.raises(DataError, match=str(bad)):
        [samples[i] for i in range(len(samples))]


@pytest.mark.parametrize("name", ["ant/0.JPEG", "dog/2.JPEG"], ids=["first", "last"])
def test_the_check_before_training_opens_the_first_and_the_last_image(root: Path, name: str) -> None:
    bad = root / "train" / name
    bad.write_bytes(b"")
    data = data_set(root, check_files=2)
    with pytest.raises(DataError, match=str(bad)):
        data.check(data.train_set())


def test_the_check_before_training_opens_no_more_images_than_asked(root: Path) -> None:
    (root / "train/cat/0.JPEG").write_bytes(b"")
    data = data_set(root, check_files=2)
    data.check(data.train_set())


# Images that the model receives


def test_evaluation_is_a_resize_of_the_short_side_and_a_central_crop(
    class_folders: Callable[..., Path], write: Callable[..., Path], noise: Callable[..., NDArray[np.uint8]]
) -> None:
    root = class_folders({"train": {"a": 1}, "val": {"a": 0}})
    files = [write(root / "val/a/0.png", noise(61, 90, 3)), write(root / "val/a/1.png", noise(95, 50, 3))]
    samples = data_set(root, eval_resize=40, image_size=32).val_set()
    for index, file in enumerate(files):
        image = v2.functional.pil_to_tensor(Image.open(file))
        image = v2.functional.resize(image, [40], interpolation=v2.InterpolationMode.BILINEAR, antialias=True)
        assert torch.equal(samples[index][0], v2.functional.center_crop(image, [32, 32]))


MODES = {
    "grayscale": Image.new("L", (24, 24), 77),
    "binary": Image.new("1", (24, 24), 1),
    "grayscale with alpha": Image.new("LA", (24, 24), (77, 255)),
    "palette": Image.new("RGB", (24, 24), (10, 200, 90)).quantize(4),
    "RGBA": Image.new("RGBA", (24, 24), (10, 200, 90, 255)),
}
COLOURS = {
    "grayscale": (77, 77, 77),
    "binary": (255, 255, 255),
    "grayscale with alpha": (77, 77, 77),
    "palette": (10, 200, 90),
    "RGBA": (10, 200, 90),
}


def load_only_image(root: Path) -> torch.Tensor:
    """Load the only validation image, uint8."""
    return data_set(root, eval_resize=24, image_size=24).val_set()[0][0]


@pytest.mark.parametrize("mode", MODES)
def test_an_image_of_any_mode_has_the_three_channels_of_its_colours(
    class_folders: Callable[..., Path], write: Callable[..., Path], mode: str
) -> None:
    root = class_folders({"train": {"a": 1}, "val": {"a": 0}})
    write(root / "val/a/0.png", MODES[mode])
    assert torch.equal(
        load_only_image(root), torch.tensor(COLOURS[mode], dtype=torch.uint8)[:, None, None].expand(3, 24, 24)
    )


def test_a_cmyk_image_has_the_three_channels_of_its_colours(
    class_folders: Callable[..., Path], write: Callable[..., Path]
) -> None:
    root = class_folders({"train": {"a": 1}, "val": {"a": 0}})
    write(root / "val/a/0.jpg", Image.new("CMYK", (24, 24), (0, 255, 255, 0)), quality=95)  # full magenta and yellow
    image = load_only_image(root).float()
    assert image.shape == (3, 24, 24)
    assert (image - torch.tensor([255.0, 0.0, 0.0])[:, None, None]).abs().max() <= 4


def test_training_images_are_new_crops_of_the_asked_size(
    class_folders: Callable[..., Path], write: Callable[..., Path], noise: Callable[..., NDArray[np.uint8]]
) -> None:
    root = class_folders({"train": {"a": 0}, "val": {"a": 1}})
    write(root / "train/a/0.png", noise(40, 50, 3))
    samples = data_set(root, image_size=20).train_set()
    first, second = samples[0][0], samples[0][0]
    assert first.shape == second.shape == (3, 20, 20)
    assert not torch.equal(first, second)


@pytest.mark.parametrize(("flip", "sides"), [(True, {"as it is", "mirrored"}), (False, {"as it is"})])
def test_training_images_are_mirrored_only_if_flip_is_set(
    class_folders: Callable[..., Path], write: Callable[..., Path], flip: bool, sides: set[str]
) -> None:
    root = class_folders({"train": {"a": 0}, "val": {"a": 1}})
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[:, :16] = 255
    write(root / "train/a/0.png", pixels)
    whole = CropAndFlip(min_area=1.0, flip=flip)
    samples = data_set(root, image_size=32, augmentation=whole).train_set()
    images = {"as it is" if samples[0][0][0, 16, 0] > samples[0][0][0, 16, -1] else "mirrored" for _ in range(20)}
    assert images == sides
