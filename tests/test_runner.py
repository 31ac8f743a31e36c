from __future__ import annotations

import csv
import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from visual_transformers import runner
from visual_transformers.checkpoints import train_state, weights
from visual_transformers.checkpoints.loading import load_weights
from visual_transformers.checkpoints.train_state import TrainState
from visual_transformers.data.digits import Digits
from visual_transformers.distributed.hardware import Hardware
from visual_transformers.errors import ConfigError, DataError, Interrupted, RunError, WeightsError
from visual_transformers.models import resnet18, vt_fpn
from visual_transformers.runs.run_dir import RunDirectory
from visual_transformers.tasks.task import Classification, Segmentation
from visual_transformers.training.evaluate import evaluate

TIMINGS = ("images_per_second",)


def records(directory: Path) -> list[dict]:
    lines = (directory / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in TIMINGS} for line in lines]


def build_trainer(cfg, task, model: nn.Module, directory: Path) -> runner.Trainer:
    """Build a trainer of a given model, on the CPU in float64, with plain gradient descent."""
    model = model.double()
    components = runner.Components(
        Hardware(channels_last=False), task, Digits(), {"train": range(10**6)}, model, model, nn.Identity()
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    schedule = torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
    state = TrainState(model, optimizer, schedule, components.hardware.scaler(), components.make_scores())
    return runner.Trainer(cfg, components, RunDirectory(directory), state, model, 1, 1, validation=None)


def weight_changes(trainer: runner.Trainer, images: torch.Tensor, targets: torch.Tensor) -> list[torch.Tensor]:
    """Take a step and return by how much it changed each parameter."""
    parameters = list(trainer.components.model.parameters())
    before = [p.detach().clone() for p in parameters]
    trainer.step((images, targets))
    return [p.detach() - b for p, b in zip(parameters, before, strict=True)]


@pytest.mark.parametrize("accumulate", [2, 4])
def test_accumulated_gradients_are_those_of_the_whole_batch(tiny, tmp_path, accumulate):
    images, targets = torch.randn(10, 3, 4, 4).double(), torch.randint(0, 10, (10,))
    changes = []
    for micro_batches in (1, accumulate):  # 4 micro-batches of 10 images have different sizes
        torch.manual_seed(1)
        model = nn.Sequential(nn.Flatten(), nn.Linear(48, 10))
        cfg = tiny("data.batch_size=360", f"training.accumulate={micro_batches}", "training.clip_norm=null")
        changes.append(weight_changes(build_trainer(cfg, Classification(), model, tmp_path), images, targets))
    for whole, accumulated in zip(*changes, strict=True):
        torch.testing.assert_close(accumulated, whole, rtol=1e-12, atol=1e-14)


def test_accumulation_weighs_all_valid_pixels_alike(tiny, tmp_path):
    images, targets = torch.randn(4, 3, 8, 8).double(), torch.randint(0, 10, (4, 8, 8))
    targets[0, :7] = Segmentation.ignore_index  # the first micro-batch has far fewer valid pixels
    changes = []
    for micro_batches in (1, 4):
        torch.manual_seed(1)
        cfg = tiny(f"training.accumulate={micro_batches}", "training.clip_norm=null")
        changes.append(
            weight_changes(build_trainer(cfg, Segmentation(), nn.Conv2d(3, 10, 1), tmp_path), images, targets)
        )
    for whole, accumulated in zip(*changes, strict=True):
        torch.testing.assert_close(accumulated, whole, rtol=1e-12, atol=1e-14)


def test_the_gradient_is_clipped_to_the_configured_norm(tiny, tmp_path):
    trainer = build_trainer(
        tiny("training.clip_norm=0.001"), Classification(), nn.Sequential(nn.Flatten(), nn.Linear(48, 10)), tmp_path
    )
    changes = weight_changes(trainer, torch.randn(8, 3, 4, 4).double(), torch.randint(0, 10, (8,)))
    assert torch.cat([c.flatten() for c in changes]).norm().item() == pytest.approx(0.001, rel=1e-3)


def test_no_gradient_is_left_for_the_next_step(tiny, tmp_path):
    trainer = build_trainer(tiny(), Classification(), nn.Sequential(nn.Flatten(), nn.Linear(48, 10)), tmp_path)
    trainer.step((torch.randn(8, 3, 4, 4).double(), torch.randint(0, 10, (8,))))
    assert all(p.grad is None for p in trainer.components.model.parameters())


def test_labels_are_smoothed_only_in_training():
    logits, targets = torch.randn(6, 10), torch.randint(0, 10, (6,))
    task = Classification(label_smoothing=0.3)
    plain = nn.functional.cross_entropy(logits, targets, reduction="sum")
    smoothed = nn.functional.cross_entropy(logits, targets, reduction="sum", label_smoothing=0.3)
    torch.testing.assert_close(task.loss_sum(logits, targets, training=False), plain)
    torch.testing.assert_close(task.loss_sum(logits, targets, training=True), smoothed)


def test_classification_ignores_no_class_index():
    """255 is the ignore index of masks, but a class index of ImageNet."""
    targets = torch.arange(1000)
    assert Classification().count(targets) == 1000
    logits = torch.zeros(1000, 1000)
    loss = Classification().loss_sum(logits, targets, training=False)
    torch.testing.assert_close(loss, 1000 * torch.tensor(1000.0).log())


@pytest.fixture(scope="module")
def finished(tiny, tmp_path_factory):
    """Folder of an uninterrupted run of 2 epochs with 4 steps each, which the tests below share."""
    directory = tmp_path_factory.mktemp("uninterrupted")
    runner.train(tiny("logger.files.curves=true"), directory)
    return directory


def test_a_run_writes_its_config_scores_curves_pictures_and_checkpoints(finished):
    written = {str(path.relative_to(finished)) for path in finished.rglob("*") if path.is_file()}
    assert written == {
        "config.yaml", "metrics.jsonl", "metrics.csv", "summary.json", "classes.csv", "curves.png", "samples.png",
        "status.json", "checkpoints/last.pt", "checkpoints/previous.pt", "checkpoints/best.safetensors",
    }  # fmt: skip
    summary = json.loads((finished / "summary.json").read_text())
    assert summary["scores"]["top1"] == summary["best"]["top1"]  # digits has no test split of its own
    rows = list(csv.DictReader((finished / "metrics.csv").open()))
    assert [int(row["step"]) for row in rows] == [4, 8]
    assert {"train/loss", "train/top1", "val/loss", "val/top1", "val/top5", "lr"} <= set(rows[0])
    assert [r["step"] for r in records(finished) if r["kind"] == "step"] == [2, 4, 6, 8]


@pytest.mark.parametrize("stop_at", [3, pytest.param(4, marks=pytest.mark.slow)])
def test_a_run_stopped_by_ctrl_c_and_resumed_ends_as_the_uninterrupted_one(
    tiny, finished, tmp_path, monkeypatch, weights_of, stop_at
):
    step = runner.Trainer.step

    def step_and_interrupt(trainer, batch):
        step(trainer, batch)
        if trainer.state.step == stop_at:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(runner.Trainer, "step", step_and_interrupt)
    with pytest.raises(Interrupted, match=f"stopped at step {stop_at} of 8.*same command"):
        runner.train(tiny(), tmp_path)
    monkeypatch.undo()
    runner.train(tiny(), tmp_path)

    resumed, whole = weights_of(tmp_path), weights_of(finished)
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)
    assert records(tmp_path) == records(finished)


