"""Inspection of single samples, and statistics of many."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from numpy.typing import NDArray
from PIL import ExifTags, Image

from visual_transformers.data.dataset import ClassifiedImages
from visual_transformers.data.io.file_index import FileIndex
from visual_transformers.data.io.reading import Note
from visual_transformers.modes.check_data.inspection import BAD_IMAGE, Inspection, inspect_sample
from visual_transformers.modes.check_data.statistics import Statistics, compute_mean_and_std, group_equal_images

Noise = Callable[..., NDArray[np.uint8]]


def inspect(path: Path) -> Inspection:
    return inspect_sample(
        ClassifiedImages(FileIndex(path.parent, [path.name]), np.zeros(1, np.int32), lambda image: image), 0
    )


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "no image": lambda content: b"<html>404</html>",
    "head alone": lambda content: content[:100],
    "half": lambda content: content[: len(content) // 2],
    "end missing": lambda content: content[:-30],
}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_a_fault_of_the_file(tmp_path: Path, noise: Noise, kind: str, damage: str) -> None:
    path = tmp_path / "image"
    path.write_bytes(DAMAGE[damage](encoded(Image.fromarray(noise(60, 60, 3)), kind)))
    found = inspect(path)
    assert [(fault.kind, fault.file) for fault in found.faults] == [(BAD_IMAGE, str(path))]
    assert found.notes == Note.UNUSABLE


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_that_libjpeg_reads_with_a_warning_is_damaged(
    tmp_path: Path, noise: Noise, mode: str, progressive: bool
) -> None:
    content = encoded(Image.fromarray(noise(60, 60, 3)).convert(mode), "JPEG", progressive=progressive)
    path = tmp_path / "image.jpg"
    path.write_bytes(content[:-2] + b"stray" * 20 + content[-2:])
    Image.open(path).load()  # Pillow says nothing
    [fault] = inspect(path).faults
    assert "extraneous bytes" in fault.problem


def test_a_jpeg_that_only_pillow_can_read_is_no_fault(tmp_path: Path, noise: Noise) -> None:
    path = tmp_path / "image.jpg"
    path.write_bytes(encoded(Image.fromarray(noise(60, 60, 3)).convert("CMYK"), "JPEG", subsampling=2))
    with pytest.raises(ValueError, match="subsampling"):
        simplejpeg.decode_jpeg(path.read_bytes())
    found = inspect(path)
    assert (found.notes, found.faults) == (Note.CMYK, [])


@pytest.mark.parametrize(
    ("kind", "mode", "note"),
    [
        ("JPEG", "RGB", Note.NONE),
        ("JPEG", "L", Note.GRAYSCALE),
        ("JPEG", "CMYK", Note.CMYK),
        ("TIFF", "CMYK", Note.CMYK),
        ("PNG", "RGBA", Note.NONE),
        ("PNG", "P", Note.NONE),
        ("PNG", "L", Note.GRAYSCALE),
        ("PNG", "LA", Note.GRAYSCALE),
        ("PNG", "1", Note.GRAYSCALE),
        ("PNG", "I;16", Note.GRAYSCALE | Note.DEEP),
    ],
)
def test_unusual_modes_are_notes(tmp_path: Path, noise: Noise, kind: str, mode: str, note: Note) -> None:
    path = tmp_path / "image"
    picture = Image.fromarray(noise(9, 7, 3))
    path.write_bytes(encoded(Image.new(mode, (7, 9), 9990) if mode == "I;16" else picture.convert(mode), kind))
    found = inspect(path)
    assert (found.notes, found.faults) == (note, [])


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("orientation", [None, 1, 3, 6, 8])
def test_an_exif_rotation_is_a_note(tmp_path: Path, noise: Noise, kind: str, orientation: int | None) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "a camera"
    if orientation:
        exif[ExifTags.Base.Orientation] = orientation
    path = tmp_path / "image"
    path.write_bytes(encoded(Image.fromarray(noise(9, 7, 3)), kind, exif=exif))
    notes = {3: Note.TURNED | Note.HALF_TURNED, 6: Note.TURNED, 8: Note.TURNED}
    assert inspect(path).notes == notes.get(orientation, Note.NONE)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_damaged_metadata_are_no_fault(tmp_path: Path, noise: Noise) -> None:
    path = tmp_path / "image.jpg"
    path.write_bytes(encoded(Image.fromarray(noise(9, 7, 3)), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\x7f"))
    found = inspect(path)
    assert (found.notes, found.faults) == (Note.NONE, [])


def findings(*digests: bytes, unusable: tuple[int, ...] = ()) -> Statistics:
    found = Statistics(len(digests), classes=1)
    for place, digest in enumerate(digests):
        found.add_sample(Inspection(digest=digest.ljust(16), notes=Note.UNUSABLE if place in unusable else Note.NONE))
    return found


def test_equal_images_are_grouped_over_all_parts_and_unusable_ones_left_out() -> None:
    parts = [findings(b"b", b"a", b"b", b"c"), findings(b"a", b"d", b"c", unusable=(2,)), findings(b"b")]
    assert list(group_equal_images(parts)) == [[(0, 0), (0, 2), (2, 0)], [(0, 1), (1, 0)]]


@pytest.mark.parametrize("parts", [[findings()], [findings(), findings(b"a")], [findings(b"a", b"a", unusable=(0, 1))]])
def test_without_equal_images_there_are_no_groups(parts: list[Statistics]) -> None:
    assert list(group_equal_images(parts)) == []


def test_mean_and_deviation_are_those_of_numpy_and_of_nothing_nan(noise: Noise) -> None:
    pixels = noise(3, 1000) // 2 + 60
    values = np.stack([np.bincount(channel, minlength=256) for channel in pixels])
    mean, deviation = compute_mean_and_std(values)
    assert mean == pytest.approx((pixels / 255).mean(axis=1))
    assert deviation == pytest.approx((pixels / 255).std(axis=1))
    assert np.isnan(compute_mean_and_std(np.zeros((3, 256), np.int64))).all()


def test_sums_of_a_whole_imagenet_are_exact() -> None:
    values = np.zeros((3, 256), np.int64)
    values[:, 254], values[:, 255] = 2**46, 2**46  # 140 million million pixels
    mean, deviation = compute_mean_and_std(values)
    assert mean == [254.5 / 255] * 3
    assert deviation == [0.5 / 255] * 3
