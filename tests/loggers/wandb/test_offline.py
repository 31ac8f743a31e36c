"""The real wandb without a network: its own reader reads its files, and they are sent to a stand-in server."""

from __future__ import annotations

import json
import os
import pty
import signal
import sys
import time
from contextlib import suppress

import pytest
import wandb
from tests.support.wandb_server import KEY, WandbServer
from tests.support.wandb_sessions import (
    TOTAL,
    as_in_the_file,
    has_step,
    history,
    info,
    inspected,
    killed_session,
    lines,
    logs,
    of_type,
    records,
    sent_by_hand,
    session,
    wandb_processes,
)

from visual_transformers.errors import ConfigError, Interrupted, RunError
from visual_transformers.loggers import Files, Logger, Loggers, WandB
from visual_transformers.loggers.wandb import session as wandb_session

OFFLINE = {"mode": "offline", "timeout": 5}


@pytest.mark.slow
def test_a_killed_and_resumed_run_has_each_line_once_and_is_one_run_when_it_is_sent(tmp_path):
    killed_session(WandB(**OFFLINE), info(tmp_path), 12, when=lambda: has_step(tmp_path, 7))
    killed_session(WandB(**OFFLINE), info(tmp_path, step=10), 14, when=lambda: len(logs(tmp_path)) == 2)
    session(WandB(**OFFLINE), info(tmp_path, step=13), 23, Interrupted("stopped"))  # W&B has lost 13, metrics.jsonl not
    session(WandB(**OFFLINE), info(tmp_path, step=23), 30)
    assert lines(tmp_path) == records(0, 30)
    assert history(tmp_path) == records(0, 30)
    with WandbServer() as server:
        sent_by_hand(server, tmp_path / "wandb")
    [sent] = server.runs.values()
    assert [as_in_the_file(row) for row in sent.history] == records(0, 30)
    assert sent.exit_code == 0


def test_a_session_that_was_killed_before_its_first_message_is_removed(tmp_path):
    killed_session(WandB(**OFFLINE), info(tmp_path), 3, when=lambda: bool(logs(tmp_path)))
    [log] = logs(tmp_path)
    log.write_bytes(log.read_bytes()[:7])  # only the header, as before the first flush
    session(WandB(**OFFLINE), info(tmp_path), 3)
    assert not log.parent.exists()
    assert history(tmp_path) == records(0, 3)


def test_a_logger_that_was_added_later_has_the_earlier_records(tmp_path):
    session(Logger(), info(tmp_path), 12)
    session(WandB(**OFFLINE), info(tmp_path, step=12), 15)
    assert history(tmp_path) == records(0, 15)


@pytest.mark.parametrize(
    ("error", "code", "preempted"), [(None, 0, 0), (RunError("it\nbroke"), 1, 0), (Interrupted("stopped"), 130, 1)]
)
def test_w_and_b_is_told_how_a_run_ended(tmp_path, error, code, preempted):
    session(WandB(**OFFLINE), info(tmp_path), 2, error)
    assert not list(wandb_processes())
    messages = inspected(*logs(tmp_path))
    assert [found["exit_code"] for found in of_type(messages, "exit")] == [code]
    assert len(of_type(messages, "preempting")) == preempted
    errors = [s["update"]["error"] for s in of_type(messages, "summary") if "error" in s.get("update", {})]
    assert errors == (["broke"] if code == 1 else [])


def test_a_run_is_described_by_its_configuration_its_commit_and_its_curves(tmp_path):
    session(WandB(**OFFLINE, project="p", entity="e", tags=["a", "b"]), info(tmp_path), 2)
    messages = inspected(*logs(tmp_path))
    [run] = of_type(messages, "run")
    assert (run["project"], run["entity"], run["tags"], run["display_name"]) == ("p", "e", ["a", "b"], "run")
    assert run["job_type"] == "train" and "run_group" not in run
    assert run["git"]["commit"] == "0123456789ab"
    config = run["config"]["update"]
    assert config["training"] == {"epochs": 8}
    assert (config["about"]["parameters"], config["about"]["macs"]) == (7, 8)
    axes = {found.get("glob_name") or found["name"]: found for found in of_type(messages, "metric")}
    assert axes["*"]["step_metric"] == "step"
    assert axes["val/top1"]["summary"] == {"max": True} and axes["val/loss"]["summary"] == {"min": True}


@pytest.mark.parametrize(
    ("keys", "expected"),
    [({}, ("table", "sweep")), ({"group": "mine", "job_type": "ablation"}, ("mine", "ablation"))],
)
def test_jobs_of_a_sweep_are_a_group(tmp_path, keys, expected):
    session(WandB(**OFFLINE, **keys), info(tmp_path / "3", sweep="table"), 1)
    [run] = of_type(inspected(*logs(tmp_path / "3")), "run")
    assert (run["run_group"], run["job_type"]) == expected
    assert run["display_name"] == "run #3"


def ids(folder) -> list[str]:
    return [log.stem.removeprefix("run-") for log in logs(folder)]


def test_a_restarted_run_with_other_settings_is_another_run(tmp_path):
    session(WandB(**OFFLINE), info(tmp_path), 2, RunError("not finite"))
    session(WandB(**OFFLINE), info(tmp_path), 2)  # before the first checkpoint, it starts again
    assert len(set(ids(tmp_path))) == 1
    session(WandB(**OFFLINE), info(tmp_path, settings="others"), 2)
    first, _, last = ids(tmp_path)
    assert first != last
    session(WandB(**OFFLINE), info(tmp_path, step=2, settings="allowed to change"), 3)
    assert ids(tmp_path)[-1] == last