def test_a_finished_run_run_again_changes_nothing(tiny, finished, weights_of):
    before, lines = weights_of(finished), records(finished)
    runner.train(tiny(), finished)
    after = weights_of(finished)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert records(finished) == lines


def test_resuming_with_other_settings_is_refused_with_a_list(tiny, finished):
    with pytest.raises(RunError) as refused:
        runner.train(tiny("optimizer.lr=0.5", "seed=3"), finished)
    assert "optimizer.lr: 0.001 -> 0.5" in str(refused.value)
    assert "seed: 0 -> 3" in str(refused.value)
    assert "resume=never" in str(refused.value)


def test_resuming_with_more_workers_is_allowed(tiny, finished):
    runner.train(tiny("hardware.workers=1", "training.log_every=3"), finished)


def test_the_mode_test_gives_the_scores_of_training(tiny, finished):
    expected = json.loads((finished / "summary.json").read_text())["scores"]
    runner.test(tiny("mode=test"), finished)
    assert json.loads((finished / "test" / "summary.json").read_text())["scores"] == expected


def test_scoring_with_settings_changed_since_training_prints_them(tiny, finished, tmp_path, capsys):
    best = finished / "checkpoints" / "best.safetensors"
    runner.test(tiny("mode=test", f"weights={best}"), tmp_path)
    assert "another setting" not in capsys.readouterr().out
    runner.test(tiny("mode=test", f"weights={best}", "data.image_size=48"), tmp_path)
    assert "another setting: data.image_size: 32 -> 48" in capsys.readouterr().out


@pytest.mark.parametrize("file", ["best.safetensors", "last.pt"])
def test_weights_of_another_model_are_refused_with_what_differs(tiny, finished, tmp_path, file):
    path = finished / "checkpoints" / file
    with pytest.raises(WeightsError, match=r"(?s)missing from the file.*weights.backbone_only=true"):
        runner.test(tiny("mode=test", f"weights={path}", "model.modules=3"), tmp_path)


