"""`mode=report` from the command to its files."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from random import Random

import pytest

from visual_transformers import runner
from visual_transformers.cli.shorthands import expand
from visual_transformers.config.schema import ReportSettings
from visual_transformers.errors import ConfigError, RunError
from visual_transformers.modes import report
from visual_transformers.modes.report import rows


def table(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_a_real_run_becomes_a_row_with_its_facts(tiny, composed, tmp_path, report_of):
    runner.train(tiny(), tmp_path / "runs" / "tiny")
    status = json.loads((tmp_path / "runs" / "tiny" / "status.json").read_text())
    (row,) = table(report_of() / "report.csv")
    about = status["about"]
    assert float(row["mean"]) == status["score"]
    for name in ("task", "metric", "model", "data", "parameters", "macs"):
        assert row[name] == str(about[name])
    assert (row["seeds"], row["std"], row["state"], row["test_mean"]) == ("1", "", "1 finished", "")
    assert float(row["images_per_second"]) > 0


def test_a_report_leaves_its_forms_and_pictures_and_changes_no_run(leave, report_of, tmp_path):
    for model in ("a", "b"):
        leave(f"sweeps/x/{model}", 0.5, model=model, settings=model, class_scores={"ant": {"recall": 0.5}})
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "sweeps").rglob("*")}
    folder = report_of()
    assert {path.name for path in folder.iterdir()} == {
        "report.html", "report.md", "report.csv", "report.tex", "curves-0.png", "cost-0.png", "classes-0.png",
    }  # fmt: skip
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "sweeps").rglob("*")} == before
    text = (folder / "report.md").read_text()
    assert all((folder / name).is_file() for name in re.findall(r"\]\((.*?)\)", text))


def test_a_later_report_has_no_pictures_of_an_earlier_one(leave, report_of, tmp_path):
    leave("runs/a", 0.5, data="x")
    leave("runs/b", 0.5, data="y", settings="b")
    assert (report_of() / "curves-1.png").is_file()
    (tmp_path / "runs" / "b" / "status.json").unlink()
    (tmp_path / "runs" / "b" / "summary.json").unlink()
    assert not (report_of() / "curves-1.png").exists()


def test_every_form_of_the_table_has_every_row(leave, report_of, capsys):
    for lr in (1, 2, 3):
        leave(f"runs/{lr}", lr / 10, settings=str(lr), config={"optimizer": {"lr": lr / 100}})
    folder = report_of()
    for text in (*((folder / f"report.{form}").read_text() for form in ("md", "csv", "tex")), capsys.readouterr().out):
        assert [text.count(f"optimizer.lr=0.0{lr}") for lr in (1, 2, 3)] == [1, 1, 1]


def test_runs_that_failed_are_listed_with_what_they_said_and_the_rest_is_reported(leave, report_of, capsys):
    leave("runs/good", 0.5, settings="a")
    leave("runs/bad", state="failed", status={"error": "no space left\non the disk"}, settings="b")
    leave("runs/worse", state="failed", status={"error": "no such key", "about": None})
    text = (report_of() / "report.md").read_text()
    for said in (text, capsys.readouterr().out):
        assert re.search(r"runs/bad\W+no space left\W", said)
        assert re.search(r"runs/worse\W+no such key", said)
        assert "3 runs: 2 failed, 1 finished" in said
        assert "1 run of unknown settings (so far): runs/worse" in said


def test_runs_of_which_nothing_is_known_are_still_listed(leave, report_of):
    leave("sweeps/x/0", state="queued", status={"about": None})
    text = (report_of() / "report.md").read_text()
    assert "1 run of unknown settings (so far): sweeps/x/0." in text
    assert "| sweeps/x/0 | queued |" in text


@pytest.mark.parametrize("seed", range(20))
def test_however_files_are_damaged_there_is_a_report(leave, tmp_path, seed):
    for i in range(4):
        config, classes = {"optimizer": {"lr": i / 10}}, {"ant": {"recall": i / 10}}
        leave(f"runs/{i}", 0.4, 0.5, seed=i % 2, settings=str(i // 2), config=config, class_scores=classes)
    random = Random(seed)
    files = [path for path in sorted(tmp_path.rglob("*")) if path.is_file()]
    for path in random.sample(files, len(files) // 2):
        content = bytearray(path.read_bytes())
        for _ in range(20):
            content[random.randrange(len(content))] = random.randrange(256)
        torn = path.read_bytes()[: random.randrange(len(content))]
        path.write_bytes(random.choice([content, torn, random.choice(files).read_bytes() or b"\0"]))
    settings = ReportSettings(folders=[str(tmp_path / "runs")], compare=None, published=True)
    contents = report.read(settings, tmp_path / "report")
    assert [row["run"][-1] for row in rows.format_runs(contents.runs)] == ["0", "1", "2", "3"]
    assert len(rows.format_groups(contents.groups, contents.published)) == len(contents.groups)


def test_duplicates_and_foreign_folders_are_named(leave, report_of, tmp_path):
    leave("runs/a", 0.5, at="2026-01-01")
    leave("runs/b", 0.6, at="2026-01-02")
    (tmp_path / "runs" / "notes").mkdir()
    (tmp_path / "runs" / "notes" / "a.txt").touch()
    text = (report_of() / "report.md").read_text()
    assert "1 run left out of means, because a run of the same seed and settings finished later: runs/a." in text
    assert "1 folder without a training: runs/notes." in text


def test_published_figures_stand_beside_ours_or_in_a_table_of_their_own(leave, report_of):
    leave("runs/a", 0.70, model="resnet18", data="imagenet", classes=1000, recipe="paper_resnet18", total_steps=1800)
    folder = report_of()
    (row,) = table(folder / "report.csv")
    assert row["theirs_percent"] == "69.90 (paper)"
    beside, elsewhere = (folder / "report.md").read_text().split("## Published elsewhere")
    assert "| 69.90 (paper) |" in beside
    assert "| theirs (paper) | baseline recipe | imagenet | 1000 | resnet34 |" in elsewhere
    assert "69.90" not in elsewhere
    assert "theirs" not in (report_of("report.published=false") / "report.md").read_text()


def test_named_folders_alone_are_read(leave, report_of, tmp_path):
    leave("runs/a", 0.5, model="here")
    leave("disk/b", 0.5, model="there")
    (row,) = table(report_of(f"report.folders=[{tmp_path / 'disk'}]") / "report.csv")
    assert row["model"] == "there"


def test_a_folder_that_was_named_must_be_there(leave, report_of):
    leave("runs/a", 0.5)
    with pytest.raises(ConfigError, match=r"report\.folders: nowhere is no folder"):
        report_of("report.folders=[runs,nowhere]")


def test_a_report_on_nothing_is_refused(report_of, tmp_path):
    with pytest.raises(RunError, match=r"there is no run in runs, sweeps; name the folders .*report=PATH"):
        report_of()
    (tmp_path / "runs" / "notes").mkdir(parents=True)
    with pytest.raises(RunError, match="there is no run in runs"):
        report_of("report.folders=[runs]")


@pytest.mark.parametrize(
    "override",
    ["report.folders=[]", "report.folders=3", "report.compare=[a]", "report.compare=[a,a]", "report.compare=a"],
)
def test_a_wrong_setting_is_refused_with_what_was_expected(report_of, override):
    with pytest.raises(ConfigError, match=rf"{re.escape(override.split('=')[0])}=.*: expected (a list|two)"):
        report_of(override)


@pytest.mark.parametrize(
    ("given", "folders"),
    [("report=a", ["a"]), ("report=my runs/[1]", ["my runs/[1]"]), ("report.folders=[a,b]", ["a", "b"])],
)
def test_a_path_is_short_for_a_list_of_one(composed, given, folders):
    assert composed(*expand(["mode=report", given])).report.folders == folders


def test_a_report_is_named_so_unless_it_has_another_name():
    assert "name=report" in expand(["mode=report"])
    assert expand(["mode=report", "name=mine"]) == ["mode=report", "name=mine"]
    assert expand(["mode=train"]) == ["mode=train"]


def test_the_command_ends_well_although_runs_failed(leave, command, tmp_path):
    leave("runs/bad", state="failed", status={"error": "no space left"})
    ended = command("mode=report")
    assert ended.returncode == 0, ended.stderr
    assert "no space left" in ended.stdout
    assert (tmp_path / "runs" / "report" / "report.html").is_file()
    refused = command("mode=report", "report=elsewhere")
    assert (refused.returncode, "error: report.folders: elsewhere is no folder" in refused.stderr) == (1, True)
