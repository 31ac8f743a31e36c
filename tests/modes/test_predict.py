from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image
from pycocotools.coco import COCO
from torchvision.transforms import v2

from visual_transformers.checkpoints import weights
from visual_transformers.config.instantiate import build
from visual_transformers.config.validation import validate
from visual_transformers.data import MaskFolder
from visual_transformers.data.digits import load_digit_split
from visual_transformers.data.io.files import read_mask
from visual_transformers.data.normalization import Normalise
from visual_transformers.data.segmentation.coco.labels import STUFF, category_ids, category_names
from visual_transformers.errors import ConfigError, DataError, RunError
from visual_transformers.inference import coco_results
from visual_transformers.inference.images import find_images, format_skipped, make_output_names
from visual_transformers.inference.predictor import Predictor
from visual_transformers.modes import predict
from visual_transformers.modes.predict import check_class_count, write_mask
from visual_transformers.plotting import image_plots

DIGITS = [str(digit) for digit in range(10)]
SCENES = [*DIGITS, "background"]


def photo(path: Path, width: int = 70, height: int = 50) -> Path:
    """Write an image of noise that depends on the name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(sum(path.name.encode())).integers(0, 256, (height // 5, width // 5, 3), np.uint8)
    Image.fromarray(noise).resize((width, height)).save(path)
    return path


def saved(cfg, path: Path, classes: list[str]) -> torch.nn.Module:
    """Build the model of a configuration and save its random weights."""
    model = build(cfg.model, "model", num_classes=len(classes)).eval()
    weights.save(path, model, {"classes": classes, "config": cfg.everything})
    return model


@pytest.fixture
def classifier(tiny, tmp_path):
    """Predict with a tiny classifier; `overrides` are those of the command."""
    model = saved(tiny(), tmp_path / "weights.safetensors", DIGITS)

    def run(*overrides: str) -> list[dict]:
        predict.run(tiny("mode=predict", f"weights.file={tmp_path}/weights.safetensors", *overrides), tmp_path / "run")
        return json.loads((tmp_path / "run/predict/predictions.json").read_text())

    run.model = model
    return run


@pytest.fixture
def segmenter(tiny_scenes, tmp_path):
    """Predict with a tiny segmenter."""
    model = saved(tiny_scenes("model=panoptic_fpn"), tmp_path / "weights.safetensors", SCENES)

    def run(*overrides: str) -> list[dict]:
        fixed = ("mode=predict", "model=panoptic_fpn", f"weights.file={tmp_path}/weights.safetensors")
        predict.run(tiny_scenes(*fixed, *overrides), tmp_path / "run")
        return json.loads((tmp_path / "run/predict/predictions.json").read_text())

    run.model = model
    return run


@pytest.fixture
def tiny_scenes(composed):
    """Configure a small segmenter without token stages."""
    small = ["task=segmentation", "model.backbone=resnet18", "model.pyramid_channels=32", "model.branch_channels=32"]
    return lambda *overrides: validate(composed("hardware.threads=1", *small, *overrides))


def test_a_classifier_s_top_classes_are_the_first_of_its_probabilities(classifier, tmp_path):
    photo(tmp_path / "in/a.png"), photo(tmp_path / "in/b/a.jpg", 30, 90)
    listed = classifier(f"input={tmp_path}/in", "predict.top=3")
    assert [Path(one["file"]).relative_to(tmp_path).as_posix() for one in listed] == ["in/a.png", "in/b/a.jpg"]
    prepare = v2.Compose([v2.Grayscale(3), v2.Resize((32, 32), v2.InterpolationMode.BICUBIC)])
    for one in listed:
        image = Normalise()(v2.ToImage()(prepare(Image.open(one["file"]).convert("RGB"))))[0]
        with torch.inference_mode():
            expected, order = classifier.model(image[None])[0].softmax(dim=0).sort(descending=True)
        assert [c["name"] for c in one["classes"]] == [DIGITS[i] for i in order[:3]]
        assert [c["probability"] for c in one["classes"]] == pytest.approx(expected[:3].tolist(), abs=1e-5)
    assert Image.open(tmp_path / "run/predict/predictions.png").size[0] > 100


def test_a_top_beyond_the_classes_lists_them_all_and_they_sum_to_1(classifier, tmp_path, capsys):
    path = photo(tmp_path / "a.png")
    [only] = classifier(f"input={path}", "predict.top=99")
    assert sorted(c["name"] for c in only["classes"]) == DIGITS
    assert sum(c["probability"] for c in only["classes"]) == pytest.approx(1, abs=1e-5)
    assert f"{path}: {only['classes'][0]['name']} {only['classes'][0]['probability']:.1%}, " in capsys.readouterr().out


def test_without_an_input_validation_images_are_predicted(classifier, tmp_path):
    listed = classifier("predict.images=3")
    files = [Path(one["file"]) for one in listed]
    assert [file.parent for file in files] == [tmp_path / "run/predict/inputs"] * 3
    labels = load_digit_split("val")[1]
    assert {file.name for file in files} == {f"{i}-digit-{labels[i]}.png" for i in (0, 180, 359)}
    assert all(Image.open(file).size == (8, 8) for file in files)


def test_images_that_an_earlier_command_left_are_not_predicted(classifier, tmp_path):
    classifier("predict.images=3")
    assert len(classifier("predict.images=2")) == 2
    assert len([*(tmp_path / "run/predict/inputs").iterdir()]) == 2


def test_results_of_an_earlier_command_do_not_stay_beside_new_ones(stuff, tmp_path):
    photo(tmp_path / "in/000000000139.jpg"), photo(tmp_path / "in/b/285.png", 40, 64)
    stuff()
    kept = tmp_path / "run/predict/mine.png"
    kept.write_bytes(b"not of this mode")
    (tmp_path / "in/b/285.png").unlink()
    stuff()
    left = sorted(path.relative_to(tmp_path / "run/predict").as_posix() for path in kept.parent.rglob("*.*"))
    assert left == ["coco_stuff_results.json", "masks/000000000139.png", "mine.png", "overlays/000000000139.png",
                    "predictions.json"]  # fmt: skip


def test_images_of_the_folder_that_is_cleared_can_be_the_input(classifier, tmp_path):
    classifier("predict.images=3")
    assert len(classifier(f"input={tmp_path}/run/predict/inputs")) == 3


def test_a_refused_command_leaves_the_earlier_results(classifier, tmp_path):
    photo(tmp_path / "a.png")
    before = classifier(f"input={tmp_path}/a.png")
    with pytest.raises(ConfigError):
        classifier(f"input={tmp_path}/a.png", "inference.flip=true")
    assert json.loads((tmp_path / "run/predict/predictions.json").read_text()) == before


@pytest.mark.parametrize(
    ("count", "files", "said"),
    [
        (1, 1, "the only file was skipped"),
        (3, 3, "all 3 files were skipped"),
        (1, 3, "1 of 3 files was skipped, the others are done"),
        (2, 3, "2 of 3 files were skipped, the others are done"),
    ],
)
def test_how_many_files_were_skipped_is_said_in_words(count, files, said):
    assert format_skipped(count, files) == said


def test_no_validation_images_at_all_are_refused(classifier):
    with pytest.raises(DataError, match=r"predict\.images=0: no validation images"):
        classifier("predict.images=0")


def test_a_photograph_is_turned_upright_as_its_camera_says(segmenter, tmp_path):
    upright = photo(tmp_path / "in/a.png", 70, 50)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # the camera was turned: to be rotated by 90 degrees clockwise
    (tmp_path / "turned").mkdir()
    Image.open(upright).rotate(90, expand=True).save(tmp_path / "turned/a.png", exif=exif)
    masks = []
    for folder in ("in", "turned"):
        segmenter(f"input={tmp_path}/{folder}")
        masks.append(np.asarray(Image.open(tmp_path / "run/predict/masks/a.png")))
    assert masks[0].shape == (50, 70)
    np.testing.assert_array_equal(*masks)


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_an_image_whose_exif_is_damaged_is_taken_as_it_is_with_a_note(classifier, tmp_path, capsys, suffix):
    path = tmp_path / f"a.{suffix}"
    Image.open(photo(tmp_path / "sound.png")).save(path, exif=b"Exif\0\0garbagegarbage")
    [one] = classifier(f"input={path}")
    assert one["file"] == str(path)
    assert f"note: {path}: its EXIF cannot be read" in capsys.readouterr().out


def test_an_image_that_the_model_cannot_take_costs_no_other_its_result(segmenter, tmp_path, monkeypatch):
    photo(tmp_path / "in/a.png"), photo(tmp_path / "in/b.png", 71, 50), photo(tmp_path / "in/c.png")
    logits = Predictor.compute_logits

    def limited(self, images):
        if images.shape[3] == 71:
            raise RuntimeError("out of memory")
        return logits(self, images)

    monkeypatch.setattr(Predictor, "compute_logits", limited)
    with pytest.raises(DataError, match=r"1 of 3 files was skipped(.|\n)*b\.png: the model cannot take it"):
        segmenter(f"input={tmp_path}/in")
    listed = json.loads((tmp_path / "run/predict/predictions.json").read_text())
    assert [Path(one["file"]).name for one in listed] == ["a.png", "c.png"]


def test_an_error_in_drawing_is_not_taken_for_one_of_the_model(segmenter, tmp_path, monkeypatch):
    def broken(*arguments):
        raise ValueError("of the drawing")

    monkeypatch.setattr(image_plots, "plot_mask", broken)
    with pytest.raises(ValueError, match=r"^of the drawing$"):
        segmenter(f"input={photo(tmp_path / 'a.png')}")


def test_settings_other_than_those_of_training_are_said(classifier, tmp_path, capsys):
    photo(tmp_path / "a.png")
    classifier(f"input={tmp_path}/a.png", "data.image_size=48")
    said = capsys.readouterr().out
    assert "note: these weights were trained with another setting: data.image_size" in said


@pytest.mark.parametrize("override", ["inference.window=32", "inference.scales=[1.0,2.0]", "inference.flip=true"])
def test_a_classifier_refuses_the_options_of_segmenters(classifier, tmp_path, override):
    photo(tmp_path / "a.png")
    with pytest.raises(ConfigError, match=override.split("=")[0]):
        classifier(f"input={tmp_path}/a.png", override)
    assert not (tmp_path / "run/predict").exists()


def test_masks_are_the_model_s_own_argmax_at_every_size(segmenter, tmp_path):
    photo(tmp_path / "in/a.png"), photo(tmp_path / "in/b/a.png", 33, 97), photo(tmp_path / "in/thin.png", 90, 20)
    listed = segmenter(f"input={tmp_path}/in")
    assert [one["mask"] for one in listed] == ["masks/a.png", "masks/b/a.png", "masks/thin.png"]
    for one in listed:
        mask = read_mask(tmp_path / "run/predict" / one["mask"])
        image = Normalise()(v2.ToImage()(Image.open(one["file"])))
        height, width = image.shape[2:]
        with torch.inference_mode():
            enlarged = v2.functional.resize(image, [max(height, 32), width])
            found = v2.functional.resize(segmenter.model(enlarged).softmax(dim=1), [height, width])[0]
        top2 = found.topk(2, dim=0).values
        sure = (top2[0] - top2[1] > 1e-3).numpy()
        assert sure.mean() > 0.8
        assert (mask == found.argmax(dim=0).numpy())[sure].all()
        assert one["size"] == [height, width]
        shares = {SCENES[i]: (mask == i).mean() for i in np.unique(mask)}
        assert {c["name"]: c["share"] for c in one["classes"]} == pytest.approx(shares)
        assert Image.open(tmp_path / "run/predict" / one["overlay"]).format == "PNG"


def test_masks_serve_as_those_of_a_mask_folder(segmenter, tmp_path):
    photo(tmp_path / "in/a.png"), photo(tmp_path / "in/b/a.jpg")
    segmenter(f"input={tmp_path}/in")
    where = {"train_images": "in", "train_masks": "run/predict/masks", "val_images": "in"}
    data = MaskFolder(root=str(tmp_path), val_masks="run/predict/masks", class_names=SCENES, **where)
    data.check(data.val_set())
    for (_, labels), name in zip(data.val_set(), ("a", "b/a"), strict=True):
        assert np.array_equal(labels, read_mask(tmp_path / f"run/predict/masks/{name}.png"))


@pytest.mark.parametrize("classes", [1, 2, 11, 256])
def test_a_mask_is_an_8_bit_palette_png_that_reads_back_as_it_was(tmp_path, classes):
    mask = np.random.default_rng(0).integers(0, classes, (9, 13)).astype(np.uint8)
    write_mask(tmp_path / "mask.png", mask)
    assert np.array_equal(read_mask(tmp_path / "mask.png"), mask)
    header = (tmp_path / "mask.png").read_bytes()[:26]
    assert (header[24], header[25]) == (8, 3)  # bit depth and colour type of the PNG's IHDR


def test_more_classes_than_a_mask_can_hold_are_refused():
    check_class_count(["x"] * 256)
    with pytest.raises(RunError, match="257 classes"):
        check_class_count(["x"] * 257)


def test_unreadable_files_are_skipped_and_said_when_the_others_are_done(segmenter, tmp_path):
    photo(tmp_path / "in/a.png"), photo(tmp_path / "in/c.png")
    (tmp_path / "in/b.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"1 of 3 files was skipped(.|\n)*b\.png: cannot be read"):
        segmenter(f"input={tmp_path}/in")
    listed = json.loads((tmp_path / "run/predict/predictions.json").read_text())
    assert [one["mask"] for one in listed] == ["masks/a.png", "masks/c.png"]
    assert all((tmp_path / "run/predict" / one["mask"]).is_file() for one in listed)


@pytest.mark.parametrize("run", ["classifier", "segmenter"])
def test_a_folder_of_unreadable_files_alone_leaves_an_empty_list_and_an_error(run, request, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.png").write_bytes(b"")
    with pytest.raises(DataError, match="the only file was skipped:"):
        request.getfixturevalue(run)(f"input={tmp_path}/in")
    assert json.loads((tmp_path / "run/predict/predictions.json").read_text()) == []


def test_what_is_no_image_at_all_is_said_before_the_weights_are_read(tiny, tmp_path):
    (tmp_path / "empty").mkdir()
    for where in (tmp_path / "empty", tmp_path / "none.png", tmp_path / "*.png"):
        with pytest.raises(DataError, match="no such image"):
            predict.run(tiny("mode=predict", f"input={where}", "weights.file=nowhere"), tmp_path)


def test_names_of_outputs_are_paths_below_the_input_and_never_equal(tmp_path):
    files = ["a.jpg", "a.png", "a.jpg.png", "b/a.png", "b/c.d.png", "e.png"]
    for file in files:
        photo(tmp_path / "in" / file)
    paths = find_images(f"{tmp_path}/in")
    assert list(make_output_names(paths, f"{tmp_path}/in").values()) == [
        "a.jpg", "a.jpg.png", "a.png", "b/a", "b/c.d", "e"
    ]  # fmt: skip
    below_b = f"{tmp_path}/in/b/*.png"
    assert list(make_output_names(find_images(below_b), below_b).values()) == ["a", "c.d"]
    everything = f"{tmp_path}/in/**/c*.png"
    assert list(make_output_names(find_images(everything), everything).values()) == ["c.d"]


def test_a_file_whose_name_looks_like_a_pattern_is_found(tmp_path):
    path = photo(tmp_path / "a[1].png")
    assert find_images(str(path)) == [path]


SMALL_STUFF = [
    "task=segmentation",
    "data=coco_stuff",
    "data.root=nowhere",
    "model=panoptic_fpn",
    "model.backbone=resnet18",
    "model.pyramid_channels=32",
    "model.branch_channels=32",
    "hardware.threads=1",
]


@pytest.fixture
def stuff(composed, tmp_path):
    """Predict with a model of COCO-Stuff's 91 stuff classes."""
    saved(validate(composed(*SMALL_STUFF)), tmp_path / "weights.safetensors", [category_names()[i] for i in STUFF])

    def run(*overrides: str) -> None:
        fixed = ("mode=predict", f"input={tmp_path}/in", f"weights.file={tmp_path}/weights.safetensors")
        predict.run(validate(composed(*SMALL_STUFF, *fixed, *overrides)), tmp_path / "run")

    return run


