"""Results of `mode=check_data`: report.json, report.md, and a figure of the class balance."""

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
from visual_transformers.modes.check_data.statistics import Statistics, compute_mean_and_std, group_equal_images
from visual_transformers.runs.run_dir import print_contents
from visual_transformers.tables import print_table, to_markdown

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
"""Maximum number of files per note in report.json, e.g. of a grayscale data set."""
MAX_LINES = 50
"""Maximum number of lines per list in report.md."""


@dataclass
class Split:
    """A split and its statistics; `missing` are the faults of images that are not among the samples."""

    name: str
    samples: Samples
    statistics: Statistics
    missing: list[Fault]

    @property
    def faults(self) -> list[Fault]:
        """All faults."""
        return self.missing + self.statistics.faults

    def name_image(self, index: int) -> str:
        """Return the file of a sample's image, or the sample's number if it has none."""
        if isinstance(self.samples, FileSamples):
            return str(self.samples.images[index])
        return f"{self.name} sample {index}"


def write_report(directory: Path, settings: Node, data: DataModule, splits: list[Split]) -> Report:
    """Write report.json, report.md and class_balance.png; `settings` are the keys of `data`."""
    groups = list(group_equal_images([split.statistics for split in splits]))
    equal = {"across_splits": [g for g in groups if g[0][0] != g[-1][0]]}
    equal["within_a_split"] = [g for g in groups if g[0][0] == g[-1][0]]
    report: Report = {
        "data": settings,
        "splits": {split.name: summarize_split(split, data) for split in splits},
        "faults": [{"split": split.name, **fault._asdict()} for split in splits for fault in split.faults],
        "equal_images": {
            kind: [[splits[split].name_image(index) for split, index in group] for group in found]
            for kind, found in equal.items()
        },
    }
    atomic.write_text(directory / "report.json", json_text.dumps(report, indent=2) + "\n")
    atomic.write_text(directory / "report.md", format_markdown(report))
    unit = "pixels" if data.task == "segmentation" else "images"
    balance = {split.name: split.statistics.target_counts[:-1] for split in splits}
    plots.draw_class_balance(directory / "class_balance.png", data.classes, balance, unit)
    return report


def summarize_split(split: Split, data: DataModule) -> Report:
    """Return counts and statistics of the usable samples of a split, pixel values scaled to 0 to 1, and all notes."""
    found, segmentation = split.statistics, data.task == "segmentation"
    mean, deviation = compute_mean_and_std(found.histogram)
    counts = zip(data.classes, found.image_counts.tolist(), found.target_counts.tolist(), strict=False)
    noted = {name: found.find_noted(note).tolist() for name, note in NOTES.items()}
    return {
        "samples": len(found) + len(split.missing),
        "usable": len(found) - len(found.find_noted(Note.UNUSABLE)),
        "mean": mean,
        "deviation": deviation,
        "classes": {
            name: {"images": images, "pixels": pixels} if segmentation else {"images": images}
            for name, images, pixels in counts
        },
        "ignored_pixels": int(found.target_counts[-1]),
        "notes": {
            name: {"count": len(indices), "files": [split.name_image(index) for index in indices[:MAX_FILES]]}
            for name, indices in noted.items()
        },
    }


