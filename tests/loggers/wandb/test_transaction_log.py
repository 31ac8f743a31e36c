from __future__ import annotations

import shutil

import pytest
from tests.support.wandb_sessions import info, inspected, logs, of_type, records, session

from visual_transformers.loggers import RunInfo, WandB
from visual_transformers.loggers.records import record_key
from visual_transformers.loggers.wandb.transaction_log import BLOCK, find_logged, read_messages, read_rows, remove_empty


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    """Log of several blocks with a message that spans three."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_ERROR_REPORTING", "false")
        run: RunInfo = info(tmp_path_factory.mktemp("run"))
        run.config["long"] = [f"{i:010}" for i in range(2 * BLOCK // 10)]
        session(WandB(mode="offline"), run, 40)
    [path] = logs(run.directory)
    assert path.stat().st_size > 3 * BLOCK
    return path


def test_a_log_is_read_as_w_and_b_reads_it(log):
    theirs = inspected(log)
    ours = list(read_messages(log))
    assert [message.num for message in ours if message.num] == [message["num"] for message in theirs]
    assert list(read_rows(log)) == [row["item"] for row in of_type(theirs, "history")]


@pytest.mark.parametrize("end", [b"", b"\0" * 100, b"\xff" * 100])
def test_a_truncated_log_is_read_up_to_its_end(log, tmp_path, end):
    whole, content = list(read_rows(log)), log.read_bytes()
    counts, torn = [], tmp_path / "torn.wandb"
    for size in [0, 3, 7, 8, *range(100, len(content), 1777)]:
        torn.write_bytes(content[:size] + end)
        read = list(read_rows(torn))
        assert read == whole[: len(read)]
        counts.append(len(read))
    assert counts == sorted(counts) and counts[0] == 0 < counts[-1]


def sessions_at(folder, log, *names: str) -> None:
    for name in names:
        target = folder / name
        target.mkdir(parents=True)
        shutil.copy(log, target / f"run-{name.rpartition('-')[2]}.wandb")


def test_records_that_an_online_session_did_not_send_do_not_count_if_the_server_answers(log, tmp_path):
    sessions_at(tmp_path, log, "run-20260101_000000-id", "run-20260101_000001-other")
    expected = [record_key(record) for record in records(0, 40)]
    assert find_logged(tmp_path, "id", None) == set(expected)
    assert find_logged(tmp_path, "id", 0) == set()
    assert find_logged(tmp_path, "id", 13) == set(expected[:13])
    sessions_at(tmp_path, log, "offline-run-20260101_000002-id")
    assert find_logged(tmp_path, "id", 13) == set(expected)


def test_only_sessions_without_a_message_are_removed(log, tmp_path):
    sessions_at(
        tmp_path, log, "offline-run-20260101_000000-a", "run-20260101_000001-b", "offline-run-20260101_000002-c"
    )
    for name, size in (("run-20260101_000001-b", 7), ("offline-run-20260101_000002-c", 30)):
        path = tmp_path / name / f"run-{name[-1]}.wandb"
        path.write_bytes(path.read_bytes()[:size])
    (tmp_path / "latest-run").symlink_to("offline-run-20260101_000000-a")
    remove_empty(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"offline-run-20260101_000000-a", "latest-run"}
