"""Every recipe composes, trains, and says on top what it reproduces, at what cost and by which command."""

from __future__ import annotations

import re
from itertools import product, takewhile
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from visual_transformers.cli.shorthands import expand
from visual_transformers.config.instantiate import build
from visual_transformers.config.validation import validate
from visual_transformers.runner import Trainer
from visual_transformers.runs.run_dir import RunDirectory
from visual_transformers.training.param_groups import base_lr

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "experiments" / "recipe"
RECIPES = sorted(path.stem for path in FOLDER.glob("*.yaml"))

PUBLISHED = {
    # The paper's tables: top-1 (also in v4, also on the training images), mIoU.
    "paper_resnet18": [69.9, 68.6],
    "paper_vt_resnet18": [72.0, 72.1, 76.5],
    "paper_resnet34": [73.3, 73.9],
    "paper_vt_resnet34": [74.8, 75.0, 80.8],
    "paper_resnet50": [76.0],
    "paper_resnet101": [77.4],
    "paper_advanced_resnet18": [73.8],
    "paper_advanced_vt_resnet18": [76.8],
    "paper_advanced_resnet34": [77.7],
    "paper_advanced_vt_resnet34": [79.9],
    "paper_advanced_vt_resnet50": [80.6],
    "paper_advanced_vt_resnet101": [82.3],
    "paper_coco_panoptic_fpn_r50": [40.78],
    "paper_coco_vt_fpn_r50": [41.00],
    "paper_coco_panoptic_fpn_r101": [41.51],
    "paper_coco_vt_fpn_r101": [41.50],
    "paper_lip_panoptic_fpn_r50": [47.04],
    "paper_lip_vt_fpn_r50": [47.39],
    "paper_lip_panoptic_fpn_r101": [47.35],
    "paper_lip_vt_fpn_r101": [47.58],
    # The reference implementation's curves: the best epoch, then those that the note names.
    "seed_resnet18": [69.1541, 18.2786, 53.4752, 64.1433, 67.0797, 68.6557, 69.1541, 24.0250, 66.4675],
    "seed_vt_resnet18": [69.7468, 19.8949, 51.9935, 65.1401, 68.9251, 69.1541, 69.6929, 28.0252, 67.2889],
    "seed_panoptic_fpn": [4.3357, 1.6444, 2.7108, 4.3357, 4.3000, 4.3148],
    "seed_vt_fpn": [3.2848, 1.5052, 3.1313, 2.9853, 3.2848, 3.2351],
}


def note(recipe: str) -> str:
    """What stands on top of a recipe, without the marks of a comment."""
    lines = (FOLDER / f"{recipe}.yaml").read_text().splitlines()[1:]
    return "\n".join(line.removeprefix("#").strip() for line in takewhile(lambda line: line.startswith("#"), lines))


def part(recipe: str, name: str) -> str:
    """A part of the note, from its name to the next part."""
    found = re.search(rf"^{name}: (.*?)(?=^(Published|Ours|Cost|python): ?|^python|\Z)", note(recipe), re.M | re.S)
    assert found, f"{recipe} does not say {name}:"
    return " ".join(found[1].split())


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_note_says_what_is_reproduced_what_it_gave_what_it_costs_and_how_it_is_started(recipe):
    text = note(recipe)
    assert text[0].isupper()
    assert part(recipe, "Ours").endswith(".")
    assert re.match("not measured|[0-9]", part(recipe, "Cost"))
    assert f"python -m visual_transformers recipe={recipe}" in text
    ours = "by the reference implementation" if recipe.startswith("seed_") else "by the paper"
    assert part(recipe, "Published").startswith(ours if recipe in PUBLISHED else "no published figure")


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_figures_of_a_note_are_the_published_ones(recipe):
    figures = [float(number) for number in re.findall(r"\d+\.\d+", part(recipe, "Published"))]
    assert figures == pytest.approx(PUBLISHED.get(recipe, []), abs=0.00501)


def test_every_published_figure_has_a_recipe():
    assert set(PUBLISHED) <= set(RECIPES)


