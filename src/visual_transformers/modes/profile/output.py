"""What `mode=profile` leaves: files, a picture and a table of a model's costs, or of a sweep's models side by side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from visual_transformers import atomic, json_text
from visual_transformers.config.schema import Node
from visual_transformers.modes.profile import plots
from visual_transformers.modes.profile.measure import Latency
from visual_transformers.tables import csv_text, markdown_table, print_table, scaled

Report = dict[str, Any]
Row = dict[str, Any]
PER_MODEL = {
    "parameters, M": ("parameters", 1e-6),
    "GMACs literal": ("macs_literal", 1e-9),
    "GMACs re-associated": ("macs_reassociated", 1e-9),
    "GFLOPs literal": ("flops_literal", 1e-9),
    "GFLOPs re-associated": ("flops_reassociated", 1e-9),
    "activations, MiB": ("activation_bytes", 2**-20),
    "peak memory, MiB (measured)": ("peak_bytes_measured", 2**-20),
    "peak memory, MiB (computed)": ("peak_bytes_computed", 2**-20),
    "forward, ms": ("forward_seconds", 1e3),
    "forward IQR, ms": ("forward_iqr_seconds", 1e3),
    "forward, images/s": ("forward_images_per_second", 1),
    "training step, ms": ("step_seconds", 1e3),
    "training step IQR, ms": ("step_iqr_seconds", 1e3),
    "training, images/s": ("step_images_per_second", 1),
    "literal forward, ms": ("literal_forward_seconds", 1e3),
    "literal forward IQR, ms": ("literal_forward_iqr_seconds", 1e3),
    "literal training step, ms": ("literal_step_seconds", 1e3),
    "literal training step IQR, ms": ("literal_step_iqr_seconds", 1e3),
}
"""What the tables show of a model: heading, column of its row in a profile.csv, scale."""
PER_PART = {
    "part": "part",
    "parameters": "parameters",
    "MACs literal": "macs_literal",
    "MACs re-associated": "macs_reassociated",
}
"""The same of a part: heading and column of its profile.csv."""
NOTE = (
    "MACs and FLOPs (2 x MACs) are of one image in evaluation mode: convolutions and matrix products, without biases, "
    "norms, activations and interpolation. Memory and latencies are of the whole batch, and of the model as it was "
    "configured unless they are called literal; latencies are medians, with their interquartile range (IQR)."
)


def write(report: Report, directory: Path) -> None:
    """Leave profile.json (everything), .csv (one row a part), .md and .png, and print the table."""
    atomic.write_text(directory / "profile.json", json_text.dumps(report, indent=2) + "\n")
    rows = part_rows(report)
    atomic.write_text(directory / "profile.csv", csv_text(rows))
    title = f"{report['name']}: {on_what(report)}"
    total = {name: sum(row.get(name, 0) for row in rows) for name in rows[0] if name != "part"}
    by_part = [
        {heading: str(row[name]) for heading, name in PER_PART.items() if name in row}
        for row in (*rows, {"part": "total"} | total)
    ]
    summary = [{"": name, "value": value} for name, value in shown([model_row(report)])[0].items()]
    atomic.write_text(
        directory / "profile.md", f"# {title}\n\n{markdown_table(summary)}\n{markdown_table(by_part)}\n{NOTE}\n"
    )
    macs = {
        in_words(form): {part["name"]: part["macs"] for part in costs["parts"]}
        for form, costs in report["forms"].items()
    }
    plots.cost_by_part(directory / "profile.png", title, macs, times(report))
    print_table(title, summary)
    print_table(f"left in {directory}; by part:", by_part)


def on_what(report: Report) -> str:
    """One image's size, the batch, and the machine, as the end of a title."""
    height, width = report["image_size"]
    return (
        f"{height} x {width} pixels, {report['classes']} classes, batch of {report['batch_size']}, "
        f"{report['device']} ({report['device_name']}, {report['threads']} threads) in {report['precision']}, "
        f"torch {report['torch']}"
    )


def part_rows(report: Report) -> list[Row]:
    """One row a part: its parameters, its MACs and FLOPs in each form that there is; together they are the whole."""
    rows: dict[str, Row] = {}
    for form, found in report["forms"].items():
        for part in found["parts"]:
            row = rows.setdefault(part["name"], {"part": part["name"], "parameters": part["parameters"]})
            row |= {column(quantity, form): part[quantity] for quantity in ("macs", "flops")}
    return list(rows.values())


def column(quantity: str, form: str) -> str:
    """The column of a count: a model with but one form has it under `literal`, for it is as its source says."""
    return f"{quantity}_{'literal' if form == 'plain' else form}"


def in_words(form: str) -> str:
    """A form of a model as tables and pictures spell it."""
    return "re-associated" if form == "reassociated" else form


