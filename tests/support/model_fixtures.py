"""Fixtures for tests of models and weight files."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.support import seed_oracle


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
    """Builds a network of the reference implementation by our name for it."""
    return seed_oracle.build
