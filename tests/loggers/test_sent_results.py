"""Results of a run in the loggers."""

from __future__ import annotations

import csv
import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tests.support.wandb_sessions import history, inspected, lines, logs, of_type
from tests.support.watching import WatchedProcess

from visual_transformers import runner
from visual_transformers.loggers import Console, Files, Loggers, RunInfo, TensorBoard, WandB
from visual_transformers.loggers.records import record_key
from visual_transformers.runs.results import Picture, Results
from visual_transformers.training.components import Components
from visual_transformers.training.evaluate import draw_attention

LOGGERS = ("logger=[files,wandb,tensorboard]", "logger.wandb.mode=offline", "logger.files.curves=false")

TINY = ("hardware.threads=1", "training.samples=1", "training.log_every=2", "data.image_size=32", "data.batch_size=360",
        "model.token_channels=32", "logger.wandb.attention=0", "logger.tensorboard.attention=0")  # fmt: skip


@pytest.fixture(scope="module")
def trained(tiny, tmp_path_factory) -> Path:
    """Folder of a run of one epoch with all loggers."""
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_ERROR_REPORTING", "false")
        patch.setenv("WANDB_DATA_DIR", str(folder / "data"))
        runner.train(tiny(*LOGGERS, "training.epochs=1", "logger.wandb.upload_best=true"), folder)
    return folder


@pytest.fixture(scope="module")
def messages(trained) -> list[dict[str, Any]]:
    return inspected(*logs(trained))


def nested(item: dict[str, Any], key: str) -> dict[str, Any]:
    """Return W&B's description of a picture or table."""
    prefix = f"{key}."
    flat = {name.removeprefix(prefix): value for name, value in item.items() if name.startswith(prefix)}
    return item.get(key) or flat


