"""Results of `mode=profile` as files, tables and figures: costs of a model, or of the models of a sweep."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

from visual_transformers import atomic, json_text
from visual_transformers.config.schema import Node
from visual_transformers.modes.profile import plots
from visual_transformers.modes.profile.latency import Latency
from visual_transformers.tables import format_number, print_table, to_csv, to_markdown

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
"""Table of a model: heading, column of `make_model_row`, scale."""
PER_PART = {
    "part": "part",
    "parameters": "parameters",
    "MACs literal": "macs_literal",
    "MACs re-associated": "macs_reassociated",
}
"""Table of the parts of a model: heading, column of `make_part_rows`."""
NOTE = (
    "MACs and FLOPs (2 x MACs) are of one image in evaluation mode: convolutions and matrix products, without biases, "
    "norms, activations and interpolation. Memory and latencies are of the whole batch, and of the model as it was "
    "configured unless they are called literal; latencies are medians, with their interquartile range (IQR)."
)


def write_report(report: Report, directory: Path) -> None:
    """Write profile.json, profile.csv (one row per part), profile.md and profile.png; print the tables."""
    atomic.write_text(directory / "profile.json", json_text.dumps(report, indent=2) + "\n")
    rows = make_part_rows(report)
    atomic.write_text(directory / "profile.csv", to_csv(rows))
    title = f"{report['name']}: {format_setup(report)}"
    total = {name: sum(row.get(name, 0) for row in rows) for name in rows[0] if name != "part"}
    by_part = [
        {heading: str(row[name]) for heading, name in PER_PART.items() if name in row}
        for row in (*rows, {"part": "total"} | total)
    ]
    summary = [{"": name, "value": value} for name, value in format_rows([make_model_row(report)])[0].items()]
    tables = f"{to_markdown(summary)}\n{to_markdown(by_part)}"
    atomic.write_text(directory / "profile.md", f"# {title}\n\n{tables}\n{NOTE}\n")
    macs = {
        format_form(form): {part["name"]: part["macs"] for part in costs["parts"]}
        for form, costs in report["forms"].items()
    }
    plots.draw_part_costs(directory / "profile.png", title, macs, collect_latencies(report))
    print_table(title, summary)
    print_table(f"left in {directory}; by part:", by_part)


def format_setup(report: Report) -> str:
    """Describe image size, batch size and hardware for a title."""
    height, width = report["image_size"]
    return (
        f"{height} x {width} pixels, {report['classes']} classes, batch of {report['batch_size']}, "
        f"{report['device']} ({report['device_name']}, {report['threads']} threads) in {report['precision']}, "
        f"torch {report['torch']}"
    )


def make_part_rows(report: Report) -> list[Row]:
    """Return a row per part of the model: parameters, and MACs and FLOPs of each form."""
    rows: dict[str, Row] = {}
    for form, costs in report["forms"].items():
        for part in costs["parts"]:
            row = rows.setdefault(part["name"], {"part": part["name"], "parameters": part["parameters"]})
            row |= {name_column(quantity, form): part[quantity] for quantity in ("macs", "flops")}
    return list(rows.values())


def name_column(quantity: str, form: str) -> str:
    """Return the column of a count; a model with a single form is `literal`, because it is as its source says."""
    return f"{quantity}_{'literal' if form == 'plain' else form}"


def format_form(form: str, label: str = "") -> str:
    """Return the name of a form for tables and figures, or a label with that name unless the form is plain."""
    name = "re-associated" if form == "reassociated" else form
    return name if not label else label if form == "plain" else f"{label}, {name}"


def make_model_row(report: Report) -> Row:
    """Return the costs of a model in base units: a row of a sweep's profile.csv.

    Memory and latencies are of the configured form; columns with the prefix `literal_` are of the other.
    """
    configured, *others = report["forms"]
    row = {"model": report["name"], "image_size": "x".join(map(str, report["image_size"]))}
    row |= {key: report[key] for key in ("batch_size", "device", "precision", "threads")}
    row["parameters"] = report["forms"][configured]["parameters"]
    for quantity in ("macs", "flops"):
        row |= {name_column(quantity, form): costs[quantity] for form, costs in report["forms"].items()}
    for form, prefix in ((configured, ""), *((form, f"{form}_") for form in others)):
        costs = report["forms"][form]
        row[f"{prefix}activation_bytes"] = costs["activation_bytes"]
        row[f"{prefix}peak_bytes_{report['peak_memory']}"] = costs["peak_bytes"]
        for name in ("forward", "step"):
            if time := costs[name]:
                row[f"{prefix}{name}_seconds"] = time["median"]
                row[f"{prefix}{name}_iqr_seconds"] = time["upper"] - time["lower"]
                row[f"{prefix}{name}_images_per_second"] = time["images_per_second"]
    return row


def format_rows(rows: list[Row]) -> list[dict[str, str]]:
    """Format rows for a table: the columns of `PER_MODEL` that any row has, in the units of their headings."""
    present = {heading: source for heading, source in PER_MODEL.items() if any(source[0] in row for row in rows)}
    return [
        {heading: format_number(row.get(name), scale) for heading, (name, scale) in present.items()} for row in rows
    ]


def collect_latencies(report: Report) -> dict[str, Latency]:
    """Return the latencies of a report by their labels in a figure."""
    return {
        format_form(form, label): time
        for name, label in (("forward", "forward pass"), ("step", "training step"))
        for form, costs in report["forms"].items()
        if (time := _read_latency(costs[name]))
    }


def _read_latency(time: Row | None) -> Latency | None:
    return Latency(**{field.name: time[field.name] for field in fields(Latency)}) if time else None


def gather(directory: Path) -> None:
    """Write profile.csv and profile.md (one row per model) and profile.png for the jobs of a sweep; print the table.

    Jobs of an earlier sweep in the same folder are skipped: Hydra writes multirun.yaml when a sweep starts.
    """
    files = sorted(directory.glob("**/profile/profile.json"), key=lambda path: (len(str(path)), path))
    if (start := directory / "multirun.yaml").is_file():
        files = [path for path in files if path.stat().st_mtime >= start.stat().st_mtime]
    reports = [json.loads(path.read_text(encoding="utf-8")) for path in files]
    labels = make_labels(reports, [str(path.parents[1].relative_to(directory)) for path in files])
    rows = [make_model_row(report) | {"model": label} for report, label in zip(reports, labels, strict=True)]
    atomic.write_text(directory / "profile.csv", to_csv(rows))
    table = [{"model": label} | cells for label, cells in zip(labels, format_rows(rows), strict=True)]
    setups = "\n".join(f"- {label}: {format_setup(report)}" for label, report in zip(labels, reports, strict=True))
    atomic.write_text(directory / "profile.md", f"{to_markdown(table)}\n{NOTE}\n\n{setups}\n")
    points = {
        format_form(form, label): (costs["macs"], _read_latency(costs["forward"]))
        for label, report in zip(labels, reports, strict=True)
        for form, costs in report["forms"].items()
    }
    plots.draw_model_costs(directory / "profile.png", points)
    if len(reports) > 1:
        transposed = [{"": name} | {row["model"]: row[name] for row in table} for name in table[0] if name != "model"]
        print_table(f"{len(reports)} profiles, side by side in {directory}", transposed)


def make_labels(reports: list[Report], folders: list[str]) -> list[str]:
    """Return the names of the reports; equal names get the settings that differ, and if none does, the folder."""
    labels = []
    for report in reports:
        namesakes = [_get_settings(other) for other in reports if other["name"] == report["name"]]
        settings = _get_settings(report).items()
        differing = [f"{key}={value}" for key, value in settings if any(other.get(key) != value for other in namesakes)]
        labels.append(" ".join([report["name"], *differing]))
    return [
        label if labels.count(label) == 1 else f"{label} ({folder})"
        for label, folder in zip(labels, folders, strict=True)
    ]


def _get_settings(report: Report) -> Node:
    return report["model"] | {key: report[key] for key in report if key not in ("name", "model", "forms")}