def test_a_resnet_s_file_gives_its_backbone_to_a_vt_model(tmp_path):
    resnet = resnet18(num_classes=3)
    weights.save(tmp_path / "resnet.safetensors", resnet, {})
    model = vt_fpn(num_classes=5, backbone="resnet18", token_channels=32)
    file = weights.read(tmp_path / "resnet.safetensors")
    with pytest.raises(WeightsError, match=r"weights\.backbone_only=true"):
        load_weights(model, file, backbone_only=False, classes=list("abcde"))
    load_weights(model, file, backbone_only=True, classes=list("abcde"))
    assert torch.equal(model.state_dict()["backbone.layer4.1.conv2.weight"], resnet.layer4[1].conv2.weight)


def test_training_can_start_from_the_backbone_of_a_file(tiny, finished, tmp_path, capsys):
    path = finished / "checkpoints" / "best.safetensors"
    runner.train(tiny(f"weights.file={path}", "weights.backbone_only=true", "model.tokens=8", "training.epochs=1",
                      "schedule.warmup_epochs=0"), tmp_path)  # fmt: skip
    assert "keep their initial values" in capsys.readouterr().out


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_step(tiny, tmp_path):
    cfg = tiny("optimizer.lr=1e30", "schedule=constant", "training.clip_norm=null")
    with pytest.raises(RunError, match=r"loss of step \d is (nan|inf)"):
        runner.train(cfg, tmp_path)
    assert not (tmp_path / "checkpoints" / "last.pt").exists()


@pytest.mark.slow
def test_resume_never_sets_the_earlier_run_aside(tiny, tmp_path):
    short = ("training.epochs=1", "schedule.warmup_epochs=0")
    runner.train(tiny(*short), tmp_path)
    earlier = (tmp_path / "metrics.csv").read_text()
    runner.train(tiny(*short, "resume=never", "seed=1"), tmp_path)
    assert (tmp_path / "earlier-1" / "metrics.csv").read_text() == earlier
    assert (tmp_path / "metrics.csv").read_text() != earlier


def test_a_command_that_is_refused_sets_nothing_aside(tiny, finished):
    with pytest.raises(WeightsError):
        runner.train(tiny("resume=never", "weights=/nowhere"), finished)
    assert (finished / "metrics.csv").is_file()
    assert not (finished / "earlier-1").exists()


@pytest.mark.filterwarnings("ignore:.*meta parameter")
def test_restored_counts_are_on_the_model_s_device(tiny, finished, tmp_path):
    trainer = runner.Trainer.build(tiny(), RunDirectory(tmp_path))
    trainer.components.model.to("meta")
    trainer.restore(train_state.read_latest(RunDirectory(finished)))
    assert trainer.state.scores.confusion.counts.device.type == "meta"