def model_row(report: Report) -> Row:
    """What one model costs, in base units: a row of a sweep's profile.csv.

    Memory and latencies are of the configured form; those with `literal_` before are of the other.
    """
    configured, *others = report["forms"]
    row = {"model": report["name"], "image_size": "x".join(map(str, report["image_size"]))}
    row |= {key: report[key] for key in ("batch_size", "device", "precision", "threads")}
    row["parameters"] = report["forms"][configured]["parameters"]
    for quantity in ("macs", "flops"):
        row |= {column(quantity, form): found[quantity] for form, found in report["forms"].items()}
    for form, prefix in ((configured, ""), *((form, f"{form}_") for form in others)):
        found = report["forms"][form]
        row[f"{prefix}activation_bytes"] = found["activation_bytes"]
        row[f"{prefix}peak_bytes_{report['peak_memory']}"] = found["peak_bytes"]
        for name in ("forward", "step"):
            if time := found[name]:
                row[f"{prefix}{name}_seconds"] = time["median"]
                row[f"{prefix}{name}_iqr_seconds"] = time["upper"] - time["lower"]
                row[f"{prefix}{name}_images_per_second"] = time["images_per_second"]
    return row


def shown(rows: list[Row]) -> list[dict[str, str]]:
    """Rows as a table shows them: the columns of `PER_MODEL` that any row has, scaled to their unit."""
    present = [heading for heading, (name, _) in PER_MODEL.items() if any(name in row for row in rows)]

    def cell(row: Row, heading: str) -> str:
        name, scale = PER_MODEL[heading]
        return scaled(row.get(name), scale)

    return [{heading: cell(row, heading) for heading in present} for row in rows]


def times(report: Report) -> dict[str, Latency]:
    """Every latency of a report, by what a picture calls it."""
    return {
        f"{label}, {in_words(form)}" if form != "plain" else label: Latency(
            **{key: found[name][key] for key in ("median", "lower", "upper", "measurements")}
        )
        for name, label in (("forward", "forward pass"), ("step", "training step"))
        for form, found in report["forms"].items()
        if found[name]
    }


def gather(directory: Path) -> None:
    """Put the profiles of a sweep's jobs, in folders below its own, side by side and print them.

    Leaves profile.csv and profile.md (one row a model) and profile.png in the sweep's folder. Jobs of an earlier sweep
    in the same folder are left out: Hydra writes multirun.yaml when a sweep begins.
    """
    files = sorted(directory.glob("**/profile/profile.json"), key=lambda path: (len(str(path)), path))
    if (begin := directory / "multirun.yaml").is_file():
        files = [path for path in files if path.stat().st_mtime >= begin.stat().st_mtime]
    reports = [json.loads(path.read_text(encoding="utf-8")) for path in files]
    labels = told_apart(reports, [str(path.parents[1].relative_to(directory)) for path in files])
    rows = [model_row(report) | {"model": label} for report, label in zip(reports, labels, strict=True)]
    atomic.write_text(directory / "profile.csv", csv_text(rows))
    table = [{"model": label} | cells for label, cells in zip(labels, shown(rows), strict=True)]
    on = "\n".join(f"- {label}: {on_what(report)}" for label, report in zip(labels, reports, strict=True))
    atomic.write_text(directory / "profile.md", f"{markdown_table(table)}\n{NOTE}\n\n{on}\n")
    plots.cost_of_models(directory / "profile.png", points(labels, reports))
    turned = [{"": name} | {row["model"]: row[name] for row in table} for name in table[0] if name != "model"]
    if len(reports) > 1:
        print_table(f"{len(reports)} profiles, side by side in {directory}", turned)


def told_apart(reports: list[Report], folders: list[str]) -> list[str]:
    """The reports' names; where several share one, with the settings in which those differ, or else the folder."""
    labels = []
    for report in reports:
        namesakes = [_settings(other) for other in reports if other["name"] == report["name"]]
        own = _settings(report).items()
        differing = [f"{key}={value}" for key, value in own if any(other.get(key) != value for other in namesakes)]
        labels.append(" ".join([report["name"], *differing]))
    return [
        label if labels.count(label) == 1 else f"{label} ({folder})"
        for label, folder in zip(labels, folders, strict=True)
    ]


def _settings(report: Report) -> Node:
    conditions = {key: value for key, value in report.items() if key not in ("name", "model", "forms")}
    return report["model"] | conditions


def points(labels: list[str], reports: list[Report]) -> dict[str, tuple[int, Latency | None]]:
    """MACs and the latency of the forward pass of every form of every model."""
    found = {}
    for label, report in zip(labels, reports, strict=True):
        latencies = times(report)
        for form, costs in report["forms"].items():
            plain = form == "plain"
            time = latencies.get("forward pass" if plain else f"forward pass, {in_words(form)}")
            found[label if plain else f"{label}, {in_words(form)}"] = costs["macs"], time
    return found
