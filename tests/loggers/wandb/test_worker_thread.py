from __future__ import annotations

import threading
import time

from visual_transformers.loggers.wandb.worker_thread import Background


def test_tasks_are_done_in_order_and_nobody_waits_for_them():
    done, go_on = [], threading.Event()
    background = Background("somebody")
    background.do(go_on.wait)
    for number in range(100):
        background.do(lambda number=number: done.append(number))
    assert done == []
    go_on.set()
    assert background.close(10)
    assert done == list(range(100))


def test_the_first_error_is_said_and_the_tasks_after_it_are_done(capsys):
    done, background = [], Background("somebody")
    for _ in range(2):
        background.do(lambda: 1 / 0)
    background.do(lambda: done.append(1))
    assert background.close(10)
    assert done == [1]
    [said] = capsys.readouterr().err.splitlines()
    assert said.startswith("note: somebody failed (ZeroDivisionError: division by zero); the run goes on")


def test_a_task_that_hangs_is_given_up():
    background = Background("somebody")
    background.do(threading.Event().wait)
    began = time.monotonic()
    assert not background.close(0.2)
    assert time.monotonic() - began < 5
    assert background.thread.daemon  # so it does not keep the process
