"""What a report says, section by section, whatever it is written as."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import shorten

from visual_transformers.config.schema import ReportSettings
from visual_transformers.modes.report import plots, published, rows
from visual_transformers.modes.report.classes import Comparison
from visual_transformers.modes.report.folders import Found
from visual_transformers.modes.report.groups import Group, Subject, by_subject
from visual_transformers.modes.report.published import Figure
from visual_transformers.modes.report.run import Run

MOST_NAMED = 5
"""Folders, at most, that a note names."""
LONGEST_ERROR = 200
"""Characters of why a run failed, at most, that a table has."""


@dataclass
class Picture:
    """A picture in a file of the report's folder, and in words."""

    file: str
    words: str


@dataclass
class Section:
    """A part of a report; `printed` is on the console as well, and `folded` is shown when it is asked for."""

    title: str
    notes: list[str] = field(default_factory=list)
    rows: list[dict[str, str]] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    printed: bool = False
    folded: bool = False


@dataclass
class Contents:
    """All that is known of some runs, and what a report makes of it; pictures are drawn into `folder`.

    `theirs` are the published figures of each of the `groups`.
    """

    settings: ReportSettings
    folder: Path
    found: Found
    runs: list[Run]
    groups: list[Group]
    theirs: list[list[Figure]]
    comparisons: list[Comparison]

    def sections(self) -> list[Section]:
        """The report from its table to its details; what else has nothing to say is left out."""
        pictured = (self.curves(), self.costs(), *self.differences())
        others = (self.failures(), *pictured, self.elsewhere(), self.every_run())
        return [self.table(), *(section for section in others if section.rows or section.pictures)]

    def table(self) -> Section:
        """The runs by model, data and recipe."""
        return Section(
            "Runs by model, data and recipe", self.notes(), rows.shown(self.groups, self.theirs), printed=True
        )

    def notes(self) -> list[str]:
        """How the table is to be read, and what is not in it."""
        counts = ", ".join(f"{count} {state}" for state, count in Counter(run.state for run in self.runs).items())
        notes = [
            f"{_count(len(self.runs), 'run')}: {counts}. A row is of runs that differ in nothing but their seed; "
            "validation scores are those of the best epoch, as mean ± sample standard deviation over the finished "
            "seeds."
        ]
        if any(self.theirs):
            notes.append("Figures called theirs were published by others; ours were measured by these runs.")
        if again := [run for group in self.groups for run in group.duplicates]:
            why = "left out of means, for one of the same seed and settings finished later"
            notes.append(f"{_count(len(again), 'run')} {why}: {_named(run.folder for run in again)}.")
        if unknown := [run.folder for run in self.runs if not run.text("settings")]:
            notes.append(f"{_count(len(unknown), 'run')} of unknown settings (so far): {_named(unknown)}.")
        for folders, what in ((self.found.foreign, "without a training"), (self.found.unreadable, "not readable")):
            if folders:
                notes.append(f"{_count(len(folders), 'folder')} {what}: {_named(folders)}.")
        return notes

    def failures(self) -> Section:
        """The runs that failed, and why."""
        failed = [
            {"run": str(run.folder), "error": shorten(run.error, LONGEST_ERROR, placeholder=" ...")}
            for run in self.runs
            if run.state == "failed"
        ]
        return Section("Failed runs", ["The whole message is in a run's status.json."], failed, printed=True)

    def curves(self) -> Section:
        """Loss and score over epochs, a picture a subject."""

        def draw(path: Path, subject: Subject, groups: list[Group]) -> str:
            scored = [group for group in groups if group.rank >= 0]
            drawn = scored[: plots.MOST_CURVES]  # of which alone all epochs are read
            if not any(len(run.records.epoch) for group in drawn for run in group.runs):
                return ""
            plots.curves(path, str(subject), subject.metric, drawn)
            best = f", the best {len(drawn)} of {len(scored)} rows" if len(drawn) < len(scored) else ""
            return f"Loss and {subject.metric} over epochs on {subject}{best}"

        note = "Lines are means over seeds, bands reach from the lowest to the highest; thin lines are unfinished runs."
        return Section("Curves", [note], pictures=self._pictures("curves", draw))

    def costs(self) -> Section:
        """Scores against multiply-adds, a picture a subject."""

        def draw(path: Path, subject: Subject, groups: list[Group]) -> str:
            if not plots.can_show_costs(groups):
                return ""
            figures = [figure for figure in self._published(subject) if figure.gmacs and figure.split == "val"]
            plots.cost(path, str(subject), groups, figures)
            return f"{subject.metric} against GMACs on {subject}" + (", with published figures" if figures else "")

        note = "Filled markers are ours, with standard deviations over seeds"
        note += "; hollow ones are theirs." if self.settings.published else "."
        return Section("Scores against costs", [note], pictures=self._pictures("cost", draw))

    def _pictures(self, kind: str, draw: Callable[[Path, Subject, list[Group]], str]) -> list[Picture]:
        """A picture for each subject of which `draw` has something to say."""
        pictures: list[Picture] = []
        for subject, groups in by_subject(self.groups).items():
            file = f"{kind}-{len(pictures)}.png"
            if words := draw(self.folder / file, subject, groups):
                pictures.append(Picture(file, words))
        return pictures

    def differences(self) -> list[Section]:
        """What each class gains from one model to another, a section for each two that are compared."""
        return [self._difference(f"classes-{i}.png", found) for i, found in enumerate(self.comparisons)]

    def _difference(self, file: str, found: Comparison) -> Section:
        words = f"{found.second.label} against {found.first.label}, on {found.subject}"
        plots.class_differences(self.folder / file, words, found)
        table = [
            {
                "class": difference.name,
                f"{found.first.model}: {found.score}, %": rows.percent(*difference.first),
                f"{found.second.model}: {found.score}, %": rows.percent(*difference.second),
                "gain, points": f"{100 * difference.gain:+.2f}",
            }
            for difference in found.classes
        ]
        note = "Scores of the best weights of each finished run, as means over seeds."
        picture = Picture(file, f"Gain in {found.score} of each class: {words}")
        return Section(f"Class by class on {found.subject}", [note], table, [picture])

    def elsewhere(self) -> Section:
        """Published figures that stand beside none of our rows."""
        beside = {figure for figures in self.theirs for figure in figures}
        rest = [figure for figure in self._published() if figure not in beside]
        notes = ["Measured by others, not by these runs; of other models, data or recipes than those above."]
        return Section("Published elsewhere", notes, rows.with_something(published.rows(rest)))

    def _published(self, subject: Subject | None = None) -> list[Figure]:
        figures = published.figures() if self.settings.published else ()
        return [figure for figure in figures if subject in (None, figure.subject)]

    def every_run(self) -> Section:
        """The runs one by one."""
        return Section("Every run", rows=rows.of_runs(self.runs), folded=True)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' if number != 1 else ''}"


def _named(folders: Iterable[Path]) -> str:
    names = [str(folder) for folder in folders]
    return ", ".join(names[:MOST_NAMED]) + (", ..." if len(names) > MOST_NAMED else "")
