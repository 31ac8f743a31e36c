from __future__ import annotations

import os
import signal

import pytest

from visual_transformers.distributed.collectives import DelayedMax
from visual_transformers.distributed.signals import Interruption, LoopSignal, StopCoordinator


@pytest.mark.parametrize(
    ("number", "agreed"), [(signal.SIGTERM, LoopSignal.STOP), (signal.SIGUSR2, LoopSignal.REQUEUE)]
)
def test_a_stop_takes_priority_over_a_save(number, agreed):
    with Interruption.catch() as interruption:
        coordinator = StopCoordinator(interruption, DelayedMax())
        assert coordinator.agree() is LoopSignal.CONTINUE
        assert coordinator.agree(wants_save=True) is LoopSignal.SAVE
        os.kill(os.getpid(), number)
        assert coordinator.agree(wants_save=True) is agreed
    assert coordinator.interrupted("stopped").by_scheduler == (agreed is LoopSignal.REQUEUE)


def test_the_first_request_decides():
    with Interruption.catch() as interruption:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGUSR2)
        assert interruption.requested is LoopSignal.STOP
