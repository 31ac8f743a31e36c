"""What must hold of any input: a right result, or one sentence that names the file or the key.

`test_properties.py` tries each property on a few inputs, `fuzz.py` on as many as a given time allows.
"""

from __future__ import annotations

import io
import json
import os
import tempfile
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra import compose, initialize_config_module
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from omegaconf import DictConfig, ListConfig, OmegaConf
from PIL import Image, ImageOps
from safetensors.torch import save_file

from visual_transformers.checkpoints import weights
from visual_transformers.config.typed_text import as_hydra_reads
from visual_transformers.config.validation import validate
from visual_transformers.data import ImageFolder, MaskFolder
from visual_transformers.data.dataset import ClassifiedImages
from visual_transformers.data.io.file_index import FileIndex
from visual_transformers.data.io.file_names import is_system_entry
from visual_transformers.data.io.files import read_mask
from visual_transformers.data.io.images import EncodedImage, read_image
from visual_transformers.data.io.reading import Reading
from visual_transformers.data.io.text_lists import read_lines
from visual_transformers.data.segmentation.coco.labels import class_indices
from visual_transformers.data.segmentation.coco.stuff_json import read as read_regions
from visual_transformers.errors import BadFileError, ConfigError, DataError, UserError, WeightsError
from visual_transformers.models import resnet18
from visual_transformers.modes.check_data.inspection import inspect_sample

PROPERTIES: dict[str, Callable[[], None]] = {}


def holds(function: Callable[[], None]) -> Callable[[], None]:
    """Register a property by its name."""
    PROPERTIES[function.__name__] = function
    return function


@contextmanager
def folder() -> Iterator[Path]:
    """An empty folder."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@contextmanager
def file(name: str, content: bytes) -> Iterator[Path]:
    """A file of that content, in a folder of its own."""
    with folder() as place:
        path = place / name
        path.write_bytes(content)
        yield path


def said_of(error: UserError, path: Path) -> None:
    """A message names the file, and is a sentence."""
    assert path.name in str(error) or str(path) in str(error), str(error)
    assert "Traceback" not in str(error)


# Images

MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "LAB", "I", "F", "I;16")
FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "GIF", "BMP", "PPM", "TGA", "JPEG2000", "AVIF")


@st.composite
def images(draw: Callable[..., Any]) -> tuple[str, bytes, Image.Image]:
    """An image in some format: its ending, the file's content, and the image that was saved."""
    width, height = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    mode, kind = draw(st.sampled_from(MODES)), draw(st.sampled_from(FORMATS))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    if mode in ("I", "F", "I;16"):
        top = draw(st.sampled_from([1, 255, 1023, 4095, 65535, 10**6 if mode != "I;16" else 65535]))
        values = random.random((height, width)) * top
        kinds = {"I": np.int32, "F": np.float32, "I;16": np.uint16}
        image = Image.fromarray(values.astype(kinds[mode]))
    else:
        image = Image.fromarray(random.integers(0, 256, (height, width, 4), np.uint8), "RGBA")
        image = image.convert("RGB").convert(mode) if mode in ("LAB", "HSV", "YCbCr", "CMYK") else image.convert(mode)
    options: dict[str, Any] = {}
    if draw(st.booleans()):
        exif = Image.Exif()
        exif[0x0112] = draw(st.integers(0, 9))
        options["exif"] = exif
    if mode in ("L", "RGB", "P") and draw(st.booleans()):
        options["transparency"] = {"L": 7, "RGB": (1, 2, 3), "P": 0}[mode]
    content = io.BytesIO()
    try:
        image.save(content, kind, **options)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, AttributeError):  # not all formats have all modes
        assume(False)
    suffix = {"JPEG": ".jpg", "TIFF": ".tif", "JPEG2000": ".jp2"}.get(kind, f".{kind.lower()}")
    return suffix, content.getvalue(), image


def verdict(read: Callable[[], Any], path: Path) -> Any:
    """What a reader makes of a file, or the class of its refusal."""
    try:
        return read()
    except BadFileError as error:
        said_of(error, path)
        return None


