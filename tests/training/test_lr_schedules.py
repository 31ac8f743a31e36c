from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from omegaconf import OmegaConf

from visual_transformers.config.instantiate import build as built
from visual_transformers.errors import ConfigError
from visual_transformers.training import lr_schedules

ALL = {
    "cosine": lr_schedules.cosine,
    "polynomial": lr_schedules.polynomial,
    "step": lr_schedules.step,
    "multi_step": partial(lr_schedules.multi_step, milestones=[0.5, 0.75]),
    "constant": lr_schedules.constant,
}
every_schedule = pytest.mark.parametrize("build", ALL.values(), ids=ALL)


def rates(build, *, epochs=5, steps_per_epoch=4, **settings) -> list[float]:
    """Return the learning rate at every step of a run, relative to the base learning rate."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    total = epochs * steps_per_epoch
    schedule = build(optimizer, steps_per_epoch=steps_per_epoch, total_steps=total, **settings)
    learning_rates = []
    for _ in range(total):
        learning_rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return learning_rates


def test_cosine_is_half_a_cosine_over_all_steps():
    expected = [(1 + math.cos(math.pi * step / 20)) / 2 for step in range(20)]
    assert rates(lr_schedules.cosine) == pytest.approx(expected, abs=1e-12)


def test_cosine_ends_at_its_final_rate():
    expected = [0.1 + 0.9 * (1 + math.cos(math.pi * step / 20)) / 2 for step in range(20)]
    assert rates(lr_schedules.cosine, final_lr=0.1) == pytest.approx(expected, abs=1e-12)


def test_polynomial_is_its_power():
    expected = [(1 - step / 20) ** 0.9 for step in range(20)]
    assert rates(lr_schedules.polynomial, power=0.9) == pytest.approx(expected, abs=1e-12)


def test_step_drops_at_its_epochs():
    expected = [0.1 ** (step // 8) for step in range(20)]
    assert rates(lr_schedules.step, every_epochs=2, gamma=0.1) == pytest.approx(expected, abs=1e-12)


def test_exponential_multiplies_once_an_epoch(composed):
    cfg = OmegaConf.to_container(composed("schedule=exponential").schedule)
    build = partial(built, cfg, "schedule")
    expected = [0.9875 ** (step // 4) for step in range(20)]
    assert rates(lambda optimizer, **given: build(optimizer=optimizer, **given)) == pytest.approx(expected, abs=1e-12)


def test_multi_step_drops_at_fractions_of_the_whole_run():
    expected = [1.0] * 10 + [0.5] * 5 + [0.25] * 5
    assert rates(lr_schedules.multi_step, milestones=[0.5, 0.75], gamma=0.5) == pytest.approx(expected, abs=1e-12)


def test_multi_step_counts_its_milestones_from_the_first_step_of_the_warm_up():
    expected = [0.2, 0.4, 0.6, 0.8] + [1.0] * 6 + [0.1] * 5 + [0.01] * 5
    found = rates(lr_schedules.multi_step, milestones=[0.5, 0.75], warmup_epochs=1, warmup_start=0.2)
    assert found == pytest.approx(expected, abs=1e-12)


def test_a_warm_up_ends_at_the_first_milestone():
    expected = [0.2, 0.4, 0.6, 0.8] + [0.1] * 16
    found = rates(lr_schedules.multi_step, milestones=[0.2], warmup_epochs=2, warmup_start=0.2)
    assert found == pytest.approx(expected, abs=1e-12)


def test_detectron2_s_1x_drops_at_60_and_80_thousand_of_90_thousand_steps():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = lr_schedules.multi_step(optimizer, steps_per_epoch=1, total_steps=90_000, milestones=[0.66667, 0.88889])
    assert sorted(schedule.milestones) == [60_000, 80_000]


@pytest.mark.parametrize("milestones", [[], [0.0], [1.0], [0.5, 0.5], [0.7, 0.3], [60000.0], [math.nan]])
def test_milestones_that_do_not_increase_within_the_run_are_refused(milestones):
    with pytest.raises(ConfigError, match=r"schedule\.milestones=.*e\.g\. \[0\.667,0\.889\]"):
        rates(lr_schedules.multi_step, milestones=milestones)


def test_constant_stays():
    assert rates(lr_schedules.constant) == [1.0] * 20


@every_schedule
def test_a_warm_up_is_linear(build):
    warmup = rates(build, warmup_epochs=1)[:5]
    assert warmup == pytest.approx([0.01, 0.2575, 0.505, 0.7525, 1.0], abs=1e-12)


@every_schedule
def test_a_warm_up_starts_at_the_configured_fraction(build):
    found = rates(build, warmup_epochs=1, warmup_start=0.0625)[:5]
    assert found == pytest.approx([0.0625 + 0.9375 * step / 4 for step in range(5)], abs=1e-12)


@every_schedule
@pytest.mark.parametrize("start", [0, -1, 1.01, math.nan])
def test_a_warm_up_that_starts_at_0_or_above_1_is_refused(build, start):
    with pytest.raises(ConfigError, match=r"schedule\.warmup_start=.*above 0 and at most 1"):
        rates(build, warmup_epochs=1, warmup_start=start)


@every_schedule
def test_a_warm_up_takes_at_most_half_of_the_run(build):
    assert rates(build, warmup_epochs=5) == rates(build, warmup_epochs=2.5)


@pytest.mark.parametrize("epochs", [-1, math.inf, math.nan])
def test_a_warm_up_of_no_length_is_refused(epochs):
    with pytest.raises(ConfigError, match=r"schedule\.warmup_epochs"):
        rates(lr_schedules.cosine, warmup_epochs=epochs)


@pytest.mark.parametrize(
    ("build", "setting"),
    [
        (lr_schedules.cosine, {"final_lr": -0.1}),
        (lr_schedules.polynomial, {"power": 0}),
        (lr_schedules.step, {"gamma": 0}),
        (lr_schedules.step, {"every_epochs": math.nan}),
        (lr_schedules.step, {"every_epochs": 0.1}),
        (partial(lr_schedules.multi_step, milestones=[0.5]), {"gamma": math.inf}),
    ],
)
def test_a_number_out_of_range_is_refused_by_its_key(build, setting):
    [(key, value)] = setting.items()
    with pytest.raises(ConfigError, match=rf"schedule\.{key}={value}"):
        rates(build, **setting)


@every_schedule
def test_a_restored_schedule_continues_as_the_first_one(build):
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
