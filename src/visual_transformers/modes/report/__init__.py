"""mode=report: what the runs in some folders say together, as tables, pictures, and a page."""

from __future__ import annotations

from pathlib import Path

from visual_transformers import atomic
from visual_transformers.config.schema import Config, ReportSettings
from visual_transformers.distributed.stop_at_once import interruptible
from visual_transformers.errors import ConfigError, RunError
from visual_transformers.modes.report import page, published, rows
from visual_transformers.modes.report.classes import compared
from visual_transformers.modes.report.contents import Contents, Section
from visual_transformers.modes.report.folders import find
from visual_transformers.modes.report.groups import grouped
from visual_transformers.modes.report.labels import tell_apart
from visual_transformers.modes.report.run import Run
from visual_transformers.paths import expand_home
from visual_transformers.runs.run_dir import clear
from visual_transformers.tables import csv_text, latex_table, markdown_table, print_table

USUAL = ("runs", "sweeps")
"""Folders that are read if none are named."""
PICTURES = ("curves-*.png", "cost-*.png", "classes-*.png")
MOST_PRINTED = 60
"""Rows, at most, of a table on the console."""


def run(cfg: Config, directory: Path) -> None:
    """Read the runs, and leave report.html, .md, .csv, .tex and pictures. It reads files alone, and changes no run.

    Raises:
        ConfigError: if a folder or a model that was named is not there.
        RunError: if there is no run.
    """
    contents = read(cfg.report, directory)
    clear(directory, [path.name for pattern in PICTURES for path in directory.glob(pattern)])
    directory.mkdir(parents=True, exist_ok=True)
    sections = contents.sections()
    write(directory, contents, sections)
    for section in interruptible(sections):
        if section.printed:
            print_section(section)
    print(f"left in {directory}: {', '.join(sorted(p.name for p in directory.iterdir() if p.name[0] != '.'))}")


def read(settings: ReportSettings, directory: Path) -> Contents:
    """What is known of the runs in the folders of the settings; pictures of it will be in `directory`.

    Raises:
        ConfigError: if a folder or a model that was named is not there.
        RunError: if there is no run.
    """
    roots = [expand_home(name) for name in settings.folders or USUAL]
    missing = [str(root) for root in roots if not root.is_dir()]
    if settings.folders and missing:
        raise ConfigError(f"report.folders: {missing[0]} is no folder; name folders of runs or sweeps")
    found = find((root for root in roots if root.is_dir()), but_for=directory)
    if not found.runs:
        names = ", ".join(map(str, roots))
        raise RunError(f"there is no run in {names}; name the folders where there are some with report=PATH")
    runs = [Run.read(folder) for folder in found.runs]
    groups = grouped(runs)
    tell_apart(groups)
    theirs = published.matched(groups) if settings.published else [[] for _ in groups]
    return Contents(settings, directory, found, runs, groups, theirs, compared(groups, settings.compare))


def write(directory: Path, contents: Contents, sections: list[Section]) -> None:
    """Leave the report in all its forms."""
    exact = [rows.of_group(group, theirs) for group, theirs in zip(contents.groups, contents.theirs, strict=True)]
    atomic.write_text(directory / "report.csv", csv_text(exact))
    atomic.write_text(directory / "report.tex", latex_table(sections[0].rows))
    atomic.write_text(directory / "report.md", "# Report\n\n" + "\n".join(map(markdown, sections)))
    page.write(directory, "Report", sections)


def markdown(section: Section) -> str:
    """A section as Markdown."""
    pictures = [f"![{picture.words}]({picture.file})" for picture in section.pictures]
    table = [markdown_table(section.rows)] if section.rows else []
    return "\n\n".join([f"## {section.title}", *section.notes, *pictures, *table]).rstrip() + "\n"


def print_section(section: Section) -> None:
    """Print a section's table and what belongs to it."""
    if section.rows:
        print_table(section.title, section.rows[:MOST_PRINTED])
    if len(section.rows) > MOST_PRINTED:
        print(f"and {len(section.rows) - MOST_PRINTED} more rows")
    for note in section.notes:
        print(note)
