"""Shared drawing code: literal text, font fallback, and figures whose errors do not stop a run."""

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
FALLBACK_FONTS = ("Noto Sans CJK SC", "Noto Sans CJK JP", "WenQuanYi Zen Hei", "Noto Sans", "Noto Sans Arabic",
                 "Noto Sans Devanagari", "Droid Sans Fallback", "Arial Unicode MS", "Unifont")  # fmt: skip
"""Fallback fonts for letters that matplotlib's default font lacks; only installed fonts are used."""
Arguments = ParamSpec("Arguments")


def nonfatal(draw: Callable[Arguments, None]) -> Callable[Arguments, None]:
    """Decorate a function that draws a figure to print its errors, because no figure is worth losing a run."""

    @wraps(draw)
    def draw_or_note(*arguments: Arguments.args, **options: Arguments.kwargs) -> None:
        try:
            draw(*arguments, **options)
        except Exception as error:
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            print(f"note: {arguments[0]} was not drawn ({reason})", file=sys.stderr)

    return draw_or_note


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG; a single note replaces matplotlib's warnings about missing letters."""
    _add_fallback_fonts()
    FigureCanvasAgg(figure)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        atomic.write(path, lambda temporary: figure.savefig(temporary, format="png", dpi=110))
    if any("missing from" in str(warning.message) for warning in caught):
        _note_missing_letters()


@cache
def _add_fallback_fonts() -> None:
    installed = {font.name for font in font_manager.fontManager.ttflist}
    fonts = [name for name in FALLBACK_FONTS if name in installed]
    matplotlib.rcParams["font.family"] = [*matplotlib.rcParams["font.family"], *fonts]


@cache
def _note_missing_letters() -> None:
    hint = "install one that has them, e.g. Noto Sans CJK from the package fonts-noto-cjk"
    print(f"note: pictures lack letters that no installed font has; {hint}", file=sys.stderr)
