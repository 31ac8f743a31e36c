"""`mode=check_data` on copies of real data sets: it finds all planted faults and no others."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image

from visual_transformers.config.instantiate import build
from visual_transformers.config.validation import validate
from visual_transformers.data.io.exclude_list import read_exclude_list
from visual_transformers.data.segmentation.coco.coco_stuff import STUFF
from visual_transformers.distributed import signals
from visual_transformers.errors import DataError, MissingMasksError
from visual_transformers.modes import check_data
from visual_transformers.modes.check_data import run


@pytest.fixture
def folders(shared_data: Path, tmp_path: Path) -> Path:
    """Some of imagenette: three classes, 3 training and 2 validation images of each."""
    for split, count in (("train", 3), ("val", 2)):
        for name in sorted(path.name for path in (shared_data / "imagenette128" / split).iterdir())[:3]:
            (tmp_path / "data" / split / name).mkdir(parents=True)
            for file in sorted((shared_data / "imagenette128" / split / name).iterdir())[:count]:
                shutil.copy(file, tmp_path / "data" / split / name)
    return tmp_path / "data"


@pytest.fixture
def scenes(shared_data: Path, tmp_path: Path) -> Path:
    """Some of COCO-Stuff in colour: 9 training and 4 validation images with their masks."""
    for split, count in (("train2017", 9), ("val2017", 4)):
        images = sorted((shared_data / "cocostuff_mini" / "images" / split).iterdir())
        for image in [path for path in images if Image.open(path).mode == "RGB"][:count]:
            for kind, name in (("images", image.name), ("annotations", f"{image.stem}.png")):
                (tmp_path / "data" / kind / split).mkdir(parents=True, exist_ok=True)
                shutil.copy(shared_data / "cocostuff_mini" / kind / split / name, tmp_path / "data" / kind / split)
    return tmp_path / "data"


@pytest.fixture
def configured(composed: Callable[..., Any]) -> Callable[..., Any]:
    """Validate the configuration for a copy below `root`."""

    def configure(root: Path, *overrides: str) -> Any:
        chosen = ["task=segmentation", "data=coco_stuff"] if (root / "images").is_dir() else ["data=imagenet"]
        return validate(composed("mode=check_data", *chosen, f"data.root={root}", "check_data.workers=0", *overrides))

    return configure


@pytest.fixture
def report(configured: Callable[..., Any], tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Check a copy and return report.json; `refused` expects an error."""

    def check(root: Path, *overrides: str, refused: bool = False) -> dict[str, Any]:
        if refused:
            with pytest.raises(DataError, match=r"cannot be used: .*data\.exclude="):
                run(configured(root, *overrides), tmp_path / "run")
        else:
            run(configured(root, *overrides), tmp_path / "run")
        return json.loads((tmp_path / "run" / "check_data" / "report.json").read_text())

    return check


def files(root: Path, pattern: str) -> list[Path]:
    return sorted(root.glob(pattern))


def notes(found: dict[str, Any]) -> dict[str, list[str]]:
    return {
        name: [file for split in found["splits"].values() for file in split["notes"][name]["files"]]
        for name in ("grayscale", "CMYK", "EXIF rotation")
    }