def test_coco_s_own_api_reads_the_results_and_decodes_the_masks(stuff, tmp_path):
    photo(tmp_path / "in/000000000139.jpg"), photo(tmp_path / "in/000000000285.png", 40, 64)
    stuff()
    truth = COCO()
    images = [{"id": 139, "height": 50, "width": 70}, {"id": 285, "height": 64, "width": 40}]
    truth.dataset = {"images": images, "categories": [{"id": i} for i in STUFF], "annotations": []}
    truth.createIndex()
    found = truth.loadRes(str(tmp_path / "run/predict/coco_stuff_results.json"))
    for number, name, shape in ((139, "000000000139", (50, 70)), (285, "000000000285", (64, 40))):
        rebuilt = np.full(shape, -1)
        for annotation in found.loadAnns(found.getAnnIds(imgIds=[number])):
            rebuilt[found.annToMask(annotation) == 1] = STUFF.index(annotation["category_id"])
        assert np.array_equal(rebuilt, read_mask(tmp_path / f"run/predict/masks/{name}.png"))


@pytest.mark.parametrize("label_set", ["stuff", "stuff_things"])
def test_a_coco_stuff_file_that_names_no_classes_needs_no_data_set(composed, tmp_path, label_set):
    cfg = validate(
        composed(*SMALL_STUFF, f"data.label_set={label_set}", f"weights.file={tmp_path}/weights.safetensors")
    )
    expected = [category_names()[i] for i in category_ids(label_set)]
    model = build(cfg.model, "model", num_classes=len(expected))
    weights.save(tmp_path / "weights.safetensors", model, {"config": cfg.everything})
    assert Predictor.build(cfg, tmp_path).classes == expected


