"""Reader of W&B's transaction logs in a run's folder: which records were logged by which sessions.

A session is one start of a run. Its folder, `run-TIME-ID` or `offline-run-TIME-ID`, has a transaction log, which
`wandb sync` reads. A log has LevelDB's format: blocks of 32 KiB with fragments of protobuf messages, each with a
checksum, a length and a kind. The log of a killed process is truncated, and may have no record.
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

from visual_transformers.loggers.records import RecordKey, record_key

HEADER = struct.Struct("<4sHB")
"""Header of a log: b":W&B", a magic number, a version."""
FRAGMENT = struct.Struct("<IHB")
"""Header of a fragment: checksum, length, kind."""
BLOCK = 32 * 1024
WHOLE, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def find_logged(folder: Path, run_id: str, on_server: int | None) -> set[RecordKey]:
    """Return the keys of the records that W&B has, or will have when the sessions in `folder` are synced.

    Args:
        folder: `wandb/` of a run.
        run_id: W&B's id of the run.
        on_server: number of the run's rows on the server. Later rows of an online session are lost, and their numbers
            are used again. None if the server cannot be asked; then all of them count as sent.
    """
    kept: set[RecordKey] = set()
    sent: dict[int, RecordKey] = {}
    for path in sorted(list_logs(folder, run_id), key=lambda path: path.parent.name.removeprefix("offline-")):
        offline = path.parent.name.startswith("offline-")
        for row in read_rows(path):
            if offline:
                kept.add(record_key(row))
            else:
                sent[row["_step"]] = record_key(row)
    return kept | {key for number, key in sent.items() if on_server is None or number < on_server}


def list_logs(folder: Path, run_id: str = "*") -> Iterator[Path]:
    """List the logs of a run's sessions, or of all runs; the link `latest-run` is left out."""
    return folder.glob(f"*run-*-{run_id}/run-{run_id}.wandb")


def remove_empty(folder: Path) -> None:
    """Remove sessions that were killed before they wrote a message: one of them makes `wandb sync` fail."""
    for path in list(list_logs(folder)):
        if next(read_messages(path), None) is None:
            shutil.rmtree(path.parent)


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of the history in a log, each with its number as `_step`."""
    for message in read_messages(path):
        if message.WhichOneof("record_type") == "history":
            items = {item.key or ".".join(item.nested_key): item.value_json for item in message.history.item}
            yield {key: json.loads(value) for key, value in items.items()} | {"_step": message.history.step.num}


def read_messages(path: Path) -> Iterator[Any]:
    """Yield the messages of a log, up to the first damaged one."""
    message = b""
    for kind, data in _read_fragments(path.read_bytes()):
        message = data if kind in (WHOLE, FIRST) else message + data
        if kind in (WHOLE, LAST):
            try:
                yield protocol.Record.FromString(message)  # type: ignore[attr-defined]  # made at import
            except DecodeError:
                return


def _read_fragments(log: bytes) -> Iterator[tuple[int, bytes]]:
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
