from __future__ import annotations

import threading
import time

from visual_transformers.loggers.wandb.worker_thread import BackgroundWorker


def test_tasks_run_in_order_and_submit_returns_at_once():
    done, may_run = [], threading.Event()
    worker = BackgroundWorker("service")
    worker.submit(may_run.wait)
    for number in range(100):
        worker.submit(lambda number=number: done.append(number))
    assert done == []
    may_run.set()
    assert worker.close(10)
    assert done == list(range(100))


def test_only_the_first_error_is_printed_and_the_tasks_after_it_run(capsys):
    done, worker = [], BackgroundWorker("service")
    for _ in range(2):
        worker.submit(lambda: 1 / 0)
    worker.submit(lambda: done.append(1))
    assert worker.close(10)
    assert done == [1]
    [printed] = capsys.readouterr().err.splitlines()
    assert printed.startswith("note: service failed (ZeroDivisionError: division by zero); the run goes on")


def test_close_does_not_wait_for_a_task_that_hangs():
    worker = BackgroundWorker("service")
    worker.submit(threading.Event().wait)
    began = time.monotonic()
    assert not worker.close(0.2)
    assert time.monotonic() - began < 5
    assert worker.thread.daemon  # so that the process can end