def test_without_a_key_wandb_does_not_ask_for_one_even_at_a_terminal(tmp_path):
    process, terminal = pty.fork()
    if not process:
        signal.alarm(60)  # ends the process if it waits for an answer
        sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")  # noqa: SIM115
        session(WandB(timeout=5), info(tmp_path), 3)
        sys.stdout.flush()
        os._exit(0)
    printed = b""
    with suppress(OSError):  # the terminal is closed
        while read := os.read(terminal, 4096):
            printed += read
    os.waitpid(process, 0)
    message = printed.decode().split()
    assert " ".join(message) == f"W&B: offline (there is no API key); `wandb sync {tmp_path}/wandb` sends it"
    assert history(tmp_path) == records(0, 3)


def test_online_mode_needs_a_key(tmp_path):
    with pytest.raises(
        ConfigError, match=r"logger\.wandb\.mode=online: there is no API key\. Log in with `wandb login`"
    ):
        session(WandB(mode="online"), info(tmp_path), 1)


def test_a_malformed_key_is_reported(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("WANDB_API_KEY", "short")
    session(WandB(timeout=5), info(tmp_path), 1)
    assert (
        "W&B: offline (AuthenticationError: WANDB_API_KEY invalid: API key must have 40+ characters"
        in capfd.readouterr().out
    )


@pytest.mark.parametrize(
    ("variable", "value"), [("WANDB_SAVE_CODE", "nonsense"), ("WANDB_TAGS", "a" * 70), ("WANDB_PROJECT", "a/b")]
)
def test_a_variable_that_w_and_b_refuses_is_named(tmp_path, monkeypatch, variable, value):
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigError, match=rf"^{variable}={value} \(environment variable\): "):
        session(WandB(**OFFLINE), info(tmp_path), 1)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("tags", ["a" * 70], "70 characters"),
        ("tags", ["ablation", ""], "is empty"),
        ("project", "team/project", "cannot contain characters"),
        ("project", "a" * 200, ""),
        ("project", "", "expected a name without /"),
        ("entity", "a/b", "expected a name without /"),
    ],
)
def test_a_setting_that_w_and_b_refuses_is_named(tmp_path, key, value, message):
    with pytest.raises(ConfigError, match=rf"^logger\.wandb\.{key}=.*{message}"):
        session(WandB(**OFFLINE, **{key: value}), info(tmp_path), 1)


def test_with_a_key_and_no_network_a_run_is_kept_offline_and_does_not_wait(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    began = time.monotonic()
    with Loggers([Files(curves=False), logger := WandB(timeout=3)], info(tmp_path)) as log:
        opened = time.monotonic() - began
        for record in records(0, 5):
            log.record(record)
        recorded = time.monotonic() - began - opened
    assert recorded < 0.5 and time.monotonic() - began < 3 * logger.timeout + 10
    message = capfd.readouterr().out
    assert message.count("W&B") == 1 and f"`wandb sync {tmp_path}/wandb` sends it" in message
    assert history(tmp_path) == records(0, 5)


@pytest.mark.parametrize(("asked", "variable"), [("disabled", None), ("auto", "disabled")])
def test_w_and_b_can_be_disabled(tmp_path, monkeypatch, capfd, asked, variable):
    if variable:
        monkeypatch.setenv("WANDB_MODE", variable)
    session(WandB(mode=asked), info(tmp_path), 3)
    assert lines(tmp_path) == records(0, 3)
    assert not (tmp_path / "wandb").exists() and "W&B" not in "".join(capfd.readouterr())


def test_when_w_and_b_s_process_dies_that_is_reported_once_and_the_run_continues(tmp_path, capfd):
    with Loggers([Files(curves=False), WandB(**OFFLINE)], info(tmp_path)) as log:
        for record in records(0, 5):
            log.record(record)
        while not has_step(tmp_path, 5):
            time.sleep(0.05)
        for process in wandb_processes():
            os.kill(process, signal.SIGKILL)
        for record in records(5, TOTAL):
            log.record(record)
    assert lines(tmp_path) == records(0, TOTAL)
    assert capfd.readouterr().err.count("note: W&B failed (") == 1
    session(WandB(**OFFLINE), info(tmp_path, step=TOTAL), TOTAL)  # the next start logs the lost records
    assert history(tmp_path) == records(0, TOTAL)


def test_w_and_b_has_the_setting_of_the_flush_interval():
    """It is private and left out if W&B does not have it, so that only this test notices a wrong name."""
    assert set(wandb_session.FLUSH_SETTING) <= set(wandb.Settings.model_fields)


def test_run_json_identifies_the_run(tmp_path):
    session(WandB(**OFFLINE), info(tmp_path), 1)
    [run_id] = ids(tmp_path)
    assert json.loads((tmp_path / "wandb/run.json").read_text()) == {"id": run_id, "settings": "alike", "seed": 0}


def test_an_unknown_mode_in_the_environment_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "foo")
    with pytest.raises(ConfigError, match=r"WANDB_MODE=foo .*expected one of online, offline"):
        session(WandB(timeout=5), info(tmp_path), 1)
