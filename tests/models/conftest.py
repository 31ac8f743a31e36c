import runpy
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Threads that wait for each other on busy cores make these small models twenty times slower."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def overfit() -> Callable[[nn.Module, Tensor, Tensor], float]:
    """Train a model on one batch until its cross entropy is below 0.05, at most 60 steps; returns the last loss."""

    def train(model: nn.Module, images: Tensor, labels: Tensor) -> float:
        model.train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        loss = torch.tensor(torch.inf)
        for _ in range(60):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(images), labels)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            if loss.item() < 0.05:
                break
        return loss.item()

    return train


@pytest.fixture(scope="session")
def seed_net() -> Callable[..., nn.Module]:
    """Builds a network of the reference implementation by our name for it; see seed_oracle.py."""
    return runpy.run_path(str(Path(__file__).with_name("seed_oracle.py")))["build"]