def agree(path: Path) -> NDArray[np.uint8] | None:
    """What all readers make of a file: training, prediction and `mode=check_data`."""
    trained = verdict(lambda: EncodedImage(path).whole().permute(1, 2, 0).numpy(), path)
    predicted = verdict(lambda: np.asarray(read_image(path, Reading())[0]), path)
    assert (trained is None) == (predicted is None)
    found = inspect_sample(
        ClassifiedImages(FileIndex(path.parent, [path.name]), np.zeros(1, np.int32), lambda image: image.whole()), 0
    )
    if trained is None:
        assert found.faults
        return None
    assert np.array_equal(trained, predicted)
    assert trained.dtype == np.uint8
    assert trained.ndim == 3
    assert trained.shape[2] == 3
    if not found.faults:  # it is stricter
        assert found.picture is not None
        assert found.picture.size == (trained.shape[1], trained.shape[0])
    return trained


@holds
@given(images())
def any_image_is_read_alike_by_all_or_refused_by_all(drawn: tuple[str, bytes, Image.Image]) -> None:
    suffix, content, image = drawn
    with file(f"image{suffix}", content) as path:
        found = agree(path)
        if image.mode in ("1", "L", "RGB", "P", "RGBA", "LA", "CMYK", "YCbCr"):
            assert found is not None
        if found is not None:
            upright = ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
            assert found.shape[:2] == (upright.height, upright.width)
            assert EncodedImage(path).height == upright.height


@holds
@given(images(), st.data())
def a_damaged_image_is_read_or_refused_alike(drawn: tuple[str, bytes, Image.Image], data: st.DataObject) -> None:
    suffix, content, _ = drawn
    with file(f"image{suffix}", damaged(content, data)) as path:
        agree(path)


def damaged(content: bytes, data: st.DataObject) -> bytes:
    """A file cut short, with bytes changed, or with some taken out."""
    place = data.draw(st.integers(0, max(0, len(content) - 1)))
    match data.draw(st.sampled_from(["cut", "changed", "taken out", "added"])):
        case "cut":
            return content[:place]
        case "changed":
            changed = bytearray(content)
            for _ in range(data.draw(st.integers(1, 8))):
                changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
            return bytes(changed)
        case "taken out":
            return content[:place] + content[place + data.draw(st.integers(1, 16)) :]
        case _:
            return content[:place] + data.draw(st.binary(min_size=1, max_size=16)) + content[place:]


@holds
@given(images(), st.data())
def a_crop_is_a_part_of_the_whole(drawn: tuple[str, bytes, Image.Image], data: st.DataObject) -> None:
    suffix, content, _ = drawn
    with file(f"image{suffix}", content) as path:
        whole = verdict(lambda: EncodedImage(path).whole(), path)
        if whole is None:
            return
        _, height, width = whole.shape
        top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
        rows, columns = data.draw(st.integers(1, height - top)), data.draw(st.integers(1, width - left))
        crop = EncodedImage(path).crop(top, left, rows, columns, (rows, columns))
        assert torch.equal(crop, whole[:, top : top + rows, left : left + columns])


@holds
@given(images())
def a_mask_is_its_stored_values_or_refused(drawn: tuple[str, bytes, Image.Image]) -> None:
    suffix, content, image = drawn
    with file(f"mask{suffix}", content) as path:
        found = verdict(lambda: read_mask(path), path)
        if found is not None:
            assert found.dtype == np.uint8
            assert found.shape == (image.height, image.width) or suffix == ".tif"  # which Pillow turns
            if image.mode in ("L", "P") and suffix == ".png":
                assert np.array_equal(found, np.asarray(image))
        if suffix in (".jpg", ".webp", ".avif"):
            assert found is None


# Names and lists

LETTERS = st.characters(blacklist_categories=["Cs", "Cc"], blacklist_characters="/\0")
NAMES = st.text(LETTERS, min_size=1, max_size=12).filter(
    lambda name: name not in (".", "..") and len(name.encode()) < 200
)
FORMS = st.sampled_from(["NFC", "NFD"])


def same(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def picture(path: Path, values: Any = 99) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((4, 4, 3), values, np.uint8)).save(path, "PNG")


