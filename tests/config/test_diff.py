"""Settings of runs that were written before a key was added or a module renamed."""

from __future__ import annotations

import copy

import pytest

from visual_transformers.config.diff import changed_settings, current_name, digest
from visual_transformers.config.validation import validate


@pytest.fixture(scope="module")
def now(composed):
    return validate(composed("data=image_folder", "data.root=x")).everything


@pytest.fixture
def then(now):
    """The same settings, as an earlier version wrote them: all sections, older names of modules, no debug.samples."""
    settings = copy.deepcopy(now) | {"input": None, "predict": {"top": 5}, "export": {}, "profile": {}, "report": {}}
    del settings["debug"]["samples"]
    settings["data"]["reading"]["_target_"] = "visual_transformers.data.reading.Reading"
    settings["hardware"]["_target_"] = "visual_transformers.training.hardware.Hardware"
    settings["schedule"]["_target_"] = "visual_transformers.training.schedules.cosine"
    return settings


def test_a_run_from_before_a_renaming_has_the_same_settings(then, now):
    assert [*changed_settings(then, now)] == []
    assert digest(then) == digest(now) == digest(now | {"debug": None})


def test_another_schedule_or_number_of_samples_is_another_setting(then, now):
    then["schedule"]["_target_"] = "visual_transformers.training.schedules.step"
    limited = now | {"debug": now["debug"] | {"samples": 8}}
    assert [change.key for change in changed_settings(then, limited)] == ["debug.samples", "schedule._target_"]
    assert len({digest(settings) for settings in (then, now, limited)}) == 3


@pytest.mark.parametrize(
    ("value", "current"),
    [
        ("visual_transformers.training.schedules.step", "visual_transformers.training.lr_schedules.step"),
        ("visual_transformers.training.lr_schedules.step", "visual_transformers.training.lr_schedules.step"),
        ("visual_transformers.data.Digits", "visual_transformers.data.Digits"),
        (3, 3),
        (None, None),
    ],
)
def test_only_an_earlier_name_is_replaced(value, current):
    assert current_name(value) == current
