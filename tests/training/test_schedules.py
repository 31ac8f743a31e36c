from __future__ import annotations

import math

import pytest
import torch

from visual_transformers.errors import ConfigError
from visual_transformers.training import schedules


def rates(build, *, epochs=5, steps_per_epoch=4, **settings) -> list[float]:
    """The learning rate at every step of a run, as parts of the full rate."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    total = epochs * steps_per_epoch
    schedule = build(optimizer, steps_per_epoch=steps_per_epoch, total_steps=total, **settings)
    seen = []
    for _ in range(total):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return seen


def test_cosine_is_half_a_cosine_over_all_steps():
    expected = [(1 + math.cos(math.pi * step / 20)) / 2 for step in range(20)]
    assert rates(schedules.cosine) == pytest.approx(expected, abs=1e-12)


def test_polynomial_is_its_power():
    expected = [(1 - step / 20) ** 0.9 for step in range(20)]
    assert rates(schedules.polynomial, power=0.9) == pytest.approx(expected, abs=1e-12)


def test_step_drops_at_its_epochs():
    expected = [0.1 ** (step // 8) for step in range(20)]
    assert rates(schedules.step, every_epochs=2, gamma=0.1) == pytest.approx(expected, abs=1e-12)


def test_constant_stays():
    assert rates(schedules.constant) == [1.0] * 20


@pytest.mark.parametrize("build", [schedules.cosine, schedules.polynomial, schedules.step, schedules.constant])
def test_a_warm_up_rises_in_a_line_to_the_full_rate(build):
    warmup = rates(build, warmup_epochs=1)[:5]
    assert warmup == pytest.approx([0.01, 0.2575, 0.505, 0.7525, 1.0], abs=1e-12)


@pytest.mark.parametrize("build", [schedules.cosine, schedules.polynomial, schedules.step, schedules.constant])
def test_a_warm_up_takes_at_most_half_of_the_run(build):
    assert rates(build, warmup_epochs=5) == rates(build, warmup_epochs=2.5)


@pytest.mark.parametrize("epochs", [-1, math.inf, math.nan])
def test_a_warm_up_of_no_length_is_refused(epochs):
    with pytest.raises(ConfigError, match=r"schedule\.warmup_epochs"):
        rates(schedules.cosine, warmup_epochs=epochs)


@pytest.mark.parametrize("build", [schedules.cosine, schedules.polynomial, schedules.step, schedules.constant])
def test_a_restored_schedule_goes_on_as_the_first_would(build):
    def new():
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        return optimizer, build(optimizer, steps_per_epoch=4, total_steps=20, warmup_epochs=1)

    def advance(optimizer, schedule, steps):
        seen = []
        for _ in range(steps):
            optimizer.step()
            schedule.step()
            seen.append(optimizer.param_groups[0]["lr"])
        return seen

    first, second = new(), new()
    advance(*first, steps=3)
    second[0].load_state_dict(first[0].state_dict())
    second[1].load_state_dict(first[1].state_dict())
    assert advance(*second, steps=10) == advance(*first, steps=10)
