"""Class-by-class comparison of two models."""

from __future__ import annotations

import pytest

from visual_transformers.errors import ConfigError
from visual_transformers.modes.report.classes import compare_classes
from visual_transformers.modes.report.groups import group_runs
from visual_transformers.modes.report.run import Run


def scores(**of_class: float) -> dict:
    return {name: {"IoU": value, "accuracy": 1.0} for name, value in of_class.items()}


@pytest.fixture
def comparisons(tmp_path):
    def read(models: list[str] | None = None) -> list:
        return compare_classes(group_runs(Run.read(path) for path in sorted(tmp_path.iterdir())), models)

    return read


def test_gains_are_differences_of_means_over_seeds_the_largest_first(leave, comparisons):
    leave("a0", 0.5, seed=0, settings="a", model="fpn", class_scores=scores(sky=0.5, car=0.4, bus=0.2))
    leave("a1", 0.5, seed=1, settings="a", model="fpn", class_scores=scores(sky=0.7, car=0.4, bus=float("nan")))
    leave("b0", 0.5, seed=0, settings="b", model="vt_fpn", class_scores=scores(sky=0.5, car=0.9, bus=0.3))
    leave("b1", 0.5, seed=1, settings="b", model="vt_fpn", class_scores=scores(sky=0.5, car=0.7, bus=0.4))
    (found,) = comparisons()
    assert (found.first.model, found.second.model, found.score) == ("fpn", "vt_fpn", "IoU")
    gains = {difference.name: difference.gain for difference in found.classes}
    assert list(gains) == ["car", "bus", "sky"]
    assert list(gains.values()) == pytest.approx([0.4, 0.15, -0.1])
    sky, bus = found.classes[2], found.classes[1]
    assert sky.std == pytest.approx((0.02 + 0) ** 0.5)  # of 0.5 and 0.7, and of twice 0.5
    assert bus.std is None


def test_the_two_models_with_most_seeds_are_compared_a_vt_model_against_the_other(leave, comparisons):
    for model, seeds in {"vt_b": 3, "a": 1, "c": 2}.items():
        for seed in range(seeds):
            leave(f"{model}{seed}", 0.5, seed=seed, settings=model, model=model, class_scores=scores(sky=0.5))
    (found,) = comparisons()
    assert (found.first.model, found.second.model) == ("c", "vt_b")


def test_models_can_be_named(leave, comparisons):
    for model in ("a", "b", "c"):
        leave(model, 0.5, settings=model, model=model, class_scores=scores(sky=0.5))
    (found,) = comparisons(["c", "a"])
    assert (found.first.model, found.second.model) == ("c", "a")


def test_classes_are_compared_on_the_same_data_alone(leave, comparisons):
    leave("a", 0.5, settings="a", model="a", data="x", class_scores=scores(sky=0.5))
    leave("b", 0.5, settings="b", model="b", data="y", class_scores=scores(sky=0.5))
    assert comparisons() == []
    with pytest.raises(ConfigError, match=r"report\.compare: a and b have no classes in common"):
        comparisons(["a", "b"])


def test_a_model_of_no_run_is_refused_with_those_that_there_are(leave, comparisons):
    leave("a", 0.5, model="resnet18", class_scores=scores(sky=0.5))
    with pytest.raises(ConfigError, match=r"report\.compare: no run is of resnt18; did you mean resnet18\?"):
        comparisons(["resnt18", "resnet18"])


def test_classifiers_are_compared_by_recall(leave, comparisons):
    for model in ("a", "b"):
        leave(model, 0.5, settings=model, model=model, class_scores={"an, ant": {"recall": 0.5, "precision": 1.0}})
    (found,) = comparisons()
    assert (found.score, [difference.name for difference in found.classes]) == ("recall", ["an, ant"])
