"""Fixtures that many tests share: a tiny configuration, and a run of it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_module
from omegaconf import DictConfig

from tests.support import forked_command
from visual_transformers.config.validation import Config, validate
from visual_transformers.distributed import environment

pytest_plugins = ["tests.support.image_fixtures", "tests.support.model_fixtures"]

TINY = [
    "hardware.threads=1",
    "logger=[files]",
    "logger.files.curves=false",
    "training.samples=2",
    "training.log_every=2",
]
TINY_CLASSIFICATION = [
    *TINY,
    "data.image_size=32",
    "data.batch_size=360",
    "model.token_channels=32",
    "training.epochs=2",
]
TINY_SEGMENTATION = [
    *TINY,
    "task=segmentation",
    "model.backbone=resnet18",
    "model.token_channels=32",
    "model.pyramid_channels=32",
    "model.branch_channels=32",
    "data.image_size=64",
    "data.train_scenes=24",
    "data.val_scenes=8",
    "data.batch_size=8",
    "training.epochs=2",
]


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture
def second_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes this process the second one of a run, by the variables that torchrun sets."""
    for name in environment.VARIABLES:
        monkeypatch.setenv(name, "2" if name.endswith("WORLD_SIZE") else "1")


@pytest.fixture
def command(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs the command line, with the arguments that it is called with, in an empty folder of the test."""
    return lambda *arguments: forked_command.run(tmp_path, *arguments)


@pytest.fixture
def shared_data() -> Path:
    """Real data sets beside the checkout, which are no part of the repository."""
    path = Path(__file__).parents[1].parent / "shared" / "data"
    if not path.is_dir():
        pytest.skip("shared/ is not beside this checkout")
    return path


@pytest.fixture(scope="session")
def composed() -> Callable[..., DictConfig]:
    """Composes the configuration that a command line would give."""

    def compose_with(*overrides: str) -> DictConfig:
        with initialize_config_module("visual_transformers.conf", version_base="1.3"):
            cfg = compose("config", ["name=tiny", *overrides])
        return cfg

    return compose_with


@pytest.fixture(scope="session")
def tiny(composed: Callable[..., DictConfig]) -> Callable[..., Config]:
    """A checked configuration of a run of seconds; further overrides win."""
    return lambda *overrides: validate(composed(*TINY_CLASSIFICATION, *overrides))


@pytest.fixture(scope="session")
def tiny_scenes(composed: Callable[..., DictConfig]) -> Callable[..., Config]:
    """The same for segmentation."""
    return lambda *overrides: validate(composed(*TINY_SEGMENTATION, *overrides))


@pytest.fixture(scope="session")
def weights_of() -> Callable[[Path], dict[str, torch.Tensor]]:
    """The model's tensors in a run's last checkpoint."""
    return lambda directory: torch.load(directory / "checkpoints" / "last.pt", weights_only=True)["model"]
