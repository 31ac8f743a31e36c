"""The commands of the README compose and pass the checks, so that none of them goes stale."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from visual_transformers.cli.shorthands import expand
from visual_transformers.config.validation import validate

ROOT = Path(__file__).parents[1]
FILES = ("README.md", "experiments/README.md", "docs/cluster.md")
TEXT = "".join((ROOT / name).read_text() for name in FILES)
COMMANDS = sorted(set(re.findall(r"python -m visual_transformers ([^`#\n|]*)", TEXT.replace("\\\n", " "))))


@pytest.mark.parametrize("command", [c for c in COMMANDS if not c.startswith("--") and "..." not in c])
def test_a_command_of_the_readme_is_accepted(composed, command):
    arguments = expand(shlex.split(command.replace("PATH", "x")))
    validate(composed(*map(of_the_first_job, [text for text in arguments if text != "-m"])))


def of_the_first_job(override: str) -> str:
    """What the first job of a sweep has of several values, which stand outside of brackets and quotes."""
    return re.sub(r"^([^=]*=[^,'\[{]*),.*", r"\1", override)


def test_there_are_commands_to_check():
    assert len(COMMANDS) > 10
