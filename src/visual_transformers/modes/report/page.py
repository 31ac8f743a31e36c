"""A report as one HTML file that needs nothing else: its style, its script and its pictures are within it."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from visual_transformers import atomic
from visual_transformers.modes.report.contents import Section


def write(folder: Path, title: str, sections: list[Section]) -> None:
    """Leave report.html in a folder that holds the sections' pictures."""
    environment = Environment(
        loader=PackageLoader("visual_transformers.report", "page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["embedded"] = lambda file: embedded(folder / file)
    moment = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    text = environment.get_template("report.html").render(title=title, moment=moment, sections=sections)
    atomic.write_text(folder / "report.html", text)


def embedded(path: Path) -> str:
    """A PNG file as an address that holds it."""
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode('ascii')}"