def test_two_images_of_one_coco_id_are_refused_before_work(stuff, tmp_path):
    photo(tmp_path / "in/a/000000000139.jpg"), photo(tmp_path / "in/b/139.jpg")
    with pytest.raises(DataError, match="both image 139"):
        stuff()
    assert not (tmp_path / "run").exists()


def test_classes_of_another_label_set_are_refused_before_work(stuff, tmp_path):
    photo(tmp_path / "in/000000000139.jpg")
    with pytest.raises(RunError, match=r"91 classes.*171.*data\.label_set"):
        stuff("data.label_set=stuff_things")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "expected"),
    [("000000000139.jpg", 139), ("COCO_val2014_000000000139.png", 139), ("street_12.jpg", "street_12"), ("٣.jpg", "٣")],
)
def test_image_ids_are_coco_s_numbers_or_stems(name, expected):
    assert coco_results.parse_image_id(Path(name)) == expected


def result_of(mask: np.ndarray) -> list[dict]:
    return coco_results.encode_mask(mask, 7, [100, 101, 102])


@pytest.mark.parametrize(
    "spoil",
    [
        lambda results: results[:-1],
        lambda results: [*results, results[0]],
        lambda results: [results[0] | {"category_id": 102}, *results[1:]],
        lambda results: [result | {"image_id": 8} for result in results],
        lambda results: result_of(np.eye(6, 8, dtype=np.uint8).T.copy()),
    ],
    ids=["a class is missing", "a class twice", "another category", "another image", "transposed"],
)
def test_results_that_do_not_decode_to_their_masks_are_an_error(tmp_path, spoil):
    mask = np.eye(6, 8, dtype=np.uint8)
    write_mask(tmp_path / "7.png", mask)
    masks = {7: tmp_path / "7.png"}
    coco_results.write_results(tmp_path / "results.json", result_of(mask), masks, [100, 101, 102])
    with pytest.raises(RunError, match="differ"):
        coco_results.write_results(tmp_path / "results.json", spoil(result_of(mask)), masks, [100, 101, 102])
