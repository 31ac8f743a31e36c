"""What `mode=check_data` leaves: report.json, the same as Markdown, and a picture of the classes' balance."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from visual_transformers import atomic, json_text
from visual_transformers.config.schema import Node
from visual_transformers.data.datamodule import DataModule, Samples
from visual_transformers.data.dataset import FileSamples
from visual_transformers.data.io.reading import Note
from visual_transformers.data.normalization import IMAGENET_MEAN, IMAGENET_STD
from visual_transformers.modes.check_data import plots
from visual_transformers.modes.check_data.inspection import Fault
from visual_transformers.modes.check_data.statistics import Findings, equal_images, mean_and_deviation
from visual_transformers.tables import markdown_table, print_table

Report = dict[str, Any]
NOTES = {
    "grayscale": Note.GRAYSCALE,
    "CMYK": Note.CMYK,
    "transparent": Note.TRANSPARENT,
    "more than 8 bits": Note.DEEP,
    "EXIF rotation": Note.TURNED,
    "EXIF rotation to the same size": Note.HALF_TURNED,
    "unreadable EXIF": Note.BAD_EXIF,
}
MAX_FILES = 10_000
"""Files listed with a note in report.json; a data set may be grayscale as a whole."""
MAX_LINES = 50
"""Lines of each list in report.md."""


@dataclass
class Split:
    """A split and what was found of it; `missing` are faults of images that are not among the samples."""

    name: str
    samples: Samples
    found: Findings
    missing: list[Fault]

    @property
    def faults(self) -> list[Fault]:
        """All of them."""
        return self.missing + self.found.faults

    def file(self, place: int) -> str:
        """What to call a sample's image."""
        if isinstance(self.samples, FileSamples):
            return str(self.samples.images[place])
        return f"{self.name} sample {place}"


def write(directory: Path, settings: Node, data: DataModule, splits: list[Split]) -> Report:
    """Leave report.json, report.md and class_balance.png; `settings` are the keys of `data`."""
    report: Report = {
        "data": settings,
        "splits": {split.name: of_split(split, data) for split in splits},
        "faults": [{"split": split.name, **fault._asdict()} for split in splits for fault in split.faults],
        "equal_images": dict(zip(("across_splits", "within_a_split"), equal(splits), strict=True)),
    }
    atomic.write_text(directory / "report.json", json_text.dumps(report, indent=2) + "\n")
    atomic.write_text(directory / "report.md", printable(markdown(report)))
    unit = "pixels" if data.task == "segmentation" else "images"
    balance = {split.name: split.found.targets[:-1] for split in splits}
    plots.class_balance(directory / "class_balance.png", data.classes, balance, unit)
    return report


def of_split(split: Split, data: DataModule) -> Report:
    """Counts, statistics and notes of a split; pixels' values are 0 to 1, counts are of samples that can be used."""
    found, segmentation = split.found, data.task == "segmentation"
    mean, deviation = mean_and_deviation(found.values)
    counts = zip(data.classes, found.images.tolist(), found.targets.tolist(), strict=False)
    return {
        "samples": len(found) + len(split.missing),
        "usable": found.usable,
        "mean": mean,
        "deviation": deviation,
        "classes": {
            name: {"images": images, "pixels": pixels} if segmentation else {"images": images}
            for name, images, pixels in counts
        },
        "ignored_pixels": int(found.targets[-1]),
        "notes": {name: noted(split, note) for name, note in NOTES.items()},
    }


def noted(split: Split, note: Note) -> Report:
    """How many images have a note, and which."""
    places = split.found.noted(note)
    return {"count": len(places), "files": [split.file(int(place)) for place in places[:MAX_FILES]]}


def equal(splits: list[Split]) -> tuple[list[list[str]], list[list[str]]]:
    """Groups of files with equal content: those that several splits share, and those within one."""
    across: list[list[str]] = []
    within: list[list[str]] = []
    for group in equal_images([split.found for split in splits]):
        several = len({part for part, _ in group}) > 1
        (across if several else within).append([splits[part].file(place) for part, place in group])
    return across, within


