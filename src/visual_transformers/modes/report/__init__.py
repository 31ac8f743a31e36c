"""`mode=report`: summarize the runs below some folders in tables, figures and a page."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from visual_transformers import atomic
from visual_transformers.config.schema import ReportConfig, ReportSettings
from visual_transformers.distributed.signals import interruptible
from visual_transformers.errors import ConfigError, RunError
from visual_transformers.modes.report import published, rows
from visual_transformers.modes.report.classes import compare_classes
from visual_transformers.modes.report.contents import Contents, Section
from visual_transformers.modes.report.folders import find_runs
from visual_transformers.modes.report.groups import group_runs
from visual_transformers.modes.report.run import Run
from visual_transformers.paths import expand_home
from visual_transformers.runs.run_dir import print_contents, remove_results
from visual_transformers.tables import print_table, to_csv, to_latex, to_markdown

DEFAULT_FOLDERS = ("runs", "sweeps")
PICTURES = ("curves-*.png", "cost-*.png", "classes-*.png")
MAX_PRINTED = 60
"""Maximum number of rows of a table on the console."""


def run(cfg: ReportConfig, directory: Path) -> None:
    """Read the files of the runs; write report.html, .md, .csv, .tex and figures. No run is changed.

    Raises:
        ConfigError: if a named folder does not exist, or a named model has no run.
        RunError: if there is no run.
    """
    contents = read(cfg.report, directory)
    remove_results(directory, [path.name for pattern in PICTURES for path in directory.glob(pattern)])
    directory.mkdir(parents=True, exist_ok=True)
    sections = contents.make_sections()
    exact = [rows.make_group_row(*pair) for pair in zip(contents.groups, contents.published, strict=True)]
    atomic.write_text(directory / "report.csv", to_csv(exact))
    atomic.write_text(directory / "report.tex", to_latex(sections[0].rows))
    atomic.write_text(directory / "report.md", "# Report\n\n" + "\n".join(map(format_markdown, sections)))
    write_page(directory, "Report", sections)
    for section in interruptible(sections):
        if section.printed:
            print_section(section)
    print_contents(directory)


def read(settings: ReportSettings, directory: Path) -> Contents:
    """Read the runs in the folders of the settings; figures will be drawn into `directory`.

    Raises:
        ConfigError: if a named folder does not exist, or a named model has no run.
        RunError: if there is no run.
    """
    roots = [expand_home(name) for name in settings.folders or DEFAULT_FOLDERS]
    missing = [str(root) for root in roots if not root.is_dir()]
    if settings.folders and missing:
        raise ConfigError(f"report.folders: {missing[0]} is no folder; name folders of runs or sweeps")
    found = find_runs((root for root in roots if root.is_dir()), exclude=directory)
    if not found.runs:
        names = ", ".join(map(str, roots))
        raise RunError(f"there is no run in {names}; name the folders of the runs with report=PATH")
    runs = [Run.read(folder) for folder in found.runs]
    groups = group_runs(runs)
    scores = published.match_groups(groups) if settings.published else [[] for _ in groups]
    return Contents(settings, directory, found, runs, groups, scores, compare_classes(groups, settings.compare))


def format_markdown(section: Section) -> str:
    """Format a section as Markdown."""
    pictures = [f"![{picture.caption}]({picture.file})" for picture in section.pictures]
    table = [to_markdown(section.rows)] if section.rows else []
    return "\n\n".join([f"## {section.title}", *section.notes, *pictures, *table]).rstrip() + "\n"


def write_page(folder: Path, title: str, sections: list[Section]) -> None:
    """Write report.html, with style, script and figures embedded, so that it needs no other file."""

    def embed(file: str) -> str:
        return f"data:image/png;base64,{base64.b64encode((folder / file).read_bytes()).decode('ascii')}"

    loader = PackageLoader("visual_transformers.modes.report", "page")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["embed"] = embed
    time = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    text = environment.get_template("report.html").render(title=title, time=time, sections=sections)
    atomic.write_text(folder / "report.html", text)


def print_section(section: Section) -> None:
    """Print the table and the notes of a section."""
    if section.rows:
        print_table(section.title, section.rows[:MAX_PRINTED])
    if len(section.rows) > MAX_PRINTED:
        print(f"and {len(section.rows) - MAX_PRINTED} more rows")
    for note in section.notes:
        print(note)
