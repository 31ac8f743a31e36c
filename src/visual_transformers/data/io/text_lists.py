"""Read text files that list one name or label per line, in any Unicode encoding."""

from __future__ import annotations

import codecs
from pathlib import Path

from visual_transformers.errors import DataError

BYTE_ORDER_MARKS = {  # the marks of UTF-32 come first because that of UTF-32-LE begins with that of UTF-16-LE
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def read_lines(path: Path, *, any_bytes: bool = False) -> list[str]:
    """Read the stripped lines of a text file in UTF-8, or in UTF-16 or UTF-32 with a byte order mark.

    With `any_bytes`, bytes that are not UTF-8 are kept as Python's `surrogateescape`, for names of files.

    Raises:
        DataError: if the file cannot be read or has another encoding.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    encoding = next((name for mark, name in BYTE_ORDER_MARKS.items() if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding, "surrogateescape" if any_bytes and encoding == "utf-8" else "strict")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise DataError(f"{path}, line {line}: is not {encoding} ({error.reason}). Save the file as UTF-8.") from error
    if "\0" in text:
        raise DataError(f"{path}: is not text, or is UTF-16 without a byte order mark. Save the file as UTF-8.")
    return [line.strip() for line in text.rstrip().split("\n")]
