"""What W&B's own files in a run's folder hold: which records, of which sessions.

A session is one start of a run. It leaves a folder `run-TIME-ID` or `offline-run-TIME-ID` with a transaction log, which
`wandb sync` reads. A log is in LevelDB's format: blocks of 32 KiB with fragments of protobuf messages, of each a
checksum, a length and a kind. A process that is killed leaves it without an end, and perhaps without any record.
"""

from __future__ import annotations

import json
import shutil
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError
from wandb.proto import wandb_internal_pb2 as protocol

from visual_transformers.loggers.records import Moment, moment

HEADER = struct.Struct("<4sHB")
"""Of a log: b":W&B", a magic number, a version."""
FRAGMENT = struct.Struct("<IHB")
"""Of a fragment: checksum, length, kind."""
BLOCK = 32 * 1024
WHOLE, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def logged(folder: Path, run_id: str, on_server: int | None) -> set[Moment]:
    """The moments whose records are in W&B already, or will be when the sessions in `folder` are synced.

    Args:
        folder: `wandb/` of a run.
        run_id: of the run.
        on_server: how many rows the server has of the run. What an online session sent after those is lost, and its
            row numbers are given again. None if nobody can ask the server; then they count as sent.
    """
    kept: set[Moment] = set()
    sent: dict[int, Moment] = {}
    for path in sorted(logs(folder, run_id), key=lambda path: path.parent.name.removeprefix("offline-")):
        offline = path.parent.name.startswith("offline-")
        for row in rows(path):
            if offline:
                kept.add(moment(row))
            else:
                sent[row["_step"]] = moment(row)
    return kept | {found for number, found in sent.items() if on_server is None or number < on_server}


def logs(folder: Path, run_id: str = "*") -> Iterator[Path]:
    """The transaction logs of a run's sessions, or of all; not that of the link `latest-run`, which is one of them."""
    return folder.glob(f"*run-*-{run_id}/run-{run_id}.wandb")


def remove_empty(folder: Path) -> None:
    """Take away sessions whose process died before anything was written: one of them makes `wandb sync` fail."""
    for path in list(logs(folder)):
        if next(messages(path), None) is None:
            shutil.rmtree(path.parent)


def rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of the history in a log, each with its number as `_step`."""
    for message in messages(path):
        if message.WhichOneof("record_type") == "history":
            items = {item.key or ".".join(item.nested_key): item.value_json for item in message.history.item}
            yield {key: json.loads(value) for key, value in items.items()} | {"_step": message.history.step.num}


def messages(path: Path) -> Iterator[Any]:
    """The messages of a log, up to where it is torn."""
    parts = b""
    for kind, data in _fragments(path.read_bytes()):
        parts = data if kind in (WHOLE, FIRST) else parts + data
        if kind in (WHOLE, LAST):
            try:
                yield protocol.Record.FromString(parts)  # type: ignore[attr-defined]  # made when it is imported
            except DecodeError:
                return


def _fragments(log: bytes) -> Iterator[tuple[int, bytes]]:
    position = HEADER.size
    while position + FRAGMENT.size <= len(log):
        if (left := BLOCK - position % BLOCK) < FRAGMENT.size:
            position += left  # the end of a block is padding
            continue
        checksum, length, kind = FRAGMENT.unpack_from(log, position)
        data = log[position + FRAGMENT.size : position + FRAGMENT.size + length]
        if not WHOLE <= kind <= LAST or zlib.crc32(data, zlib.crc32(bytes([kind]))) != checksum:
            return
        yield kind, data
        position += FRAGMENT.size + length
