"""The default settings learn: short versions of the main commands, and the record of all of them in full length."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support import defaults
from tests.support.defaults import PROMISES, Promise
from visual_transformers import runner
from visual_transformers.config.validation import validate

ROOT = Path(__file__).parents[1]
RECORDED = defaults.recorded()

# What the main commands learn in a short time

SMALL_DIGITS = ["data.image_size=48", "training.epochs=2"]
SMALL_SCENES = ["task=segmentation", "data.image_size=48", "data.train_scenes=2400", "data.max_digits=3",
                "training.epochs=1"]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "floor"),
    [
        ([*SMALL_SCENES, "model=vt_fpn"], 0.11),
        ([*SMALL_SCENES, "model=panoptic_fpn"], 0.11),
        ([*SMALL_DIGITS, "model=vt_resnet18"], 0.8),
        ([*SMALL_DIGITS, "model=resnet18"], 0.8),
    ],
    ids=["vt_fpn", "panoptic_fpn", "vt_resnet18", "resnet18"],
)
@pytest.mark.slow
def test_a_short_training_with_the_default_settings_learns(composed, tmp_path, arguments, floor):
    """The background alone gives mIoU 0.09. VT-FPN had 0.083 when its tokens drowned the pixels, and has 0.141 now."""
    quiet = ["logger=[files]", "logger.files.curves=false", "hardware.threads=1"]
    assert runner.train(validate(composed(*arguments, *quiet)), tmp_path) >= floor


# What is recorded


def test_every_model_file_is_to_be_measured_with_its_defaults():
    files = {path.stem for path in (ROOT / "conf" / "model").glob("*.yaml")}
    named = {word.removeprefix("model=") for p in PROMISES for word in p.arguments.split() if word.startswith("model=")}
    assert files - {"vt_resnet18"} == named - {"vt_resnet18"}
    assert PROMISES[0] == Promise("", 0.97)  # vt_resnet18, as the default


@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise.arguments)
def test_a_default_setting_has_not_changed_since_it_was_measured(promise):
    """If this fails, measure the commands anew: `make test-defaults RECORD=--record`."""
    then, now = RECORDED[promise.command]["settings"], promise.settings()
    assert {key: (then.get(key), now.get(key)) for key in then | now if then.get(key) != now.get(key)} == {}


@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise.arguments)
def test_a_recorded_score_reaches_its_floor(promise):
    assert RECORDED[promise.command]["score"] >= promise.floor


def test_the_table_has_the_recorded_scores():
    text = (ROOT / "experiments" / "README.md").read_text()
    for result in RECORDED.values():
        assert f"| `{result['command']}` | {100 * result['score']:.1f} | {result['train_seconds']} |" in text


# The program that measures them


@pytest.mark.slow
def test_a_finished_command_is_not_run_again_and_a_score_below_its_floor_is_said(tmp_path):
    settings = "data.image_size=32 data.batch_size=360 model.token_channels=32 hardware.threads=1 training.steps=1"
    promise = Promise(settings, 0.99)
    run = defaults.measure(promise, tmp_path)
    written = (run / "summary.json").stat().st_mtime_ns
    assert defaults.measure(promise, tmp_path) == run
    assert (run / "summary.json").stat().st_mtime_ns == written
    found = defaults.result(promise, run)
    assert found["epochs"] == [found["score"]]
    assert found["settings"]["data.image_size"] == 32
    assert not {"seed", "name", "hardware.threads"} & set(found["settings"])
    assert defaults.row(promise, found)["verdict"] == "BELOW THE FLOOR"
    assert defaults.row(promise, found | {"score": 0.99})["verdict"] == "ok"


def test_what_is_recorded_of_the_same_code_is_not_measured_again(tmp_path, monkeypatch, capsys):
    promise, record = Promise("seed=1", 0.5), tmp_path / "record.json"
    code = defaults.digest(promise)
    found = {"command": promise.command, "code": code, "score": 0.75, "train_seconds": 1}
    record.write_text(json.dumps([found]))
    monkeypatch.setattr(defaults, "PROMISES", [promise])
    monkeypatch.setattr(defaults, "RECORD", record)
    monkeypatch.setattr("sys.argv", ["defaults.py", "--folder", str(tmp_path / "runs"), "--record"])
    with pytest.raises(SystemExit) as ended:
        defaults.main()
    assert ended.value.code == 0
    assert "0.7500" in capsys.readouterr().out
    assert not (tmp_path / "runs").exists()
    assert json.loads(record.read_text()) == [found]


def test_a_command_that_fails_is_said_and_makes_the_program_fail(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(defaults, "PROMISES", [Promise("model=nonsense", 0.5)])
    monkeypatch.setattr("sys.argv", ["defaults.py", "--folder", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        defaults.main()
    assert ended.value.code == 1
    assert "FAILED" in capsys.readouterr().out


def test_the_digest_changes_with_a_setting_and_with_the_program_and_not_with_the_seed(tmp_path, monkeypatch):
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "a.py").write_text("a = 1")
    monkeypatch.setattr(defaults, "ROOT", tmp_path)
    before = defaults.digest(Promise("", 0.5))
    assert defaults.digest(Promise("seed=1", 0.5)) == before
    assert defaults.digest(Promise("optimizer.lr=0.1", 0.5)) != before
    (tmp_path / "src" / "a.py").write_text("a = 2")
    assert defaults.digest(Promise("", 0.5)) != before
