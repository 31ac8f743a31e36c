"""Which files a folder holds, remembered between runs: listing 1.3 million files takes minutes on a network disk.

A listing is kept with the modification time of every folder in it, which the system changes whenever an entry comes,
goes or is renamed. It is used only while all of these times are the same; looking at them takes one call a folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from visual_transformers import atomic

FORMAT = 1
UNSETTLED = 2.0
"""Seconds for which a folder counts as still changing: within the clock's grain its time may not tell two changes."""


@dataclass(frozen=True)
class Listing:
    """The files of a folder and its subfolders, sorted, and when each of those folders was last changed (ns)."""

    files: list[str]
    folders: dict[str, int]


def files_below(root: Path, suffixes: tuple[str, ...]) -> list[str]:
    """Paths below `root`, with `/` between folders, of the files that end in one of the lower-case `suffixes`; sorted.

    Links are followed. Hidden files and folders, whose names begin with a dot, are left out.
    """
    kept = _cache_file(root, suffixes)
    if (listing := _read(kept)) and all(_changed(root / name) == when for name, when in listing.folders.items()):
        return listing.files
    now = time.time_ns()
    listing = _scan(root, suffixes)
    if all(now - when > UNSETTLED * 1e9 for when in listing.folders.values()):
        with contextlib.suppress(OSError):  # a full or read-only disk costs the next run its time, and nothing else
            content = json.dumps({"format": FORMAT, **asdict(listing)})
            atomic.write_text(kept, content)
    return listing.files


def _scan(root: Path, suffixes: tuple[str, ...]) -> Listing:
    files: list[str] = []
    folders: dict[str, int] = {}
    seen: set[tuple[int, int]] = set()
    for path, inner, names in os.walk(root, followlinks=True):
        status = Path(path).stat()
        if (status.st_dev, status.st_ino) in seen:  # a link that leads back
            inner.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        below = os.path.relpath(path, root)
        folders[below] = status.st_mtime_ns
        prefix = "" if below == "." else f"{below}/"
        files += [prefix + name for name in names if name.lower().endswith(suffixes) and not name.startswith(".")]
    return Listing(sorted(files), folders)


def _changed(folder: Path) -> int | None:
    """When a folder's entries last changed, in ns; None if it is gone."""
    try:
        return folder.stat().st_mtime_ns
    except OSError:
        return None


def _cache_file(root: Path, suffixes: tuple[str, ...]) -> Path:
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    key = hashlib.sha256(json.dumps([str(root.resolve()), *suffixes]).encode()).hexdigest()
    return base / "visual_transformers" / "listings" / f"{key[:32]}.json"


def _read(path: Path) -> Listing | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Listing(content["files"], content["folders"]) if content["format"] == FORMAT else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
