from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import wandb

from visual_transformers.loggers import RunInfo


@pytest.fixture(autouse=True)
def _isolate_wandb(tmp_path_factory, monkeypatch) -> None:
    """Hide the user's W&B key, settings and files, and keep W&B from sending anything."""
    home = tmp_path_factory.mktemp("home")
    for name in [name for name in os.environ if name.startswith("WANDB")]:
        monkeypatch.delenv(name)
    places = {"HOME": ".", "NETRC": "netrc", "WANDB_CONFIG_DIR": "c", "WANDB_CACHE_DIR": "d", "WANDB_DATA_DIR": "e"}
    for name, place in places.items():
        monkeypatch.setenv(name, str(home / place))
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")


@pytest.fixture(autouse=True, scope="module")
def _own_service() -> Iterator[None]:
    """Stop W&B's service after each module, and forget its address, which a test's environment may have restored."""
    os.environ.pop("WANDB_SERVICE", None)
    yield
    wandb.teardown()


@pytest.fixture
def run(tmp_path: Path) -> RunInfo:
    """Facts of a run that starts."""
    return RunInfo("name", tmp_path, "top1", step=0, evaluated_step=0, total_steps=4, headline="what runs")
