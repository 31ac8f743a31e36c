"""Conversion of files to pixels: orientation, transparency, bit depth and size limit."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps, PngImagePlugin

from visual_transformers.data.io.files import IMAGE_SUFFIXES
from visual_transformers.data.io.images import EncodedImage, read_image
from visual_transformers.data.io.reading import Note, Reading
from visual_transformers.data.normalization import build_centre_crop
from visual_transformers.errors import BadFileError, DataError

RAMP = np.arange(24 * 16 * 3, dtype=np.uint8).reshape(16, 24, 3)


def photo(folder: Path, orientation: int | None, suffix: str = ".jpg") -> Path:
    """Save four different grey fields with an EXIF orientation."""
    path = folder / f"photo-{orientation}{suffix}"
    fields = np.kron(np.array([[20, 90], [160, 240]], np.uint8), np.ones((24, 40), np.uint8))
    exif = Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    Image.fromarray(fields).convert("RGB").save(path, exif=exif, quality=95)
    return path


@pytest.mark.parametrize("orientation", [None, 1, 2, 3, 4, 5, 6, 7, 8])
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
def test_an_image_is_turned_as_by_pillow(tmp_path, orientation, suffix):
    path = photo(tmp_path, orientation, suffix)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(path)).convert("RGB"))
    encoded = EncodedImage(path)
    assert (encoded.height, encoded.width) == expected.shape[:2]
    pixels = encoded.whole().permute(1, 2, 0).numpy()
    assert np.abs(pixels.astype(int) - expected).max() <= 2
    assert np.array_equal(np.asarray(read_image(path, Reading())[0]), pixels)


@pytest.mark.parametrize("orientation", [2, 3, 4, 5, 6, 7, 8])
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1)])
def test_an_image_of_a_single_row_or_column_is_turned(tmp_path, orientation, size):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", size, (1, 2, 3)).save(tmp_path / "thin.png", exif=exif)
    encoded = EncodedImage(tmp_path / "thin.png")
    assert tuple(encoded.whole().shape) == (3, encoded.height, encoded.width)


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_an_image_can_be_used_as_stored(tmp_path, orientation):
    path = photo(tmp_path, orientation)
    pixels = EncodedImage(path, Reading(upright=False)).whole().permute(1, 2, 0).numpy()
    assert pixels.shape[:2] == (48, 80)
    assert abs(int(pixels[2, 2, 0]) - 20) <= 2


@pytest.mark.parametrize("orientation", [1, 5, 6, 7, 8])
def test_a_crop_is_that_of_the_upright_image_even_if_decoded_smaller(tmp_path, orientation):
    path = tmp_path / "large.jpg"
    y, x = np.mgrid[:480, :640]
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.stack([x / 3, y / 2, (x + y) / 5], axis=2).astype(np.uint8)).save(path, exif=exif, quality=95)
    upright = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
    box = (60, 80, 380, 440)
    expected = np.asarray(upright.crop(box).resize((64, 72), Image.Resampling.BILINEAR)).astype(int)
    crop = EncodedImage(path).crop(box[1], box[0], 360, 320, (72, 64)).permute(1, 2, 0).numpy()
    assert np.abs(crop - expected).mean() < 1.5


@pytest.mark.parametrize(("orientation", "note"), [(1, 0), (3, Note.HALF_TURNED), (2, Note.HALF_TURNED), (6, 0)])
def test_a_turn_that_keeps_the_size_is_noted(tmp_path, orientation, note):
    notes = EncodedImage(photo(tmp_path, orientation)).notes
    assert notes & Note.HALF_TURNED == note
    assert bool(notes & Note.TURNED) == (orientation != 1)


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_unreadable_exif_turns_nothing_and_is_noted(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    Image.new("RGB", (8, 6)).save(path, exif=b"Exif\0\0garbagegarbage")
    encoded = EncodedImage(path)
    assert (encoded.height, encoded.width) == (6, 8)
    assert Note.BAD_EXIF in encoded.notes


# Transparency


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "P", "RGB", "L"])
@pytest.mark.parametrize(("background", "ground"), [("white", 255), ("black", 0), ("#808080", 128)])
def test_transparent_pixels_show_the_background(tmp_path, mode, background, ground):
    """A black shape on a transparent ground."""
    path = tmp_path / "shape.png"
    shape = np.zeros((8, 8, 4), np.uint8)
    shape[2:6, 2:6, 3] = 255
    image = Image.fromarray(shape)
    if mode in ("P", "RGB", "L"):  # where one colour stands for transparent pixels
        grey = Image.fromarray(np.where(shape[..., 3] > 0, 0, 7).astype(np.uint8))
        found = {"L": grey, "RGB": Image.merge("RGB", [grey] * 3), "P": grey.convert("P")}[mode]
        found.save(path, transparency={"L": 7, "RGB": (7, 7, 7), "P": grey.convert("P").getpixel((0, 0))}[mode])
    else:
        image.convert(mode).save(path) if mode != "PA" else image.convert("LA").save(path)
    pixels, notes = read_image(path, Reading(background=background))
    found = np.asarray(pixels)
    assert (found[2:6, 2:6] == 0).all()
    assert (found[0] == ground).all()
    assert Note.TRANSPARENT in notes


def test_half_transparent_pixels_are_blended(tmp_path):
    Image.fromarray(np.full((4, 4, 4), [200, 0, 100, 128], np.uint8)).save(tmp_path / "half.png")
    pixels, _ = read_image(tmp_path / "half.png", Reading())
    share = 128 / 255
    expected = np.array([200, 0, 100]) * share + 255 * (1 - share)
    assert np.abs(np.asarray(pixels)[0, 0] - expected).max() <= 1


def test_an_opaque_alpha_channel_is_not_transparent(tmp_path):
    Image.fromarray(np.full((4, 4, 4), 255, np.uint8)).save(tmp_path / "opaque.png")
    assert Note.TRANSPARENT not in read_image(tmp_path / "opaque.png", Reading())[1]


# More than 8 bits

GREY = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)


def saved(folder: Path, values: np.ndarray, suffix: str) -> Path:
    path = folder / f"deep{suffix}"
    Image.fromarray(values).save(path)
    return path


@pytest.mark.parametrize("suffix", [".png", ".tif", ".pgm"])
def test_16_bits_are_scaled_to_8(tmp_path, suffix):
    path = tmp_path / f"deep{suffix}"
    if suffix == ".pgm":
        path.write_bytes(b"P5 8 8 65535\n" + GREY.astype(">u2").tobytes())
    else:
        Image.fromarray(GREY).save(path)
    pixels, notes = read_image(path, Reading())
    assert np.array_equal(np.asarray(pixels)[..., 0], (GREY / 257).round().astype(np.uint8))
    assert Note.DEEP in notes


@pytest.mark.parametrize("channels", [3, 4])
def test_colours_of_16_bits_are_scaled_to_8(tmp_path, channels):
    values = np.linspace(0, 65535, 8 * 8 * channels).astype(np.uint16).reshape(8, 8, channels)
    values[..., 3:] = 65535
    (tmp_path / "deep.png").write_bytes(png_of_16_bits(values))
    pixels, notes = read_image(tmp_path / "deep.png", Reading())
    assert np.array_equal(np.asarray(pixels), (values[..., :3] / 257).round().astype(np.uint8))
    assert Note.DEEP in notes


def png_of_16_bits(values: np.ndarray) -> bytes:
    """Encode a 16-bit PNG file, because Pillow cannot write this kind."""
    height, width, channels = values.shape

    def chunk(kind: bytes, content: bytes) -> bytes:
        return len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")

    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([16, {3: 2, 4: 6}[channels], 0, 0, 0])
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bits_that_may_be_12_are_refused_without_white(tmp_path, suffix):
    values = (GREY // 16).astype(np.uint16)
    path = saved(tmp_path, values, suffix)
    with pytest.raises(BadFileError, match=r"values from 0 to 4095 .*data\.reading\.white, e\.g\. to 4095"):
        read_image(path, Reading())
    pixels, _ = read_image(path, Reading(white=4095))
    assert abs(float(np.asarray(pixels).mean()) - 127.5) < 1


def test_colours_of_12_bits_in_16_are_refused_without_white(tmp_path):
    values = np.linspace(0, 4095, 8 * 8 * 3).astype(np.uint16).reshape(8, 8, 3)
    (tmp_path / "deep.png").write_bytes(png_of_16_bits(values))
    with pytest.raises(BadFileError, match=r"e\.g\. to 4095"):
        read_image(tmp_path / "deep.png", Reading())
    assert np.asarray(read_image(tmp_path / "deep.png", Reading(white=4095))[0]).max() == 255


def test_an_all_black_image_is_black(tmp_path):
    assert not np.asarray(read_image(saved(tmp_path, np.zeros((4, 4), np.uint16), ".png"), Reading())[0]).any()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.full((4, 4), 200, np.int32), "values from 200 to 200 in 32-bit integers, .*white, e\\.g\\. to 255"),
        (np.full((4, 4), 60000, np.int32), "to 65535"),
        (np.full((4, 4), 10**6, np.int32), "the value of white is unknown"),
        (np.full((4, 4), -3, np.int32), "values from -3 to -3\\. Convert it"),
        (np.full((4, 4), 128.4, np.float32), "values from 128.4 to 128.4 in floats, .*white, e\\.g\\. to 255"),
        (np.full((4, 4), np.nan, np.float32), "values that are not finite"),
        (np.full((4, 4), -0.5, np.float32), "Convert it to values from 0 on"),
    ],
)
def test_values_of_unknown_white_are_refused_with_their_range(tmp_path, values, message):
    with pytest.raises(BadFileError, match=message):
        read_image(saved(tmp_path, values, ".tif"), Reading())


@pytest.mark.parametrize(
    ("values", "white", "mean"),
    [
        (np.full((4, 4), 128, np.int32), 255, 128),
        (np.full((4, 4), 0.5, np.float32), None, 128),
        (np.full((4, 4), 128.4, np.float32), 255, 128),
        (np.full((4, 4), 1.0, np.float32), None, 255),
    ],
)
def test_other_values_are_scaled_by_their_white(tmp_path, values, white, mean):
    pixels, _ = read_image(saved(tmp_path, values, ".tif"), Reading(white=white))
    assert np.asarray(pixels).mean() == mean


def test_values_above_white_are_refused(tmp_path):
    with pytest.raises(BadFileError, match=r"and white is 1000\. Set data\.reading\.white"):
        read_image(saved(tmp_path, GREY, ".png"), Reading(white=1000))


# Sizes, texts, suffixes


def test_an_image_over_the_limit_is_refused_before_it_is_decoded(tmp_path):
    Image.new("L", (2000, 1000)).save(tmp_path / "large.png")
    Image.new("L", (2000, 1000)).save(tmp_path / "large.jpg")
    for name in ("large.png", "large.jpg"):
        with pytest.raises(BadFileError, match=r"2000 x 1000 pixels, more than 1\.5 millions"):
            EncodedImage(tmp_path / name, Reading(max_megapixels=1.5))
        assert EncodedImage(tmp_path / name, Reading(max_megapixels=2.1)).width == 2000


@pytest.mark.parametrize("compressed", [False, True])
def test_texts_of_any_size_in_a_png_are_skipped(tmp_path, compressed):
    texts = PngImagePlugin.PngInfo()
    texts.add_text("workflow", "x" * 3_000_000, zip=compressed)
    Image.fromarray(RAMP).save(tmp_path / "image.png", pnginfo=texts)
    assert np.array_equal(np.asarray(read_image(tmp_path / "image.png", Reading())[0]), RAMP)


@pytest.mark.parametrize(
    ("suffix", "kind"),
    [
        *[(".jfif", "JPEG"), (".jpe", "JPEG"), (".apng", "PNG"), (".pgm", "PPM"), (".ppm", "PPM"), (".dib", "DIB")],
        (".tga", "TGA"),
    ],
)
def test_less_common_suffixes_are_images(tmp_path, suffix, kind):
    assert suffix in IMAGE_SUFFIXES
    Image.fromarray(RAMP).save(tmp_path / f"image{suffix}", kind)
    assert np.abs(np.asarray(read_image(tmp_path / f"image{suffix}", Reading())[0]).astype(int) - RAMP).mean() < 40


@pytest.mark.parametrize("size", [(1, 20_000), (20_000, 1), (3, 5_000)])
def test_only_the_middle_of_an_extremely_long_image_is_resized(size):
    width, height = size
    image = Image.fromarray(np.full((height, width, 3), 77, np.uint8))
    assert image.size == size
    for transform in build_centre_crop(256, 224):
        image = transform(image)
        assert np.prod(image.shape[-2:]) < 30_000_000 / 3 if hasattr(image, "shape") else True
    assert image.shape == (3, 224, 224)
    assert (image == 77).all()


def test_a_long_image_is_cropped_as_if_it_were_resized_whole():
    y, x = np.mgrid[:40, :600]
    image = Image.fromarray(np.stack([x % 256, 6 * y, x * y % 256], axis=2).astype(np.uint8))
    to_image, _, resize, crop = build_centre_crop(32, 28)
    whole = crop(resize(to_image(image)))
    cut = image
    for transform in build_centre_crop(32, 28):
        cut = transform(cut)
    assert (cut.int() - whole.int()).abs().max() <= 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"background": "whitish"}, "is not a colour"), ({"white": 0}, "above 0"), ({"max_megapixels": -1}, "above 0")],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(DataError, match=message):
        Reading(**settings)
