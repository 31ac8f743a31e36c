"""The real wandb with a stand-in for its server on this machine."""

from __future__ import annotations

import json
import time

import pytest
import torch
from PIL import Image
from tests.support.wandb_server import StoredRun, WandbServer
from tests.support.wandb_sessions import (
    TOTAL,
    as_in_the_file,
    has_step,
    history,
    info,
    killed_session,
    lines,
    logs,
    records,
    sent_by_hand,
    session,
)

from visual_transformers.errors import Interrupted
from visual_transformers.loggers import Files, Loggers, WandB
from visual_transformers.runs.results import Results


@pytest.fixture
def server(monkeypatch):
    with WandbServer() as running:
        for name, value in running.environment().items():
            monkeypatch.setenv(name, value)
        yield running


def stored(server: WandbServer) -> StoredRun:
    [run] = server.runs.values()
    return run


def kept(server: WandbServer) -> list[dict]:
    return [as_in_the_file(row) for row in stored(server).history]


def test_a_killed_and_resumed_run_is_one_run_with_each_line_once(tmp_path, server):
    session(WandB(timeout=10), info(tmp_path), 12, Interrupted("stopped"))
    assert stored(server).exit_code == 130
    killed_session(WandB(timeout=10), info(tmp_path, step=12), 17, when=lambda: has_step(tmp_path, 17))
    lost = records(0, 17)[len(kept(server)) :]
    assert lost  # W&B sends every 15 seconds
    session(WandB(timeout=10), info(tmp_path, step=15), 23)
    assert lines(tmp_path) == records(0, 23)
    assert kept(server) == records(0, 23)
    assert stored(server).exit_code == 0


def test_the_url_of_a_run_is_printed(tmp_path, server, capfd):
    session(WandB(timeout=10, entity="team", project="project"), info(tmp_path), 1)
    [run_id] = server.runs
    assert capfd.readouterr().out == f"W&B: {server.url}/team/project/runs/{run_id}\n"


def test_records_kept_offline_are_not_sent_again_by_later_sessions(tmp_path, server, monkeypatch):
    session(WandB(timeout=10), info(tmp_path), 5)
    session(WandB(timeout=10, mode="offline"), info(tmp_path, step=5), 10)
    session(WandB(timeout=10), info(tmp_path, step=10), 15)
    assert kept(server) == records(0, 5) + records(10, 15)  # the rest is sent by `wandb sync`
    assert history(tmp_path) == records(0, 15)


def test_changed_settings_replace_those_of_the_run(tmp_path, server):
    session(WandB(timeout=10), info(tmp_path), 5)
    longer = info(tmp_path, step=5)
    longer.config["training"] = {"epochs": 9}
    session(WandB(timeout=10), longer, 6)
    assert stored(server).config["training"]["value"] == {"epochs": 9}


def test_a_lost_server_neither_stops_nor_slows_a_run(tmp_path, server, capfd):
    slowest = 0.0
    with Loggers([Files(curves=False), WandB(timeout=3)], info(tmp_path)) as log:
        for record in records(0, TOTAL):
            if record["step"] == 10 and record["kind"] == "step":
                while not server.runs:
                    time.sleep(0.05)
                server.vanish()
            began = time.perf_counter()
            log.record(record)
            slowest = max(slowest, time.perf_counter() - began)
            time.sleep(0.02)
        began = time.perf_counter()
    assert slowest < 0.5 and time.perf_counter() - began < 15
    [log] = logs(tmp_path)
    printed = capfd.readouterr().err
    assert (
        f"note: W&B could not send everything within 3 s; `wandb sync --include-online {log.parent}` sends the rest"
        in printed
    )
    assert history(tmp_path) == lines(tmp_path) == records(0, TOTAL)
    with WandbServer() as back:
        sent_by_hand(back, "--include-online", log.parent)
        assert kept(back) == records(0, TOTAL)


def test_tables_that_the_server_refuses_do_not_affect_the_rest(tmp_path, server, capfd):
    """W&B asks the server about tables, which the stand-in does not support."""
    Image.new("RGB", (4, 4)).save(tmp_path / "samples.png")
    (tmp_path / "summary.json").write_text(json.dumps({"best": {"step": 2}, "scores": {"top1": 0.5}}))
    results = Results({"top1": 0.5}, {name: {"recall": 0.5} for name in "ab"}, torch.ones(2, 2), [])
    with Loggers([Files(curves=False), WandB(timeout=10)], info(tmp_path)) as log:
        for record in records(0, 2):
            log.record(record)
        log.record_results(results)
    run = stored(server)
    assert [row["kind"] for row in run.history] == ["step", "step", "pictures"]
    assert run.history[-1]["results/samples"]["width"] == 4
    assert run.summary["scores"] == {"top1": 0.5} and run.exit_code == 0
    assert capfd.readouterr().err.count("note: W&B failed (") == 1
