"""Quote command-line values that Hydra would misread, e.g. a folder `2024_01_05` or a file `images (1)`.

Hydra's own syntax keeps its meaning: `a,b` with -m, `[a,b]`, `{a:1}`, `choice(a,b)`, quotes, and `${key}`. A value that
its grammar cannot read is text. A number that is typed for a string key stays as typed: here for the keys of `schema`,
in `validation` for those of the groups.
"""

from __future__ import annotations

import re
import typing
from collections.abc import Iterator, Sequence
from functools import cache
from importlib import resources
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, QuotedString
from hydra.errors import HydraException

from visual_transformers.config.limits import without_limits
from visual_transformers.config.schema import CONFIGS, sections

GROUPS = ("mode", "task", "model", "data", "data/augmentation", "optimizer", "schedule", "hardware", "distillation",
          "logger", "debug", "recipe", "study")  # fmt: skip
"""Config groups, whose options are file names."""


def as_hydra_reads(argument: str, *, sweeps: bool) -> str:
    """Return an argument of the command line, its value quoted where Hydra would misread it.

    Args:
        argument: as typed; an argument that is no override is returned unchanged.
        sweeps: True if commas separate the values of a sweep. Hydra then rewrites all values for the jobs.
    """
    key, equals, value = argument.partition("=")
    if not equals or argument.startswith("-"):
        return argument
    name = key.lstrip("+~")
    if name in GROUPS:
        return f"{key}={re.sub(r'[.]ya?ml(?=[],]|' + END + ')', '', value)}"
    read = _read(value)
    if read is None:
        return f"{key}={_readable(value, sweeps=sweeps)}"
    if not _has_number(read.value()):
        return argument
    rewritten = sweeps or read.is_sweep_override()
    if is_text(name) or (rewritten and _differs(value) and _is_text_of_a_group(name)):
        return f"{key}={_quote_numbers(value)}"
    return argument


END = r"\Z"


def _readable(value: str, *, sweeps: bool) -> str:
    """Quote the elements of a list or of a sweep that Hydra cannot read, or else the whole value."""
    candidates = []
    if sweeps and len(parts := split_at_commas(value)) > 1:
        candidates.append(",".join(map(_readable_part, parts)))
    candidates.append(_readable_part(value))
    return next((text for text in candidates if _read(text)), in_quotes(value))


def _readable_part(part: str) -> str:
    """Quote one value; in a list or a function of Hydra, e.g. `choice(a,b)`, only the elements that need it."""
    part = part.strip()
    if part and _read(part):
        return part
    if brackets := re.fullmatch(r"(\[|(?:choice|range|interval|shuffle|sort|glob)\()(.*)([\])])", part, re.DOTALL):
        inner = brackets[1] + ",".join(map(_readable_part, split_at_commas(brackets[2]))) + brackets[3]
        if _read(inner):
            return inner
    return in_quotes(part)


def _quote_numbers(value: str) -> str:
    """Quote the numbers in a value, in a list or in a sweep."""
    if (read := _read(value)) and _is_number(read.value()):
        return in_quotes(value.strip())
    if value.startswith("[") and value.endswith("]"):
        return "[" + ",".join(map(_quote_numbers, split_at_commas(value[1:-1]))) + "]"
    parts = split_at_commas(value)
    return ",".join(map(_quote_numbers, parts)) if len(parts) > 1 else value


def _differs(value: str) -> bool:
    """Return True if Hydra writes a number of a value in another way than it was typed, e.g. 1e2 as 100.0."""
    parts = [part.strip(" []") for part in split_at_commas(value.strip("[]"))]
    return any((read := _read(part)) and _is_number(read.value()) and str(read.value()) != part for part in parts)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


def _has_number(value: Any) -> bool:
    """Return True for a number, and for a list or a sweep that contains one."""
    elements = getattr(value, "list", value if isinstance(value, list) else [value])
    return any(map(_is_number, elements))


def _read(value: str) -> Override | None:
    """Parse a value as Hydra does; None if it cannot."""
    try:
        return PARSER.parse_override(f"key={value}")
    except HydraException:
        return None


PARSER = OverridesParser.create()


def in_quotes(text: str) -> str:
    """Return a text in quotes such that Hydra reads it unchanged."""
    escaped = re.sub(r"(\\*)'", r"\1\1\\'", text)
    return "'" + re.sub(r"(\\+)\Z", r"\1\1", escaped) + "'"


def as_text(text: str) -> str:
    """Return a text, in quotes only if Hydra would otherwise misread it."""
    read = _read(text)
    return text if read and not read.is_sweep_override() and read.value() == text else in_quotes(text)


def bare(value: str) -> str:
    """Return a typed value without its quotes, if it has any."""
    read = _read(value)
    parsed = read._value if read else None  # `value()` would not tell quoted numbers from bare ones
    return parsed.text if isinstance(parsed, QuotedString) else value


def split_at_commas(value: str) -> list[str]:
    """Split a value at its commas outside of quotes and brackets."""
    parts, depth, quote, start = [], 0, "", 0
    for place, sign in enumerate(value):
        escaped = place > 0 and value[place - 1] == "\\"
        if quote:
            quote = "" if sign == quote and not escaped else quote
        elif sign in "'\"" and not value[start:place].strip():  # within a word it is an apostrophe
            quote = sign
        elif sign in "([{":
            depth += 1
        elif sign in ")]}":
            depth = max(depth - 1, 0)
        elif sign == "," and not depth and not escaped:
            parts.append(value[start:place])
            start = place + 1
    return [*parts, value[start:]]


def is_text(key: str) -> bool:
    """Return True if `schema` declares a key as a string."""
    return key in TEXTS


@cache
def _is_text_of_a_group(key: str) -> bool:
    """Return True if an option of a group declares a key as a string, or as a list of strings.

    It imports the targets of the options, and therefore torch; only sweeps over such values call it.
    """
    from visual_transformers.config.instantiate import allowed_object, type_hints

    group, _, name = key.partition(".")
    folder = resources.files("visual_transformers.conf") / group
    if not name or not folder.is_dir():
        return False
    for option in folder.iterdir():
        target = (
            re.search(r"^_target_: (\S+)", option.read_text(encoding="utf-8"), re.MULTILINE)
            if option.is_file()
            else None
        )
        if target:
            hint = type_hints(allowed_object(target[1], group, (object,))).get(name)
            if {str, list[str]} & {hint, *typing.get_args(hint)}:
                return True
    return False


def _texts() -> Iterator[str]:
    for config in set(CONFIGS.values()):
        for prefix, section in [("", config), *((f"{path}.", kind) for path, kind in sections(config).items())]:
            for key, hint in typing.get_type_hints(section).items():
                if without_limits(hint)[0] in (str, str | None):
                    yield prefix + key


TEXTS = frozenset(_texts())


def as_typed(value: Any, typed: str) -> Any:
    """Return the typed text if Hydra made a number or a list of it; a quoted value is text already."""
    return value if value is None or isinstance(value, str) else typed


def elements_as_typed(values: Sequence[Any], typed: str | None) -> list[str]:
    """Return the elements of a list of strings; those that Hydra turned into numbers are as they were typed."""
    parts = split_at_commas(typed.strip()[1:-1]) if typed else []
    if len(parts) != len(values):  # the list was not typed on the command line
        return [str(value) for value in values]
    return [value if isinstance(value, str) else part.strip() for value, part in zip(values, parts, strict=True)]
