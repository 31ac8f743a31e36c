"""Shared drawing code: literal text, font fallback, and pictures that cannot fail a run."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from functools import cache, wraps
from pathlib import Path
from typing import ParamSpec

import matplotlib
from matplotlib import font_manager
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from visual_transformers import atomic

matplotlib.rcParams["text.parse_math"] = False  # a class may be called Ba$$in
matplotlib.rcParams["text.usetex"] = False
FURTHER_FONTS = ("Noto Sans CJK SC", "Noto Sans CJK JP", "WenQuanYi Zen Hei", "Noto Sans", "Noto Sans Arabic",
                 "Noto Sans Devanagari", "Droid Sans Fallback", "Arial Unicode MS", "Unifont")  # fmt: skip
"""Fonts with letters that matplotlib's own lacks; those that are installed are asked for these."""
Arguments = ParamSpec("Arguments")


def picture(draw: Callable[Arguments, None]) -> Callable[Arguments, None]:
    """A function that draws a picture, of which an error is a note: no picture may cost a result or a run."""

    @wraps(draw)
    def drawn(*arguments: Arguments.args, **options: Arguments.kwargs) -> None:
        try:
            draw(*arguments, **options)
        except Exception as error:
            what = f"{type(error).__name__}: {error}".splitlines()[0]
            print(f"note: {arguments[0]} was not drawn ({what})", file=sys.stderr)

    return drawn


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, with a note in place of a warning for each letter that no font has."""
    _ask_further_fonts()
    FigureCanvasAgg(figure)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        atomic.write(path, lambda temporary: figure.savefig(temporary, format="png", dpi=110))
    if any("missing from" in str(warning.message) for warning in said):
        _say_once(
            "note: pictures lack letters that no installed font has; one of Noto Sans CJK, as fonts-noto-cjk, helps"
        )


@cache
def _ask_further_fonts() -> None:
    installed = {font.name for font in font_manager.fontManager.ttflist}
    further = [name for name in FURTHER_FONTS if name in installed]
    matplotlib.rcParams["font.family"] = [*matplotlib.rcParams["font.family"], *further]


@cache
def _say_once(message: str) -> None:
    print(message, file=sys.stderr)
