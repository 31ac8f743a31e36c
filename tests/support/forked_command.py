"""The command line in processes of its own that start at once: a server that has imported the program forks them.

It needs seconds in place of the ten that a fresh interpreter takes on a busy machine to import what a run needs.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from visual_transformers.cli.main import main

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload([f"visual_transformers.{name}" for name in ("cli.jobs", "runner", "data", "models")])
PATIENCE = 300.0
"""Seconds that a command may take."""


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`python -m visual_transformers` with these arguments in a folder: how it ended, and what it printed."""
    with TemporaryDirectory() as place:
        streams = [Path(place, name) for name in ("out", "err")]
        process = SERVER.Process(target=_main, args=(arguments, folder, dict(os.environ), streams))
        process.start()
        process.join(PATIENCE)
        if process.is_alive():
            process.kill()
            raise TimeoutError(f"{' '.join(arguments)}: has not ended within {PATIENCE:.0f} s")
        printed = [path.read_text(encoding="utf-8") for path in streams]
    assert process.exitcode is not None
    return subprocess.CompletedProcess(arguments, process.exitcode, *printed)


def _main(arguments: tuple[str, ...], folder: Path, environment: dict[str, str], streams: list[Path]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    for number, path in enumerate([Path(os.devnull), *streams]):
        os.dup2(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND), number)
    sys.stdin, sys.stdout, sys.stderr = (os.fdopen(number, mode, 1) for number, mode in enumerate("rww"))
    sys.argv = ["visual_transformers", *arguments]
    main()