def logged(messages: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    [row] = [row["item"] for row in of_type(messages, "history") if row["item"]["kind"] == kind]
    return row


def table(trained: Path, messages: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    """Return the rows of a table from the file that W&B would send."""
    [log] = logs(trained)
    content = json.loads((log.parent / "files" / nested(logged(messages, "tables"), name)["path"]).read_text())
    return [dict(zip(content["columns"], row, strict=True)) for row in content["data"]]


def test_w_and_b_has_the_records_and_then_the_results(trained, messages):
    rows = history(trained)
    assert rows[:-2] == lines(trained)
    assert list(map(record_key, rows[-2:])) == [("pictures", 4), ("tables", 4)]


def test_w_and_b_s_summary_equals_that_of_the_run(trained, messages):
    expected = json.loads((trained / "summary.json").read_text())
    found: dict[str, Any] = {}
    for summary in of_type(messages, "summary"):
        found |= summary.get("update", {})
    for name in ("scores", "best"):
        assert {key: nested(found, name)[key] for key in expected[name]} == expected[name]
    assert (found["parameters"], found["macs"]) == (expected["parameters"], expected["macs"])


def test_w_and_b_has_the_scores_and_the_confusions_of_classes(trained, messages):
    with (trained / "classes.csv").open() as file:
        expected = list(csv.DictReader(file))
    found = table(trained, messages, "results/classes")
    assert [row["class"] for row in found] == [row["class"] for row in expected]
    np.testing.assert_equal([row["recall"] for row in found], [float(row["recall"]) for row in expected])
    matrix = table(trained, messages, "results/confusion_matrix_table")
    assert len(matrix) == 100
    assert sum(row["nPredictions"] for row in matrix) == 360  # the validation split
    mistakes = {(row["Actual"], row["Predicted"]): row["nPredictions"] for row in matrix}
    confused = table(trained, messages, "results/most_confused")
    assert confused
    assert all(row["count"] == mistakes[row["truth"], row["prediction"]] for row in confused)


def test_w_and_b_has_the_pictures_and_the_weights(trained, messages):
    [log] = logs(trained)
    sent = [nested(logged(messages, "pictures"), "results/samples")["path"]]
    sent += nested(logged(messages, "pictures"), "results/attention")["filenames"]
    ours = [trained / "samples.png", trained / "attention/1.png", trained / "attention/2.png"]
    assert [(log.parent / "files" / path).read_bytes() for path in sent] == [path.read_bytes() for path in ours]
    [artifact] = [found for found in of_type(messages, "artifact") if found["type"] == "model"]
    assert set(artifact["aliases"]) == {"latest", "best"} and artifact["name"].startswith("best-")
    [entry] = artifact["manifest"]["contents"]
    assert int(entry["size"]) == (trained / "checkpoints/best.safetensors").stat().st_size


def test_tensorboard_has_scores_pictures_tables_and_the_configuration(trained):
    events = EventAccumulator(str(trained / "tensorboard"), size_guidance={"tensors": 0}).Reload()
    assert set(events.Tags()["images"]) == {"samples", "attention/1", "attention/2"}
    [picture] = events.Images("attention/1")
    assert (picture.step, picture.width) == (4, Image.open(trained / "attention/1.png").width)
    [best] = events.Scalars("best/top1")
    assert best.value == pytest.approx(json.loads((trained / "summary.json").read_text())["scores"]["top1"])
    texts = {tag: events.Tensors(tag)[0].tensor_proto.string_val[0].decode() for tag in events.Tags()["tensors"]}
    assert "    batch_size: 360" in texts["config/text_summary"]
    assert "| class | recall | precision |" in texts["classes/text_summary"]


@pytest.mark.slow
def test_a_killed_and_resumed_run_is_complete_in_both(tmp_path):
    settings = ["name=run", "training.epochs=2", *TINY, *LOGGERS, "logger=[console,files,wandb,tensorboard]"]
    with WatchedProcess(tmp_path, settings, 4) as process:
        for now in process.moments():
            if now.step >= 6:
                process.popen.send_signal(signal.SIGKILL)
    assert process.popen.returncode == -signal.SIGKILL
    with WatchedProcess(tmp_path, settings, 4) as process:
        assert process.popen.wait(300) == 0, process.output
    records = lines(process.run)
    assert list(map(record_key, records))[-2:] == [("step", 8), ("epoch", 8)]
    rows = history(process.run)
    found = {record_key(row): row for row in rows}
    assert len(found) == len(rows) == len(records) + 2
    for record in records:  # a repeated step has another speed
        row = found[record_key(record)]
        assert row | {"images_per_second": 0} == record | {"images_per_second": 0}
    events = EventAccumulator(str(process.run / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    assert [event.step for event in events.Scalars("train/loss")] == [2, 4, 6, 8]
    assert [event.step for event in events.Scalars("val/top1")] == [4, 8]


def results(confusion: list[list[float]]) -> Results:
    return Results({}, {name: {} for name in "abc"}, torch.tensor(confusion).double(), [])


def test_confusions_are_ranked_by_their_count():
    found = results([[5, 3, 0], [1, 9, 0], [4, 0, 0]]).rank_confusions(2)
    assert found == [
        {"truth": "c", "prediction": "a", "count": 4, "share": 1.0},
        {"truth": "a", "prediction": "b", "count": 3, "share": 0.375},
    ]
    assert len(results([[5, 3, 0], [1, 9, 0], [4, 0, 0]]).rank_confusions(100)) == 3
    assert results([[5, 0, 0], [0, 9, 0], [0, 0, 0]]).rank_confusions(100) == []


@pytest.mark.parametrize(("model", "sheets"), [("vt_resnet18", ["1.png", "2.png"]), ("resnet18", [])])
def test_attention_is_drawn_for_models_with_tokens(composed, tmp_path, model, sheets):
    from visual_transformers.config.validation import validate

    parts = Components.build(
        validate(composed(f"model={model}", "hardware.threads=1", "data.image_size=32")), None, "val"
    )
    parts.model.eval()
    image, target = parts.sets["val"][0]
    picture = Picture(image, torch.as_tensor(target), torch.tensor(0))
    (tmp_path / "attention").mkdir()
    (tmp_path / "attention/9.png").write_bytes(b"of an earlier scoring")
    draw_attention(parts, [picture, picture], tmp_path / "attention")
    assert sorted(path.name for path in tmp_path.glob("attention/*")) == sheets


def test_attention_is_drawn_only_for_loggers_that_show_it(tmp_path):
    run = RunInfo("name", tmp_path, "top1", 0, 0, 4, "")
    assert Loggers([], run).attention == Loggers([Console(), Files()], run).attention == 0
    assert Loggers([Files(), WandB(attention=3), TensorBoard(attention=2)], run).attention == 3