def spelt_out(text: str) -> set[str]:
    """The names that `a_{b,c}` and the like stand for."""
    names = set()
    for pattern in re.findall(r"[a-z0-9_]+(?:\{[^}]*\}[a-z0-9_]*)*", text):
        pieces = [piece.split(",") for piece in re.split(r"[{}]", pattern)]
        names |= {"".join(choice) for choice in product(*pieces)}
    return names


def test_the_help_offers_every_recipe_and_no_shared_settings():
    text = (ROOT / "conf" / "config.yaml").read_text()
    listed = re.search(r"Recipes .*?\n(.*?)\n\s*\n", text, re.S)[1]
    offered = set().union(*(spelt_out(re.split(r"   +", line.strip())[0]) for line in listed.splitlines()))
    assert offered == set(RECIPES)


def test_the_table_of_the_experiments_has_every_recipe():
    text = (ROOT / "experiments" / "README.md").read_text()
    rows = re.findall(r"^\| `(\S+)` \|", text[: text.index("## Classification")], re.M)
    assert set().union(*map(spelt_out, rows)) == set(RECIPES)


# They train

TEACHER = "mobilenetv3_small_050"
"""A small one in place of FBNetV3-G."""


def picture(path: Path, size: int = 40) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(len(str(path))).integers(0, 256, (size, size, 3), np.uint8)
    Image.fromarray(pixels).save(path)


def mask(path: Path, labels: range, size: int = 40) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(0).choice(np.array(labels, np.uint8), (size, size))).save(path)


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two pictures of noise for each class or split, in the layouts of the data sets."""
    root = tmp_path_factory.mktemp("data")
    for split, name, number in product(("train", "val"), ("ant", "cat"), "12"):
        picture(root / "imagenet" / split / name / f"{number}.jpg")
    for split, number in product(("train", "val"), (1, 2)):
        picture(root / f"coco_stuff/images/{split}2017/{number:012}.jpg")
        mask(root / f"coco_stuff/annotations/{split}2017/{number:012}.png", range(91, 182))
        picture(root / f"lip/TrainVal_images/{split}_images/{number}.jpg")
        mask(root / f"lip/TrainVal_parsing_annotations/{split}_segmentations/{number}.png", range(20))
        (root / f"lip/{split}_id.txt").write_text("1\n2\n")
    for split, number in product(("train", "val", "test"), "12"):
        picture(root / f"camvid/{split}/{number}.png")
        mask(root / f"camvid/{split}annot/{number}.png", range(11))
    teacher = timm.create_model(TEACHER, num_classes=2)
    torch.save(teacher.state_dict(), root / "teacher.pt")
    return {path.name: path for path in root.iterdir()}


KINDS = {
    "smoke_(classification|advanced)": "digits",
    "smoke_segmentation": "digit_scenes",
    "camvid": "camvid",
    "lip": "lip",
    "coco|fpn": "coco_stuff",
    "resnet|imagenette": "imagenet",
}
"""Data sets by what is in a recipe's name."""
IN_A_SMALL_WAY = [
    "hardware=cpu", "hardware.threads=1", "logger=[files]", "weights.file=null", "weights.backbone_only=false",
]  # fmt: skip
SMALL = {
    "digits": ["data.image_size=32", "data.batch_size=2"],
    "digit_scenes": ["data.image_size=32", "data.batch_size=2", "data.train_scenes=4", "data.val_scenes=1"],
    "imagenet": ["data.image_size=32", "data.eval_resize=36", "data.classes=null"],
    "coco_stuff": ["data.augmentation.crop=64"],
    "lip": ["data.augmentation.crop=64"],
    "camvid": ["data.augmentation.crop=64"],
}


def small(composed, recipe: str, folders: dict[str, Path]):
    """A recipe with tiny images, two at a time, and no weights to start from."""
    kind = next(kind for pattern, kind in KINDS.items() if re.search(pattern, recipe))
    overrides = [*IN_A_SMALL_WAY, *SMALL[kind]]
    if kind in folders:
        overrides += [f"data.root={folders[kind]}", "data.batch_size=2", "data.check_files=1"]
    if kind == "coco_stuff" and not recipe.startswith("smoke_"):
        overrides.append("data.augmentation.base=64")
    if "advanced" in recipe and kind == "imagenet":
        overrides += [
            f"distillation.teacher.model_name={TEACHER}",
            "distillation.teacher.pretrained=false",
            "+distillation.teacher.num_classes=2",
            f"distillation.weights={folders['teacher.pt']}",
        ]
    return validate(composed(f"recipe={recipe}", *overrides))


