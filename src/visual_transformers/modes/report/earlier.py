"""The facts of a run that left no status.json, from its results, its configuration, and Hydra's choices."""

from __future__ import annotations

from pathlib import Path

import yaml

from visual_transformers.config.diff import digest
from visual_transformers.config.schema import Node


def facts(folder: Path, summary: Node) -> Node:
    """What can be known, with the names of `about.about`; the options that were chosen are in Hydra's own files."""
    config = yaml_node(folder / "config.yaml")
    found: Node = {}
    if config:
        found = {name: config.get(name) for name in ("name", "seed")} | {"settings": digest(config)}
        task = _section(config, "task")
        found |= {"task": str(task.get("_target_")).rpartition(".")[2].lower(), "metric": task.get("metric")}
        found |= {group: _section(config, group).get("_target_") for group in ("model", "data")}
    hydra = _section(yaml_node(folder / ".hydra" / "hydra.yaml"), "hydra")
    choices = _section(_section(hydra, "runtime"), "choices")
    chosen = {group: choices[group] for group in ("model", "data", "recipe") if isinstance(choices.get(group), str)}
    return summary | found | chosen


def yaml_node(path: Path) -> Node:
    """What a YAML file holds; empty if it is not there, torn, or something else."""
    try:
        content = yaml.load(path.read_bytes(), yaml.CSafeLoader)
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return content if isinstance(content, dict) else {}


def _section(node: Node, name: str) -> Node:
    section = node.get(name)
    return section if isinstance(section, dict) else {}