def format_markdown(report: Report) -> str:
    """Format the report as Markdown, with shortened lists."""
    splits, equal = report["splits"], report["equal_images"]
    absent = {
        split: [name for name, counts in found["classes"].items() if not counts["images"]]
        for split, found in splits.items()
    }
    parts = [
        f"# {report['data']['_target_'].rsplit('.', 1)[-1]} {report['data'].get('root', '')}".rstrip(),
        to_markdown(make_split_rows(splits)),
        "## Files that cannot be used",
        *format_faults(report["faults"]),
        "## Equal images in several splits",
        format_list([", ".join(f"`{file}`" for file in group) for group in equal["across_splits"]]),
        "## Equal images within a split",
        format_list([", ".join(f"`{file}`" for file in group) for group in equal["within_a_split"]]),
        *(part for name in NOTES for part in (f"## {name[0].upper()}{name[1:]}", format_noted(splits, name))),
        "## Mean and deviation of the pixels",
        "Of all pixels of the usable images at their own size, 0 to 1, for red, green and blue. Images are normalized "
        "with ImageNet's, which pretrained weights expect.",
        to_markdown(make_pixel_rows(splits)),
        "## Class balance",
        "![Class balance](class_balance.png)",
        *(f"In no image of {split}: {', '.join(names)}." for split, names in absent.items() if names),
        to_markdown(make_class_rows(splits)),
    ]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def make_split_rows(splits: dict[str, Report]) -> list[dict[str, str]]:
    """Return a row per split: the numbers of samples, of unusable ones, and of those with each note."""
    return [
        {"split": name, "samples": f"{split['samples']:,}", "cannot be used": f"{split['samples'] - split['usable']:,}"}
        | {note: f"{found['count']:,}" for note, found in split["notes"].items()}
        for name, split in splits.items()
    ]


def make_pixel_rows(splits: dict[str, Report]) -> list[dict[str, str]]:
    """Return a row per split, and one for ImageNet: mean and standard deviation of the channels."""
    values = {name: {key: split[key] for key in ("mean", "deviation")} for name, split in splits.items()}
    values["ImageNet"] = {"mean": IMAGENET_MEAN, "deviation": IMAGENET_STD}
    return [
        {"split": name} | {key: ", ".join(f"{value:.4f}" for value in channels) for key, channels in found.items()}
        for name, found in values.items()
    ]


def make_class_rows(splits: dict[str, Report]) -> list[dict[str, str]]:
    """Return a row per class: the number of its images, and its share of the images or labelled pixels."""
    rows: dict[str, dict[str, str]] = {}
    for split, found in splits.items():
        unit = "pixels" if any("pixels" in counts for counts in found["classes"].values()) else "images"
        total = max(1, sum(counts[unit] for counts in found["classes"].values()))
        for name, counts in found["classes"].items():
            rows.setdefault(name, {"class": name}).update(
                {f"{split} images": f"{counts['images']:,}", f"{split} share of {unit}": f"{counts[unit] / total:.3%}"}
            )
    return list(rows.values())


def format_faults(faults: list[dict[str, str]]) -> list[str]:
    """Format a list of files for each kind of fault."""
    kinds = Counter(fault["kind"] for fault in faults)
    parts = [] if kinds else ["none"]
    for kind, count in kinds.items():
        lines = [f"`{fault['file']}`: {fault['problem']}" for fault in faults if fault["kind"] == kind]
        parts += [f"### {kind}: {count:,}", format_list(lines)]
    return parts


def format_noted(splits: dict[str, Report], name: str) -> str:
    """Format a list of the files of all splits with a note."""
    noted = [split["notes"][name] for split in splits.values()]
    return format_list([f"`{file}`" for found in noted for file in found["files"]], sum(n["count"] for n in noted))


def format_list(lines: list[str], count: int | None = None) -> str:
    """Format the first lines as a Markdown list, with the number of those left out of `count`."""
    more = (len(lines) if count is None else count) - min(len(lines), MAX_LINES)
    shown = [f"- {' '.join(line.split())}" for line in lines[:MAX_LINES]]
    return "\n".join([*shown, *([f"- and {more:,} more, see report.json"] if more else [])]) or "none"


def print_report(report: Report, directory: Path) -> None:
    """Print the tables of the splits, the numbers of equal images, and the names of the written files."""
    print_table("", make_split_rows(report["splits"]))
    print_table("", make_pixel_rows(report["splits"]))
    for kind, groups in report["equal_images"].items():
        print(f"groups of equal images {kind.replace('_', ' ')}: {len(groups)}")
    print_contents(directory)