NOTHING = {"grayscale": [], "CMYK": [], "EXIF rotation": []}
DAMAGE: list[Callable[[bytes], bytes]] = [
    lambda content: b"",
    lambda content: b"no image",
    lambda content: content[: len(content) // 2],
    lambda content: content[:-2],
    lambda content: content[:-2] + b"stray" * 20 + content[-2:],
]


@pytest.mark.parametrize("copy", ["folders", "scenes"])
def test_a_clean_copy_has_nothing_to_report(copy: str, report: Any, request: Any, tmp_path: Path) -> None:
    found = report(request.getfixturevalue(copy))
    assert found["faults"] == []
    assert notes(found) == NOTHING
    assert found["equal_images"] == {"across_splits": [], "within_a_split": []}
    assert read_exclude_list(str(tmp_path / "run/check_data/excluded.txt")) == set()
    assert {path.name for path in (tmp_path / "run/check_data").iterdir()} == {
        "report.json",
        "report.md",
        "class_balance.png",
        "excluded.txt",
    }


def test_bad_images_are_found_and_the_list_leaves_out_exactly_those(
    folders: Path, report: Any, configured: Any, tmp_path: Path
) -> None:
    images = files(folders, "*/*/*")
    awkward = images[1].with_name("two words # größe.JPEG")
    images[1].rename(awkward)
    images[1] = awkward
    planted = images[1:10:2]
    for path, damage in zip(planted, DAMAGE, strict=True):
        path.write_bytes(damage(path.read_bytes()))
    found = report(folders, refused=True)
    assert sorted(fault["file"] for fault in found["faults"]) == sorted(map(str, planted))
    assert {fault["kind"] for fault in found["faults"]} == {"image cannot be used"}
    assert sum(split["usable"] for split in found["splits"].values()) == len(images) - len(planted)

    chosen = f"data.exclude={tmp_path}/run/check_data/excluded.txt"
    data = build(configured(folders, chosen).data, "data")
    assert {*data.train_set().images, *data.val_set().images} == {*images} - {*planted}
    assert report(folders, chosen)["faults"] == []
    assert read_exclude_list(f"{tmp_path}/run/check_data/excluded.txt") == {*map(str, planted)}


def test_bad_masks_are_found_and_the_list_leaves_out_exactly_their_images(
    scenes: Path, report: Any, configured: Any, tmp_path: Path
) -> None:
    images, masks = (files(scenes, f"{kind}/train2017/*") for kind in ("images", "annotations"))
    masks[0].unlink()
    masks[1].unlink()
    Image.open(masks[2]).resize((50, 60), Image.Resampling.NEAREST).save(masks[2])
    labels = np.array(Image.open(masks[3]))
    labels[5, 5] = 200
    Image.fromarray(labels).save(masks[3])
    Image.open(masks[4]).convert("RGB").save(masks[4])
    masks[5].write_bytes(b"")
    masks[6].write_bytes(masks[6].read_bytes()[:-200])
    images[6].write_bytes(b"")  # both are named
    found = report(scenes, refused=True)
    assert [(fault["kind"], fault["file"]) for fault in found["faults"]] == [
        ("image has no mask", str(images[0])),
        ("image has no mask", str(images[1])),
        *(("mask cannot be used", str(mask)) for mask in masks[2:6]),
        ("image cannot be used", str(images[6])),
        ("mask cannot be used", str(masks[6])),
    ]
    for fault, words in zip(found["faults"], [str(masks[0]), str(masks[1]), "50 x 60", "[200]", "'RGB'"], strict=False):
        assert words in fault["problem"]
    assert (found["splits"]["train"]["samples"], found["splits"]["train"]["usable"]) == (9, 2)

    assert read_exclude_list(f"{tmp_path}/run/check_data/excluded.txt") == {*map(str, images[:7])}
    with pytest.raises(MissingMasksError, match="2 of 9"):
        build(configured(scenes).data, "data").train_set()
    chosen = f"data.exclude={tmp_path}/run/check_data/excluded.txt"
    assert list(build(configured(scenes, chosen).data, "data").train_set().images) == images[7:]
    assert report(scenes, chosen)["faults"] == []


def test_peculiar_images_are_noted_and_stay_in(folders: Path, report: Any, tmp_path: Path) -> None:
    images = files(folders, "*/*/*")
    Image.open(images[0]).convert("L").save(images[0])
    Image.open(images[4]).convert("CMYK").save(images[4])
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.open(images[8]).save(images[8], exif=exif)
    found = report(folders)
    assert notes(found) == {
        "grayscale": [str(images[0])],
        "CMYK": [str(images[4])],
        "EXIF rotation": [str(images[8])],
    }
    assert read_exclude_list(str(tmp_path / "run/check_data/excluded.txt")) == set()


def test_equal_images_are_listed_by_whether_splits_share_them(folders: Path, report: Any) -> None:
    train, val = files(folders, "train/*/*"), files(folders, "val/*/*")
    shared, twice = val[0].with_name("other.JPEG"), train[4].with_name("twice.JPEG")
    shutil.copy(train[0], shared)
    shutil.copy(train[4], twice)
    found = report(folders)
    assert found["equal_images"] == {
        "across_splits": [[str(train[0]), str(shared)]],
        "within_a_split": [[str(train[4]), str(twice)]],
    }
    assert found["faults"] == []


def test_statistics_are_those_of_all_pixels_at_once(scenes: Path, report: Any) -> None:
    found = report(scenes)["splits"]["train"]
    images = [np.asarray(Image.open(path)).reshape(-1, 3) for path in files(scenes, "images/train2017/*")]
    pixels = np.concatenate(images) / 255
    assert found["mean"] == pytest.approx(pixels.mean(axis=0).tolist(), abs=1e-9)
    assert found["deviation"] == pytest.approx(pixels.std(axis=0).tolist(), abs=1e-9)


def test_the_balance_of_masks_is_counted_in_pixels_and_in_images(scenes: Path, report: Any) -> None:
    found = report(scenes)["splits"]["val"]
    masks = [np.asarray(Image.open(path)) for path in files(scenes, "annotations/val2017/*")]
    for official, counts in zip(STUFF, found["classes"].values(), strict=True):
        pixels = [(mask == official - 1).sum() for mask in masks]
        assert counts == {"pixels": sum(pixels), "images": sum(count > 0 for count in pixels)}
    labelled = sum(counts["pixels"] for counts in found["classes"].values())
    assert found["ignored_pixels"] == sum(mask.size for mask in masks) - labelled


def test_the_balance_of_folders_is_counted_in_images(folders: Path, report: Any, tmp_path: Path) -> None:
    files(folders, "train/*/*")[0].unlink()
    found = report(folders)["splits"]
    assert [counts["images"] for counts in found["train"]["classes"].values()] == [2, 3, 3]
    assert [counts["images"] for counts in found["val"]["classes"].values()] == [2, 2, 2]
    assert "| 2 | 25.000% | 2 | 33.333% |" in (tmp_path / "run/check_data/report.md").read_text()


def test_a_test_split_of_its_own_is_checked_too(shared_data: Path, composed: Any, tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        for folder, suffix in ((split, "jpg"), (f"{split}annot", "png")):
            (tmp_path / "camvid" / folder).mkdir(parents=True)
            for file in sorted((shared_data / "camvid_240" / folder).glob(f"*.{suffix}"))[:2]:
                shutil.copy(file, tmp_path / "camvid" / folder)
    bad = files(tmp_path, "camvid/testannot/*")[0]
    bad.write_bytes(b"")
    overrides = ("task=segmentation", "data=camvid", f"data.root={tmp_path}/camvid", "check_data.workers=0")
    with pytest.raises(DataError, match="used: 1;"):
        run(validate(composed("mode=check_data", *overrides)), tmp_path / "run")
    found = json.loads((tmp_path / "run/check_data/report.json").read_text())
    assert [(fault["split"], fault["file"]) for fault in found["faults"]] == [("test", str(bad))]


def test_processes_find_what_one_finds(scenes: Path, report: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    files(scenes, "images/train2017/*")[3].write_bytes(b"")
    alone = report(scenes, refused=True)
    monkeypatch.setattr(check_data, "CHUNK_SIZE", 2)
    assert report(scenes, "check_data.workers=2", refused=True) == alone


@pytest.mark.parametrize(
    ("overrides", "unit"),
    [
        (("data.image_size=16",), "images"),
        (("task=segmentation", "data.image_size=32", "data.train_scenes=20", "data.val_scenes=5"), "pixels"),
    ],
)
def test_data_sets_without_files_get_balance_and_statistics(
    composed: Any, tmp_path: Path, overrides: tuple[str, ...], unit: str
) -> None:
    cfg = validate(composed("mode=check_data", "check_data.workers=0", *overrides))
    run(cfg, tmp_path)
    found = json.loads((tmp_path / "check_data/report.json").read_text())["splits"]["val"]
    samples = build(cfg.data, "data").val_set()
    images, targets = zip(*(samples[i] for i in range(len(samples))), strict=True)
    pixels = np.stack([image.numpy() for image in images]) / 255
    assert found["mean"] == pytest.approx(pixels.mean(axis=(0, 2, 3)))
    counts = np.bincount(np.ravel([np.asarray(target) for target in targets]), minlength=len(found["classes"]))
    assert [count[unit] for count in found["classes"].values()] == counts.tolist()


def test_the_command_line_reports_by_its_exit_code(folders: Path, tmp_path: Path, command) -> None:
    bad = files(folders, "val/*/*")[0]
    bad.write_bytes(b"")
    arguments = ["mode=check_data", "data=imagenet", f"data.root={folders}", "name=x", "check_data.workers=1"]
    done = command(*arguments)
    assert done.returncode == 1
    assert done.stderr.startswith("error: samples that cannot be used: 1; ")
    assert "Traceback" not in done.stderr
    assert "checking train 0/9" in done.stdout
    assert read_exclude_list(str(tmp_path / "runs/x/check_data/excluded.txt")) == {str(bad)}


@pytest.mark.parametrize("moment", [None, 0.0, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6])
@pytest.mark.slow
def test_ctrl_c_at_any_moment_after_the_start_stops_it_and_its_workers(tmp_path: Path, moment: float | None) -> None:
    arguments = ["mode=check_data", "task=segmentation", "data.train_scenes=1000000", "check_data.workers=2"]
    command, workers = [sys.executable, "-u", "-m", "visual_transformers", *arguments], list[str]()
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("checking train 0/")
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        while moment is None and len(workers := children.read_text().split()) < 2:
            time.sleep(0.1)
        time.sleep(moment or 0)
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(timeout=60) == 130
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)


def test_ctrl_c_that_a_callback_forgets_is_raised_again() -> None:
    before = signal.getsignal(signal.SIGINT)
    signals.raise_on_ctrl_c()
    try:
        with pytest.raises(KeyboardInterrupt):
            for item in signals.interruptible(range(3)):
                assert item == 0
                with suppress(KeyboardInterrupt):
                    os.kill(os.getpid(), signal.SIGINT)
                    time.sleep(0.1)
    finally:
        signal.signal(signal.SIGINT, before)
        signals._CtrlC.received = False