def test_a_damaged_checkpoint_is_named(tiny, tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.pt").write_bytes(b"half a file")
    with pytest.raises(RunError, match=r"last\.pt: damaged"):
        runner.train(tiny(), tmp_path)


def test_only_training_changes_the_batch_statistics(tiny, tmp_path):
    trainer = runner.Trainer.build(tiny(), RunDirectory(tmp_path))
    statistics = trainer.components.model.backbone.bn1.running_mean
    before = statistics.clone()
    evaluate(trainer.components, trainer.validation)
    assert torch.equal(statistics, before)
    trainer.step(next(trainer.batches()))
    assert not torch.equal(statistics, before)


def test_segmentation_writes_an_iou_for_every_class(tiny_scenes, tmp_path):
    runner.train(tiny_scenes(), tmp_path)
    rows = list(csv.DictReader((tmp_path / "classes.csv").open()))
    assert [row["class"] for row in rows] == [*map(str, range(10)), "background"]
    assert "IoU" in rows[0]
    assert (tmp_path / "samples.png").stat().st_size > 10_000


def test_a_batch_of_one_image_at_the_end_of_an_epoch_is_refused_before_work_starts(tiny, tmp_path):
    with pytest.raises(ConfigError, match=r"data\.batch_size=359.*one image"):
        runner.train(tiny("data.batch_size=359", "data.image_size=16"), tmp_path)


def test_the_models_are_a_library_without_hydra():
    assert resnet18(num_classes=3).eval()(torch.randn(1, 3, 32, 32)).shape == (1, 3)


# Data sets of files


@pytest.fixture
def folders(tiny, tmp_path):
    """`folders(*overrides)`: configuration of a run over two classes of ten images, one of which is truncated."""
    for split, count in (("train", 10), ("val", 3)):
        for name in ("ant", "cat"):
            (tmp_path / "data" / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = np.random.default_rng(i).integers(0, 256, (40, 40, 3), np.uint8)
                Image.fromarray(pixels).save(tmp_path / "data" / split / name / f"{i}.jpg")
    bad = tmp_path / "data" / "train" / "cat" / "4.jpg"
    bad.write_bytes(bad.read_bytes()[:200])

    def configured(*overrides):
        return tiny(
            "data=imagenet", f"data.root={tmp_path}/data", "data.eval_resize=36", "data.batch_size=5", *overrides
        )

    return configured, bad


SKIPPING = ("data.on_error=skip", "data.max_skipped=0.1", "data.check_files=2")


def test_a_bad_file_stops_the_run_by_its_name(folders, tmp_path):
    configured, bad = folders
    with pytest.raises(DataError, match=f"^{bad}: cannot be read"):
        runner.train(configured("data.check_files=2"), tmp_path / "run")


def test_skipped_samples_are_counted_in_the_records(folders, tmp_path, capsys):
    configured, bad = folders
    runner.train(configured(*SKIPPING), tmp_path / "run")
    epochs = [record for record in records(tmp_path / "run") if record["kind"] == "epoch"]
    assert [record["skipped_train"] for record in epochs] == [1, 1]
    assert capsys.readouterr().err.count(f"skipped {bad}") == 1


def test_mixed_batches_are_a_function_of_seed_and_step(folders, tmp_path, weights_of):
    configured, _ = folders
    finals = []
    for name, random in (("one", 1), ("other", 2)):
        cfg = configured(*SKIPPING, "data/augmentation=mixup_cutmix")
        torch.manual_seed(random)
        runner.train(cfg, tmp_path / name)
        finals.append(weights_of(tmp_path / name))
    assert all(torch.equal(finals[0][key], finals[1][key]) for key in finals[0])


def test_mixed_images_are_learned_with_soft_targets(tiny, tmp_path):
    class Uniform(Digits):
        def build_mixing(self):
            return lambda images, targets: (images, torch.full((len(images), 10), 0.1, dtype=images.dtype))

    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 10))
    trainer = build_trainer(tiny("training.clip_norm=null"), Classification(), model, tmp_path)
    trainer.components.data = Uniform()
    nn.init.zeros_(model[1].weight)
    nn.init.zeros_(model[1].bias)
    changes = weight_changes(trainer, torch.randn(8, 3, 4, 4).double(), torch.randint(0, 10, (8,)))
    assert all(change.abs().max() < 1e-12 for change in changes)  # zero weights predict uniform probabilities


def test_skipped_validation_samples_are_counted_and_printed(folders, tmp_path, capsys):
    configured, bad = folders
    (bad.parents[2] / "val" / "cat" / "1.jpg").write_bytes(b"")
    runner.train(configured(*SKIPPING, "data.max_skipped=0.2"), tmp_path / "run")
    epochs = [record for record in records(tmp_path / "run") if record["kind"] == "epoch"]
    assert [record["skipped_val"] for record in epochs] == [1, 1]
    assert json.loads((tmp_path / "run/summary.json").read_text())["skipped_samples"] == 1
    assert "on the 6 samples of the validation split, of which 1 were skipped" in " ".join(
        capsys.readouterr().out.split()
    )


def test_a_batch_with_only_bad_files_changes_nothing_and_the_run_continues(folders, tmp_path):
    configured, bad = folders
    for other in bad.parents[1].glob("*/*.jpg"):
        if other.name not in ("0.jpg", "1.jpg"):
            other.unlink()
    bad.parents[1].joinpath("ant/0.jpg").write_bytes(b"")
    single = (
        "data.batch_size=1",
        "data.max_skipped=0.5",
        "data.image_size=64",
        "data.eval_resize=64",
    )
    cfg = configured("data.on_error=skip", "data.check_files=1", *single)
    runner.train(cfg, tmp_path / "run")
    assert records(tmp_path / "run")[-1]["step"] == 2 * 4


def test_resuming_with_another_set_of_files_is_refused(folders, tmp_path):
    configured, bad = folders
    cfg = configured(*SKIPPING)
    runner.train(cfg, tmp_path / "run")
    (bad.parent / "0.jpg").unlink()
    with pytest.raises(RunError, match=r"data_set\.training_samples: 20 -> 19"):
        runner.train(cfg, tmp_path / "run")


@pytest.mark.parametrize(("name", "samples"), [("fast", 32), ("limit", 256), ("overfit", 8), ("profiler", 1437)])
def test_a_debug_overlay_trains_on_as_many_samples_as_it_says(tiny, tmp_path, name, samples):
    runner.train(tiny(f"debug={name}", "training.steps=2"), tmp_path)
    assert json.loads((tmp_path / "summary.json").read_text())["training_samples"] == samples
