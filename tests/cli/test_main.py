"""The command line as a process: what it prints, and how it exits."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image

from visual_transformers.checkpoints import weights
from visual_transformers.cli.main import remove_output
from visual_transformers.cli.shorthands import expand
from visual_transformers.config.instantiate import build
from visual_transformers.errors import INTERRUPTED


def test_help_shows_the_groups_their_options_and_six_examples(command):
    text = command("--help").stdout
    assert text.count("  python -m visual_transformers") == 6
    for line in (
        "model: panoptic_fpn, panoptic_fpn_r101, resnet101, resnet18",
        "hardware: cpu, gpu, multi_gpu",
        "task: classification",
    ):
        assert line in text


def test_cfg_job_prints_the_whole_resolved_configuration(command):
    text = command("task=segmentation", "--cfg", "job").stdout
    assert "name: vt_fpn-digit_scenes-seed0" in text
    assert "${" not in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["optimizer.lrr=1"],
            ["error: optimizer.lrr: no such key; did you mean optimizer.lr?\n", "+optimizer.lrr=VALUE"],
        ),
        (["modl=resnet18"], ["error: modl: no such key; did you mean model?\n"]),
        (["optimizer.lr=abc", "training.epochs=0"], ["optimizer.lr=abc: expected float", "training.epochs=0"]),
        (["model=vt_resnt18"], ["error: model=vt_resnt18: no such option; did you mean vt_resnet18?\n"]),
        (["logger=[console,wandbb]"], ["error: logger=wandbb: no such option; did you mean wandb?\n"]),
        (["logger.wandb.project=x"], ["this logger is not chosen", "logger=[console,files,wandb]"]),
        (["-m", "hydra.launcher.partition=x"], ["hydra.launcher.partition: no such key of this launcher", "slurm"]),
        (["hardware=slurm", "seed=0"], ["sbatch is not installed", "hardware=submitit_local"]),
        (["hardware=submitit_local", "hydra.launcher.timeout_min=abc"], ["timeout_min", "expected type"]),
        (["recipe=cifar"], ["error: recipe=cifar: no such option; there are camvid_small, "]),
        (["task=segmentation", "model=resnet18"], ["model=resnet18 is for classification", "choose another model"]),
        (["mode=tarin"], ["error: mode=tarin: no such option; did you mean train?"]),
        (["input=photo.jpg"], ["error: input: only for mode=predict and mode=explain. Choose that mode"]),
        (["mode=export", "predict.top=3"], ["error: predict", "only for mode=predict. Choose that mode"]),
        (["mode=predict", "predict.tpo=3"], ["error: predict.tpo: no such key; did you mean predict.top?"]),
        (["mode=predict"], ["mode=predict needs a trained model"]),
        (["mode=test"], ["mode=test needs a trained model", "weights=PATH"]),
        (["data=imagenet", "data.root=/nowhere"], ["/nowhere", "/nowhere/train/<class>"]),
        (["data.image_size=8"], ["8 x 8", "at least 16"]),
        (["hardware.precision=fp16"], ["fp16 needs a GPU"]),
        (["data=null"], ["Config group"]),
        (["training=null"], ["training", "expected a group of keys"]),
        (["study=ablation_tokens"], ["study=ablation_tokens compares several runs. Start it with -m"]),
        (["hydra.run.dir=/proc/nowhere"], ["No such file or directory", "/proc/nowhere"]),
    ],
)
def test_a_user_s_mistake_ends_with_a_sentence_and_leaves_nothing(command, tmp_path, monkeypatch, arguments, words):
    monkeypatch.setenv("PATH", "/nowhere")  # there may be a SLURM
    ended = command(*arguments)
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: ")
    assert "Traceback" not in ended.stderr
    assert all(word in ended.stderr for word in words)
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("override", ["model.tokns=3,4", "optimizer.lr=a,b"])
def test_a_sweep_that_is_refused_leaves_nothing(command, tmp_path, override):
    ended = command("-m", override)
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    assert [*tmp_path.iterdir()] == []


def test_a_job_s_error_keeps_its_traceback_where_that_is_asked_for(command, monkeypatch):
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    ended = command("training.epochs=0")
    assert ended.returncode == 1
    assert "ConfigError: training.epochs=0: must be at least 1" in ended.stderr
    assert "Traceback" in ended.stderr


def test_a_folder_with_nothing_but_hydra_s_files_is_taken_away_with_those_above(tmp_path, monkeypatch):
    (tmp_path / "here/runs/a/b/.hydra").mkdir(parents=True)
    (tmp_path / "here/runs/a/b/.hydra/config.yaml").touch()
    monkeypatch.chdir(tmp_path / "here")
    remove_output(Path("runs/a/b"))
    assert [*tmp_path.rglob("*")] == [tmp_path / "here"]


@pytest.mark.parametrize("file", ["runs/a/metrics.jsonl", "runs/a/.hydra/mine.yaml", "runs/a/checkpoints/last.pt"])
def test_a_folder_with_anything_else_stays_as_it_is(tmp_path, monkeypatch, file):
    for path in (tmp_path / "runs/a/.hydra/config.yaml", tmp_path / file):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    remove_output(Path("runs/a"))
    assert sorted(tmp_path.rglob("*")) == before


def test_the_current_folder_is_never_taken_away(tmp_path, monkeypatch):
    (tmp_path / ".hydra").mkdir()
    monkeypatch.chdir(tmp_path)
    remove_output(tmp_path)
    remove_output(Path("nowhere"))
    assert [*tmp_path.iterdir()] == [tmp_path / ".hydra"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_whole_process_group_saves_the_run_even_with_loader_workers(tmp_path, number):
    arguments = ["hardware.workers=2", "hardware.threads=1", "data.image_size=32", "logger.console.progress=lines",
                 "model.token_channels=32", "checkpoint.every.steps=2", "training.epochs=100", "name=run"]  # fmt: skip
    command = [sys.executable, "-m", "visual_transformers", *arguments]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        deadline = time.monotonic() + 60
        while not (tmp_path / "runs/run/checkpoints/last.pt").exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        os.killpg(process.pid, number)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == INTERRUPTED
    assert "the same command resumes it" in errors
    assert "Traceback" not in errors


def test_a_bad_file_met_by_a_loader_worker_ends_the_program_with_a_sentence(command, tmp_path):
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            folder = tmp_path / "data" / split / name
            folder.mkdir(parents=True)
            for i in range(4):
                Image.new("RGB", (32, 32), (60 * i, 0, 0)).save(folder / f"{i}.png")
    broken = tmp_path / "data/train/cat/2.png"
    broken.write_bytes(b"no image")
    arguments = ["data=imagenet", "data.root=data", "data.image_size=32", "data.eval_resize=32", "data.batch_size=4",
                 "data.check_files=0", "hardware.workers=2", "hardware.threads=1"]  # fmt: skip
    ended = command(*arguments)
    assert ended.returncode == 1
    assert "2.png: cannot be read as an image" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("path", ["in/[12]?*.jpg", "my photos/a b.png", "{x}/(y).png", "it's.png", "a=b:c.png", "x\\y"])
def test_paths_need_no_quotes_of_hydra_s(composed, path):
    given = [
        "mode=predict",
        f"input={path}",
        f"weights={path}",
        "data=imagenet",
        f"data.root={path}",
        f"data.exclude={path}",
    ]
    cfg = composed(*expand(given))
    assert cfg.input == cfg.weights.file == cfg.data.root == cfg.data.exclude == path


@pytest.mark.parametrize("argument", ["input=photos/*.jpg", "weights.file=a,b", "input='quoted [1]'", "seed=[1]"])
def test_other_arguments_stay_as_they_are(argument):
    assert expand([argument]) == [argument]


def test_keys_of_some_modes_are_added_to_a_sweep_over_modes():
    """Hydra composes such a sweep without its modes, and would refuse their keys."""
    assert expand(["-m", "mode=predict,explain", "input=x", "seed=0"])[2:] == ["++input=x", "seed=0"]
    assert expand(["hardware=slurm", "study=mine", "profile.seconds=0"])[2:] == ["++profile.seconds=0"]
    assert expand(["-m", "mode=profile", "profile.seconds=0,1"])[2:] == ["profile.seconds=0,1"]
    assert expand(["mode=mine", "predict.top=1"])[1:] == ["predict.top=1"]


@pytest.mark.parametrize("mode", ["test", "predict", "explain", "export"])
def test_a_damaged_weight_file_ends_with_a_sentence_in_every_mode(command, tmp_path, mode):
    (tmp_path / "damaged.pt").write_text("no weights")
    ended = command(f"mode={mode}", "weights=damaged.pt")
    assert ended.returncode == 1
    assert "weights=damaged.pt: not a weight file" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_published_weights_come_with_their_model_and_preparation_and_ask_for_no_data_set(
    command, tmp_path, monkeypatch
):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    file = tmp_path / "hub/checkpoints/resnet50-11ad3fa6.pth"
    file.parent.mkdir(parents=True)
    file.write_text("no weights")
    Image.new("RGB", (32, 32)).save(tmp_path / "photo.png")
    ended = command("mode=predict", "weights=torchvision:ResNet50_Weights.IMAGENET1K_V2", "input=photo.png")
    assert ended.returncode == 1
    assert "is not the published file, because its hash differs" in ended.stderr


def test_published_weights_name_the_run():
    published = "weights=torchvision:ResNet50_Weights.IMAGENET1K_V2"
    assert "name=ResNet50_Weights.IMAGENET1K_V2" in expand(["mode=predict", published])


@pytest.fixture
def run_of_a_vt_resnet34(tiny, tmp_path):
    """The folder of a run `mine`, whose model is another than the default."""
    cfg = tiny("model=vt_resnet34", "name=mine")
    model = build(cfg.model, "model", num_classes=10)
    file = tmp_path / "runs/mine/checkpoints/best.safetensors"
    weights.save(file, model, {"classes": [str(i) for i in range(10)], "config": cfg.everything})
    return tmp_path / "runs/mine"


def test_a_run_s_name_alone_brings_its_settings(command, run_of_a_vt_resnet34, tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "photo.png")
    ended = command("mode=predict", "name=mine", "input=photo.png", "hardware.threads=1")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert (run_of_a_vt_resnet34 / "predict/predictions.json").is_file()


def test_a_run_s_name_has_its_own_model_profiled_but_for_what_is_set(command, run_of_a_vt_resnet34):
    ended = command("mode=profile", "name=mine", "profile.seconds=0", "hardware.threads=1", "model.modules=2")
    assert (ended.returncode, ended.stderr) == (0, "")
    model = json.loads((run_of_a_vt_resnet34 / "profile/profile.json").read_text())["model"]
    assert (model["backbone"], model["modules"], model["token_channels"]) == ("resnet34", 2, 32)


def test_a_run_s_name_with_blanks_and_brackets_is_taken_over(composed, tmp_path):
    node = {"_target_": "x"}
    config = {"name": "my run (1), a", "task": node, "model": node, "data": node}
    torch.save({"model": {"w": torch.zeros(1)}, "config": config}, tmp_path / "w.pt")
    assert composed(*expand(["mode=test", f"weights={tmp_path}/w.pt"])).name == "my run (1), a"
