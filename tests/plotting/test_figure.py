"""Figures: text is drawn literally, missing letters are a note, and errors do not stop a run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from visual_transformers.errors import RunError
from visual_transformers.modes.check_data import plots
from visual_transformers.plotting import figure, image_plots, run_plots

GREY = np.full((8, 8, 3), 99, np.uint8)
NAMES = ["Ba$$in", "$x", "$\\frac{1}", "a_b^c", "\\alpha", "100 %", "{", "<b>", "two\nlines"]


@pytest.mark.parametrize("name", NAMES)
def test_any_name_can_be_drawn(tmp_path, name):
    path = tmp_path / "picture.png"
    run_plots.plot_classification(path, [GREY], [0], [1], [name, f"not {name}"])
    run_plots.plot_segmentation(
        tmp_path / "masks.png", [GREY], [np.zeros((8, 8), int)], [np.ones((8, 8), int)], [name, "b"]
    )
    plots.draw_class_balance(tmp_path / "balance.png", [name, "b"], {"train": np.array([3, 4])}, "images")
    run_plots.plot_curves(
        tmp_path / "curves.png", [{"kind": "epoch", "epoch": 1, "val/loss": 1.0, "val/top1": 0.5}], "top1", name
    )
    image_plots.plot_captioned(tmp_path / "sheet.png", [GREY], [name])
    assert len(list(tmp_path.glob("*.png"))) == 5
    assert Image.open(path).size[0] > 0


def test_a_name_is_drawn_literally_and_not_as_a_formula(tmp_path):
    """matplotlib would set text between dollar signs in italics and omit the signs."""
    image_plots.plot_captioned(tmp_path / "a.png", [GREY], ["$a$ and $b$"])
    image_plots.plot_captioned(tmp_path / "b.png", [GREY], ["a and b"])
    assert Image.open(tmp_path / "a.png").tobytes() != Image.open(tmp_path / "b.png").tobytes()


def test_missing_letters_are_one_note(tmp_path, capsys, recwarn):
    figure._note_missing_letters.cache_clear()
    image_plots.plot_captioned(tmp_path / "a.png", [GREY] * 2, ["\U0001f9ff\U000130fe", "\U000130ff\U00013100"])
    image_plots.plot_captioned(tmp_path / "b.png", [GREY], ["\U000130fe"])
    assert capsys.readouterr().err.count("note: pictures lack letters") == 1
    assert not [warning for warning in recwarn if "missing from" in str(warning.message)]


def test_an_error_in_a_figure_is_a_note(tmp_path, capsys, monkeypatch):
    def fail(*_: object) -> None:
        raise RunError("the disk is full")

    monkeypatch.setattr(figure.atomic, "write", fail)
    run_plots.plot_curves(tmp_path / "curves.png", [], "top1", "run")
    assert f"note: {tmp_path}/curves.png was not drawn (RunError: the disk is full)" in capsys.readouterr().err


def test_ctrl_c_is_not_caught(monkeypatch):
    def stop(path: Path) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        figure.nonfatal(stop)(Path("x"))
