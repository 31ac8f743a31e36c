"""Text files that list files or labels, one a line, in whatever Unicode encoding an editor has saved them."""

from __future__ import annotations

import codecs
from pathlib import Path

from visual_transformers.errors import DataError

MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""Byte order marks with which a file begins, and its encoding."""


def lines(path: Path, *, any_bytes: bool = False) -> list[str]:
    """Return the lines of a text file in UTF-8, or in UTF-16 or UTF-32 with a byte order mark, stripped.

    Args:
        path: the file.
        any_bytes: whether names of files may hold bytes that are no text, as Python's `surrogateescape`.

    Raises:
        DataError: if the file cannot be read, or is of another encoding.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    encoding = next((name for mark, name in MARKS.items() if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding, "surrogateescape" if any_bytes and encoding == "utf-8" else "strict")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise DataError(f"{path}, line {line}: is not {encoding} ({error.reason}); save the file as UTF-8") from error
    if "\0" in text:
        raise DataError(f"{path}: is no text, or UTF-16 without a byte order mark; save the file as UTF-8")
    return [line.strip() for line in text.rstrip().split("\n")]