@holds
@given(st.lists(NAMES, min_size=2, max_size=4, unique_by=same), FORMS, FORMS)
def classes_of_any_names_are_found_in_both_splits(names: list[str], train: str, val: str) -> None:
    with folder() as root:
        for form, split in ((train, "train"), (val, "val")):
            for name in names:
                picture(root / split / unicodedata.normalize(form, name) / "1.png")
        shown = {same(name) for name in names if not is_system_entry(name)}
        try:
            data = ImageFolder(root=str(root), image_size=4, eval_resize=4)
        except DataError as error:
            said_of(error, root)
            assert (
                len(shown) < 2
                or {name.lower() for name in shown} <= {"train", "val", "test", "dev", "valid"}
                or not shown
            )
            return
        assert len(data.classes) == len(shown)
        assert len(data.train_set()) == len(data.val_set()) == len(shown)


@holds
@given(st.lists(NAMES, min_size=1, max_size=4, unique_by=lambda name: same(name).lower()), FORMS, FORMS)
def masks_of_any_names_are_paired(names: list[str], image: str, mask: str) -> None:
    with folder() as root:
        for name in names:
            picture(root / "train/images" / f"{unicodedata.normalize(image, name)}.png")
            place = root / "train/masks" / f"{unicodedata.normalize(mask, name)}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.eye(4, dtype=np.uint8)).save(place)
        shown = [name for name in names if not is_system_entry(f"{name}.png")]
        data = MaskFolder(root=str(root), class_names=["a", "b"])
        try:
            samples = data.train_set()
        except DataError as error:
            said_of(error, root)
            assert not shown
            return
        assert len(samples) == len(shown)
        data.check(samples)


@holds
@given(st.binary(max_size=200))
def any_bytes_are_a_list_or_refused(content: bytes) -> None:
    with file("list.txt", content) as path:
        try:
            found = read_lines(path)
        except DataError as error:
            said_of(error, path)
        else:
            assert all("\n" not in line for line in found)


@holds
@given(
    st.lists(st.text(LETTERS, min_size=1).map(str.strip).filter(bool), min_size=1),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32"]),
    st.sampled_from(["\n", "\r\n"]),
)
def a_list_is_read_in_every_unicode_encoding(names: list[str], encoding: str, newline: str) -> None:
    with folder() as place:
        path = place / "list.txt"
        content = newline.join(names).encode(encoding)
        assume(encoding != "utf-8" or not content.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")))
        path.write_bytes(content)
        assert read_lines(path) == names


# COCO's annotations

NUMBERS = st.one_of(st.integers(-10, 100), st.floats(), st.none(), st.booleans(), st.text(max_size=2))
POLYGONS = st.lists(st.lists(NUMBERS, max_size=8) | NUMBERS, max_size=3)
RUNS = st.fixed_dictionaries(
    {
        "size": st.just([8, 6]) | st.lists(NUMBERS, max_size=3),
        "counts": st.text(max_size=8) | st.lists(NUMBERS, max_size=6),
    }
)


@holds
@given(st.one_of(POLYGONS, RUNS, NUMBERS))
def any_region_is_drawn_or_refused_by_its_annotation(region: Any) -> None:
    with folder() as place:
        picture(place / "images/000000000001.png")
        path = place / "stuff.json"
        image = {"id": 1, "file_name": "000000000001.png", "height": 8, "width": 6}
        entry = {"id": 17, "image_id": 1, "category_id": 92, "segmentation": region}
        path.write_text(json.dumps({"images": [image], "annotations": [entry]}))
        try:
            _, masks = read_regions(path, place / "images", class_indices("stuff"), "")
            labels = masks.labels(0)
        except DataError as error:
            said_of(error, path)
            assert "17" in str(error) or "#1" in str(error)
        else:
            assert labels.shape == (8, 6)


# Configurations


def _everything() -> DictConfig:
    with initialize_config_module("visual_transformers.conf", version_base="1.3"):
        return compose("config", ["name=fuzz", "data=image_folder", "data.root=x", "logger=[files,wandb,tensorboard]"])


def _keys(node: Any, path: str = "") -> Iterator[str]:
    for key in node:
        value = OmegaConf.select(node, str(key), throw_on_missing=False)
        inner = f"{path}{key}"
        if isinstance(value, DictConfig) and len(value):
            yield from _keys(value, f"{inner}.")
        elif not inner.startswith("hydra."):
            yield inner


EVERYTHING = _everything()
KEYS = sorted(_keys(EVERYTHING))
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 10),
    st.integers(),
    st.floats(),
    st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), max_size=8),
    st.lists(st.one_of(st.integers(-3, 300), st.floats(), st.text(max_size=3), st.none()), max_size=3),
    st.dictionaries(
        st.text("abc", min_size=1, max_size=3), st.one_of(st.integers(), st.floats(), st.text(max_size=3)), max_size=2
    ),
)