def markdown(report: Report) -> str:
    """The whole report as Markdown, long lists cut."""
    parts = [
        f"# {report['data']['_target_'].rsplit('.', 1)[-1]} {report['data'].get('root', '')}".rstrip(),
        markdown_table(split_rows(report["splits"])),
        "## Files that cannot be used",
        *fault_lists(report["faults"]),
        "## Equal images in several splits",
        listed([", ".join(map(code, group)) for group in report["equal_images"]["across_splits"]]),
        "## Equal images within a split",
        listed([", ".join(map(code, group)) for group in report["equal_images"]["within_a_split"]]),
        *(part for name in NOTES for part in (f"## {name[0].upper()}{name[1:]}", note_list(report["splits"], name))),
        "## Mean and deviation of the pixels",
        "Of all pixels of the usable images at their own size, 0 to 1, for red, green and blue. The suite normalises "
        "with ImageNet's, which pretrained weights expect.",
        markdown_table(pixel_rows(report["splits"])),
        "## Class balance",
        "![Class balance](class_balance.png)",
        *absent(report["splits"]),
        markdown_table(class_rows(report["splits"])),
    ]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def split_rows(splits: dict[str, Report]) -> list[dict[str, str]]:
    """A row a split: how many samples, how many of them are bad or peculiar."""
    return [
        {"split": name, "samples": f"{split['samples']:,}", "cannot be used": f"{split['samples'] - split['usable']:,}"}
        | {note: f"{found['count']:,}" for note, found in split["notes"].items()}
        for name, split in splits.items()
    ]


def pixel_rows(splits: dict[str, Report]) -> list[dict[str, str]]:
    """A row a split, and ImageNet's own."""
    found = {name: (split["mean"], split["deviation"]) for name, split in splits.items()}
    found["ImageNet"] = [*IMAGENET_MEAN], [*IMAGENET_STD]
    return [
        {"split": name}
        | {
            what: ", ".join(f"{value:.4f}" for value in values)
            for what, values in zip(("mean", "deviation"), both, strict=True)
        }
        for name, both in found.items()
    ]


def class_rows(splits: dict[str, Report]) -> list[dict[str, str]]:
    """A row a class: the images that show it and its share of the labelled pixels, or its images and their share."""
    rows: dict[str, dict[str, str]] = {}
    for split, found in splits.items():
        unit = "pixels" if any("pixels" in counts for counts in found["classes"].values()) else "images"
        total = max(1, sum(counts[unit] for counts in found["classes"].values()))
        for name, counts in found["classes"].items():
            rows.setdefault(name, {"class": name}).update(
                {f"{split} images": f"{counts['images']:,}", f"{split} share of {unit}": f"{counts[unit] / total:.3%}"}
            )
    return list(rows.values())


def absent(splits: dict[str, Report]) -> list[str]:
    """A sentence for each split that lacks classes."""
    lacking = {
        split: [name for name, counts in found["classes"].items() if not counts["images"]]
        for split, found in splits.items()
    }
    return [f"In no image of {split}: {', '.join(names)}." for split, names in lacking.items() if names]


def fault_lists(faults: list[dict[str, str]]) -> list[str]:
    """A list of files for each kind of fault."""
    kinds = Counter(fault["kind"] for fault in faults)
    parts = [] if kinds else ["none"]
    for kind, count in kinds.items():
        lines = [f"{code(fault['file'])}: {fault['problem']}" for fault in faults if fault["kind"] == kind]
        parts += [f"### {kind}: {count:,}", listed(lines)]
    return parts


def note_list(splits: dict[str, Report], name: str) -> str:
    """The files of all splits with a note."""
    noted = [split["notes"][name] for split in splits.values()]
    return listed([code(file) for found in noted for file in found["files"]], sum(found["count"] for found in noted))


def listed(lines: list[str], count: int | None = None) -> str:
    """A Markdown list of the first lines of `count`, and how many are left out."""
    more = (len(lines) if count is None else count) - min(len(lines), MAX_LINES)
    shown = [f"- {' '.join(line.split())}" for line in lines[:MAX_LINES]]
    return "\n".join([*shown, *([f"- and {more:,} more, see report.json"] if more else [])]) or "none"


def code(text: str) -> str:
    """A file's name as it stands."""
    return f"`{text}`"


def printable(text: str) -> str:
    """A text whose file names may hold bytes that are no UTF-8: those are escaped."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def show(report: Report, directory: Path) -> None:
    """Print the counts of every split, the statistics of its pixels, and where everything was left."""
    print_table("", split_rows(report["splits"]))
    print_table("", pixel_rows(report["splits"]))
    for where, groups in report["equal_images"].items():
        print(f"groups of equal images {where.replace('_', ' ')}: {len(groups)}")
    print(f"left in {directory}: {', '.join(sorted(p.name for p in directory.iterdir() if p.name[0] != '.'))}")
