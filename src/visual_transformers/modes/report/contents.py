"""Sections of a report: notes, tables and figures, independent of the output format."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import shorten

from visual_transformers.config.schema import ReportSettings
from visual_transformers.modes.report import plots, published, rows
from visual_transformers.modes.report.classes import Comparison
from visual_transformers.modes.report.folders import Folders
from visual_transformers.modes.report.groups import Group, Subject, split_by_subject
from visual_transformers.modes.report.published import PublishedScore
from visual_transformers.modes.report.run import Run

MAX_NAMED = 5
"""Maximum number of folders that a note names."""
MAX_ERROR = 200
"""Maximum number of characters of an error message in a table."""


@dataclass
class Picture:
    """A figure in a file of the report's folder."""

    file: str
    caption: str


@dataclass
class Section:
    """A section of a report; `printed` shows it on the console too, `collapsed` hides its table on the page."""

    title: str
    notes: list[str] = field(default_factory=list)
    rows: list[dict[str, str]] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    printed: bool = False
    collapsed: bool = False


@dataclass
class Contents:
    """Runs and groups of a report, from which it makes sections; figures are drawn into `folder`.

    `published` are the published scores that match each group.
    """

    settings: ReportSettings
    folder: Path
    found: Folders
    runs: list[Run]
    groups: list[Group]
    published: list[list[PublishedScore]]
    comparisons: list[Comparison]

    def make_sections(self) -> list[Section]:
        """Return all sections that are not empty, from the main table to the details."""
        main = Section("Runs by model, data and recipe", self._notes(), printed=True)
        main.rows = rows.format_groups(self.groups, self.published)
        pictured = (self._curves(), self._costs(), *self._class_gains())
        every_run = Section("Every run", rows=rows.format_runs(self.runs), collapsed=True)
        others = (self._failures(), *pictured, self._unmatched_scores(), every_run)
        return [main, *(section for section in others if section.rows or section.pictures)]

    def _notes(self) -> list[str]:
        """Explain the main table, and list what is not in it."""
        counts = ", ".join(f"{count} {state}" for state, count in Counter(run.state for run in self.runs).items())
        notes = [
            f"{_count(len(self.runs), 'run')}: {counts}. The runs of a row differ only in their seed; validation "
            "scores are those of the best epoch, as mean ± sample standard deviation over the finished seeds."
        ]
        if any(self.published):
            notes.append("Scores marked as theirs were published by others; ours were measured by these runs.")
        listed = (
            ("run", "left out of means, because a run of the same seed and settings finished later",
             [run.folder for group in self.groups for run in group.duplicates]),
            ("run", "of unknown settings (so far)", [run.folder for run in self.runs if not run.get_text("settings")]),
            ("folder", "without a training", self.found.foreign),
            ("folder", "not readable", self.found.unreadable),
        )  # fmt: skip
        for noun, description, folders in listed:
            if folders:
                notes.append(f"{_count(len(folders), noun)} {description}: {_list_first(folders)}.")
        return notes

    def _failures(self) -> Section:
        failed = [
            {"run": str(run.folder), "error": shorten(run.error, MAX_ERROR, placeholder=" ...")}
            for run in self.runs
            if run.state == "failed"
        ]
        return Section("Failed runs", ["The whole message is in a run's status.json."], failed, printed=True)

    def _curves(self) -> Section:
        """Draw loss and score over epochs for each subject."""

        def draw(path: Path, subject: Subject, groups: list[Group]) -> str:
            scored = [group for group in groups if group.best_score >= 0]
            drawn = scored[: plots.MAX_CURVES]  # only of these are all epochs read
            if not any(len(run.records.epoch) for group in drawn for run in group.runs):
                return ""
            plots.draw_curves(path, str(subject), subject.metric, drawn)
            best = f", the best {len(drawn)} of {len(scored)} rows" if len(drawn) < len(scored) else ""
            return f"Loss and {subject.metric} over epochs on {subject}{best}"

        note = "Lines are means over seeds, bands reach from the lowest to the highest; thin lines are unfinished runs."
        return Section("Curves", [note], pictures=self._draw_subjects("curves", draw))

    def _costs(self) -> Section:
        """Draw scores against multiply-adds for each subject."""

        def draw(path: Path, subject: Subject, groups: list[Group]) -> str:
            if not any(group.score and group.get_number("macs") for group in groups):
                return ""
            scores = [s for s in self._published_scores() if s.subject == subject and s.gmacs and s.split == "val"]
            plots.draw_costs(path, str(subject), groups, scores)
            return f"{subject.metric} against GMACs on {subject}" + (", with published scores" if scores else "")

        note = "Filled markers are ours, with standard deviations over seeds"
        note += "; hollow ones are theirs." if self.settings.published else "."
        return Section("Scores against costs", [note], pictures=self._draw_subjects("cost", draw))

    def _draw_subjects(self, kind: str, draw: Callable[[Path, Subject, list[Group]], str]) -> list[Picture]:
        """Draw a figure for each subject; `draw` returns its caption, or nothing if there is nothing to draw."""
        pictures: list[Picture] = []
        for subject, groups in split_by_subject(self.groups).items():
            file = f"{kind}-{len(pictures)}.png"
            if caption := draw(self.folder / file, subject, groups):
                pictures.append(Picture(file, caption))
        return pictures

    def _class_gains(self) -> list[Section]:
        """Draw and list the gains by class, in a section for each comparison."""
        sections = []
        for i, comparison in enumerate(self.comparisons):
            first, second, score = comparison.first, comparison.second, comparison.score
            file, title = f"classes-{i}.png", f"{second.label} against {first.label}, on {comparison.subject}"
            plots.draw_gains(self.folder / file, title, comparison)
            table = [
                {
                    "class": difference.name,
                    f"{first.model}: {score}, %": rows.format_percent(*difference.first),
                    f"{second.model}: {score}, %": rows.format_percent(*difference.second),
                    "gain, points": f"{100 * difference.gain:+.2f}",
                }
                for difference in comparison.classes
            ]
            note = "Scores of the best weights of each finished run, as means over seeds."
            picture = Picture(file, f"Gain in {score} of each class: {title}")
            sections.append(Section(f"Class by class on {comparison.subject}", [note], table, [picture]))
        return sections

    def _unmatched_scores(self) -> Section:
        """List the published scores that are in no row of the main table."""
        matched = {score for scores in self.published for score in scores}
        rest = [score for score in self._published_scores() if score not in matched]
        notes = ["Measured by others, not by these runs; of other models, data or recipes than those above."]
        return Section("Published elsewhere", notes, rows.drop_empty_columns(published.format_rows(rest)))

    def _published_scores(self) -> tuple[PublishedScore, ...]:
        return published.read_all() if self.settings.published else ()


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' if number != 1 else ''}"


def _list_first(folders: Iterable[Path]) -> str:
    names = [str(folder) for folder in folders]
    return ", ".join(names[:MAX_NAMED]) + (", ..." if len(names) > MAX_NAMED else "")