def _without_interpolations(value: Any) -> Any:
    """Take the brace off `${`, which OmegaConf refuses before a configuration is composed."""
    if isinstance(value, list):
        return [_without_interpolations(inner) for inner in value]
    if isinstance(value, dict):
        return {key: _without_interpolations(inner) for key, inner in value.items()}
    return value.replace("${", "$") if isinstance(value, str) else value


@holds
@given(st.sampled_from(KEYS), VALUES)
def any_value_of_any_key_is_taken_or_refused_by_the_key(key: str, value: Any) -> None:
    cfg = EVERYTHING.copy()
    value = _without_interpolations(value)
    OmegaConf.update(cfg, key, value, merge=False)
    try:
        config = validate(cfg)
    except ConfigError as error:
        beginnings = {key, key.split(".")[0], *(key.rsplit(".", n)[0] for n in range(1, 4))}
        assert any(part in str(error) for part in beginnings), str(error)
        return
    found = OmegaConf.select(OmegaConf.create(config.everything), key)
    if isinstance(value, bool | int | str) and type(found) is type(value):
        assert found == value
    assert not isinstance(found, DictConfig | ListConfig) or isinstance(value, dict | list)


@holds
@given(
    st.sampled_from([key for key in KEYS if "." in key]),
    st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), min_size=1),
)
def any_typed_text_is_read_by_hydra_or_is_its_syntax(key: str, typed: str) -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    for sweeps in (False, True):
        OverridesParser.create().parse_override(as_hydra_reads(f"{key}={typed}", sweeps=sweeps))


# Weight files

MODEL = resnet18(num_classes=3, stem_stride=1)
TENSORS = {
    name: tensor.contiguous()
    for name, tensor in MODEL.state_dict().items()
    if "layer" not in name or "layer1.0" in name
}


def _files() -> dict[str, bytes]:
    """A small file of each format."""
    config = {"name": "run", "task": {"_target_": "t"}, "model": {"_target_": "m"}, "data": {"_target_": "d"}}
    about = {"classes": ["a", "b", "c"], "config": config}
    small = {name: tensor for name, tensor in TENSORS.items() if tensor.numel() < 5_000}
    made = {}
    with folder() as place:
        save_file(small, place / "a.safetensors", {key: json.dumps(value) for key, value in about.items()})
        torch.save({"model": small, **about}, place / "new.pt")
        torch.save({"model": small, **about}, place / "old.pt", _use_new_zipfile_serialization=False)
        for path in place.iterdir():
            made[path.name] = path.read_bytes()
    return made


FILES = _files()


@holds
@given(st.sampled_from(sorted(FILES)), st.data())
def a_damaged_weight_file_is_read_or_refused(name: str, data: st.DataObject) -> None:
    with file(name, damaged(FILES[name], data)) as path:
        for read in (weights.read_metadata, weights.read):
            try:
                read(path)
            except WeightsError as error:
                said_of(error, path)
        left = [found for found in os.listdir(path.parent) if found != name]  # noqa: PTH208
        assert not left


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=10,
)
GROUPS = st.fixed_dictionaries(
    {"name": st.text(max_size=8)},
    optional={
        group: st.fixed_dictionaries(
            {"_target_": st.text(max_size=8)}, optional={"weights": JSON, "augmentation": JSON}
        )
        for group in ("task", "model", "data", "inference")
    },
)


@holds
@given(JSON | GROUPS, JSON)
def any_metadata_are_settings_or_nothing(config: Any, classes: Any) -> None:
    with folder() as place:
        path = place / "a.safetensors"
        save_file(
            {"a": torch.zeros(1)}, path, {"config": json.dumps(config), "classes": json.dumps(classes), "best": "["}
        )
        about = weights.read_metadata(path)
        assert set(about) <= {"config", "classes", "best"}
        assert all(isinstance(name, str) for name in about.get("classes", []))
