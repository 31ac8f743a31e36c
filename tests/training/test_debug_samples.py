"""Runs on some samples of each split (`debug.samples`), whose images are files."""

from __future__ import annotations

from pathlib import Path

import pytest

from visual_transformers.errors import RunError
from visual_transformers.runs.run_dir import RunDirectory
from visual_transformers.training.metadata import run_metadata
from visual_transformers.training.trainer import Trainer


@pytest.fixture
def build(tiny, class_folders, tmp_path):
    """`build()`: a trainer on 4 of 12 training images, with its configuration."""
    root = class_folders({"train": {"ant": 6, "cat": 6}, "val": {"ant": 3, "cat": 3}})

    def built():
        settings = ("data.eval_resize=36", "data.batch_size=2")
        cfg = tiny("data=image_folder", f"data.root={root}", *settings, "debug.samples=4")
        return Trainer.build(cfg, RunDirectory(tmp_path / "run"))

    return built


def test_a_step_that_is_not_finite_is_named_by_its_files(build):
    trainer = build()
    with pytest.raises(RunError) as stopped:
        trainer.guard.stop([1, 0.1, float("nan"), 1.0])
    chosen = trainer.components.sets["train"]
    files = {chosen.dataset.origins(index)[0] for index in chosen.indices}
    assert len(files) == 4
    assert sum(file in str(stopped.value) for file in files) == 2


def test_the_digest_of_the_data_set_tells_its_file_names(build):
    trainer = build()
    before = run_metadata(trainer.cfg, trainer.components)
    file = Path(trainer.components.sets["train"].dataset.origins(1)[0])
    file.rename(file.with_stem("renamed"))
    trainer = build()
    after = run_metadata(trainer.cfg, trainer.components)
    assert before["data_set"] != after["data_set"]
    assert before["settings"] == after["settings"]
