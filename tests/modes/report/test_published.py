"""Published scores: they agree with recipes and sweeps, and match only runs of these."""

from __future__ import annotations

import re
from itertools import takewhile
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from visual_transformers.modes.report.groups import Group
from visual_transformers.modes.report.published import PublishedScore, format_rows, match_groups, read_all
from visual_transformers.modes.report.run import Run

ROOT = Path(__file__).parents[3] / "experiments"
SCORES = read_all()


def note(path: Path) -> str:
    """Return the comment at the top of a file as one line."""
    lines = path.read_text().splitlines()[1:]
    return " ".join(line.removeprefix("#").strip() for line in takewhile(lambda line: line.startswith("#"), lines))


def published_by(recipe: str) -> list[float]:
    """Return the published scores that a recipe's comment names."""
    text = re.search(r"Published: (.*?) Ours: ", note(ROOT / "recipe" / f"{recipe}.yaml"))[1]
    return [float(number) for number in re.findall(r"\d+\.\d+", text)]


RECIPES = sorted(path.stem for path in (ROOT / "recipe").glob("*.yaml") if published_by(path.stem))


def of(recipe: str) -> list[PublishedScore]:
    return [f for f in SCORES if f.recipe == recipe and not f.table.startswith("ablation")]


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_and_the_published_figures_say_the_same(recipe):
    ours = [round(figure.percent, 2) for figure in of(recipe)]
    assert ours[0] == published_by(recipe)[0]
    assert set(ours) <= set(published_by(recipe))
    if recipe.startswith("paper_"):
        assert set(ours) == set(published_by(recipe))


def test_every_figure_has_a_recipe():
    assert {figure.recipe for figure in SCORES} == set(RECIPES)


@pytest.mark.parametrize("name", ["tokenizer", "recurrence", "token_module", "tokens", "projector"])
def test_a_study_and_the_published_ablation_say_the_same(name):
    path = ROOT / "study" / f"ablation_{name}.yaml"
    ((key, values),) = yaml.safe_load(path.read_text())["hydra"]["sweeper"]["params"].items()
    text = note(path).split("Ours")[0]
    said = {(float(top1), int(mmacs)) for top1, mmacs in re.findall(r"(\d\d\.\d), (\d{4})", text)}
    ablations = [f for f in SCORES if f.table == TABLES[name]]
    assert {(f.percent, round(1000 * f.gmacs)) for f in ablations} == said
    assert [dict(f.settings)[key] for f in ablations] == values.split(",")


TABLES = {
    "tokenizer": "ablation: first tokenizer",
    "recurrence": "ablation: later tokenizers",
    "token_module": "ablation: token module",
    "tokens": "ablation: tokens",
    "projector": "ablation: projector",
}


def run_of(figure: PublishedScore, *overrides: str, recipe: bool = True) -> Group:
    """Make the run of a score's recipe without training."""
    settings = [f"recipe={figure.recipe}", "data.root=x", *(f"{key}={value}" for key, value in figure.settings)]
    with initialize_config_module("visual_transformers.conf", version_base="1.3"):
        cfg = compose("config", ["name=x", *settings, *overrides], return_hydra_config=True)
    choices = cfg.hydra.runtime.choices
    about = {"task": choices.task, "model": choices.model, "data": choices.data, "metric": cfg.task.metric}
    about |= {"recipe": figure.recipe if recipe else None, "classes": figure.subject.classes, "settings": "x"}
    run = Run(Path("nowhere"), "finished", about | {"steps_per_epoch": 1, "total_steps": cfg.training.epochs}, {})
    node = OmegaConf.to_container(OmegaConf.masked_copy(cfg, ["model"]), resolve=True)
    run.config = {f"model.{key}": value for key, value in node["model"].items()}
    return Group([run])


@pytest.mark.parametrize("figure", [f for f in SCORES if f.split == "val"], ids=lambda f: f"{f.table} {f.model}")
def test_a_figure_stands_beside_a_run_of_its_recipe(figure):
    (found,) = match_groups([run_of(figure)])
    assert figure in found
    assert {(f.recipe, f.settings) for f in found} == {(figure.recipe, figure.settings)}


BASELINE = next(figure for figure in SCORES if figure.model == "vt_resnet18")


@pytest.mark.parametrize("override", ["model.tokens=8", "model.recurrent=false"])
def test_a_run_with_another_model_setting_has_not_the_figure_of_the_recipe(override):
    assert BASELINE not in match_groups([run_of(BASELINE, override)])[0]


def test_a_run_of_another_number_of_classes_has_none():
    group = run_of(BASELINE)
    group.runs[0].metadata["classes"] = 10
    assert match_groups([group]) == [[]]


def test_what_differs_from_ours_is_said_beside_a_figure():
    assert BASELINE.format_beside(run_of(BASELINE)) == "72.00 (paper)"
    assert BASELINE.format_beside(run_of(BASELINE, "training.epochs=5")) == "72.00 (paper, 90 epochs)"
    assert BASELINE.format_beside(run_of(BASELINE, recipe=False)) == "72.00 (paper, paper_vt_resnet18)"


def test_a_run_without_a_recipe_has_the_figures_of_every_recipe_of_its_model():
    (found,) = match_groups([run_of(BASELINE, recipe=False)])
    assert {figure.recipe for figure in found} == {"paper_vt_resnet18", "paper_advanced_vt_resnet18"}


def test_a_table_marks_each_figure_as_theirs_and_names_what_an_ablation_changed():
    table = format_rows(SCORES)
    assert {row["whose"] for row in table} == {
        "theirs (paper)",
        "theirs (paper v4)",
        "theirs (reference implementation)",
    }
    changed = {row["theirs, %"]: row["settings"] for row in table if row["where"] == "ablation: tokens"}
    assert changed["71.70"] == "model.tokens=32"
    assert [row["settings"] for row in table if row["where"] == "baseline recipe"] == [""] * 10
