"""Progress: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

import pytest

from visual_transformers.loggers import progress
from visual_transformers.loggers.progress import show_progress


def test_without_a_terminal_only_the_first_line_is_immediate(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with show_progress("checking val", 100) as advance:
        assert capsys.readouterr().out == "checking val 0/100\n"
        advance(32)
    assert capsys.readouterr().out == ""


def test_lines_tell_how_many_are_done(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0)
    with show_progress("checking val", 100) as advance:
        advance(32)
        advance(32)
    assert capsys.readouterr().out.splitlines()[1:] == ["checking val 32/100", "checking val 64/100"]


def test_on_a_terminal_there_is_a_bar(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    with show_progress("checking val", 100) as advance:
        advance(32)
    assert "32/100" in capsys.readouterr().out