@pytest.mark.parametrize(
    "recipe", [name if name.startswith("smoke") else pytest.param(name, marks=pytest.mark.slow) for name in RECIPES]
)
def test_a_recipe_takes_two_training_steps(composed, folders, tmp_path, recipe):
    run = Trainer.build(small(composed, recipe, folders), RunDirectory(tmp_path))
    before = [parameter.detach().clone() for parameter in run.components.model.parameters()]
    batches = run.batches()
    for _ in range(2):
        run.step(next(batches))
    assert len(run.meter.unread()) == 2  # which raises for a loss or a gradient that is not finite
    assert sum(not torch.equal(a, b) for a, b in zip(run.components.model.parameters(), before, strict=True)) > 0
    assert all(parameter.isfinite().all() for parameter in run.components.model.parameters())


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_command_of_a_note_is_accepted(composed, recipe):
    for command in re.findall(r"^python -m visual_transformers (.*)$", note(recipe).replace("\\\n", ""), re.M):
        validate(composed(*expand(command.replace("PATH", "x").split())))


def test_what_the_command_line_sets_wins_over_a_recipe_and_what_it_shares(composed):
    overrides = ["training.epochs=5", "model.tokens=32", "optimizer=adamw", "hardware=cpu", "name=mine"]
    cfg = composed("recipe=paper_vt_resnet18", "data.root=x", *overrides)
    assert (cfg.training.epochs, cfg.model.tokens, cfg.name) == (5, 32, "mine")
    assert cfg.optimizer._target_ == "torch.optim.AdamW"
    assert cfg.hardware.device == "cpu"
    assert cfg.data.batch_size == 256


# What the published recipes say


def rates(cfg, steps_per_epoch: int, total_steps: int, at: list[int]) -> list[float]:
    """The full learning rate at some steps of a run of a recipe."""
    optimizer = build(cfg.optimizer, "optimizer", params=[torch.nn.Parameter(torch.zeros(1))])
    schedule = build(
        cfg.schedule, "schedule", optimizer=optimizer, steps_per_epoch=steps_per_epoch, total_steps=total_steps
    )
    seen = []
    for step in range(max(at) + 1):
        if step in at:
            seen.append(base_lr(optimizer))
        optimizer.step()
        schedule.step()
    return seen


def test_the_advanced_recipe_rises_from_0_01_to_0_16_in_5_epochs_and_falls_by_0_9875_an_epoch(composed):
    cfg = validate(composed("recipe=paper_advanced_vt_resnet18", "data.root=x"))
    found = rates(cfg, 626, 400 * 626, [0, 5 * 626, 6 * 626, 15 * 626])
    assert found == pytest.approx([0.01, 0.16, 0.16 * 0.9875, 0.16 * 0.9875**10], rel=1e-9)


def test_the_baseline_recipe_drops_after_30_and_60_epochs(composed):
    cfg = validate(composed("recipe=paper_vt_resnet18", "data.root=x"))
    found = rates(cfg, 10, 900, [0, 299, 300, 599, 600, 899])
    assert found == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001], rel=1e-9)


def test_the_reference_s_rate_drops_after_5_and_10_epochs_as_its_curves_do(composed):
    cfg = validate(composed("recipe=seed_vt_resnet18", "data.root=x"))
    found = rates(cfg, 10, 150, [0, 49, 50, 99, 100, 149])
    assert found == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001], rel=1e-9)


def test_the_coco_recipe_warms_up_for_1_000_steps_and_drops_after_60_and_80_thousand(composed):
    cfg = validate(composed("recipe=paper_coco_vt_fpn_r50", "data.root=x"))
    found = rates(cfg, 370, 9_000, [0, 50, 100, 5_999, 6_000, 7_999, 8_000, 8_999])  # a tenth of the run
    start, half = 0.04 * 0.001, 0.04 * (0.001 + 0.999 / 2)
    assert found == pytest.approx([start, half, 0.04, 0.04, 0.004, 0.004, 0.0004, 0.0004], rel=1e-9)
    assert cfg.training.steps == 90_000
    assert cfg.parameters.no_decay == ["norms"]
