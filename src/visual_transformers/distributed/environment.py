"""Which of a run's processes this is, by the variables of whoever started it: torchrun, submitit, our own launcher.

It needs no torch, for which commands that compute nothing need not wait.
"""

from __future__ import annotations

import os

from visual_transformers.errors import RunError

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""What torchrun tells every process that it starts, in environment variables; our own launcher does the same."""


NUMBERS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_PORT")
"""Those that are numbers."""


def is_first() -> bool:
    """Whether this is the main process of its run, also before and after the processes know each other."""
    return not started_as_one_of_many() or int(os.environ["RANK"]) == 0


def started_as_one_of_many() -> bool:
    """Whether torchrun or a task of submitit (a SLURM job) started this process beside others."""
    given = [name for name in VARIABLES if name in os.environ]
    if "RANK" in given and len(given) < len(VARIABLES):
        raise RunError(
            f"the environment has RANK, but not {', '.join(sorted(set(VARIABLES) - set(given)))}; start the program "
            "with torchrun, which sets them all, or unset RANK"
        )
    if len(given) < len(VARIABLES):
        return False
    for name in NUMBERS:
        if not os.environ[name].isdecimal():
            raise RunError(
                f"{name}={os.environ[name]} (in the environment): must be a number; torchrun sets it, or unset RANK"
            )
    if not int(os.environ["RANK"]) < int(os.environ["WORLD_SIZE"]):
        raise RunError(
            f"RANK={os.environ['RANK']} (in the environment): must be below WORLD_SIZE={os.environ['WORLD_SIZE']}"
        )
    return int(os.environ["WORLD_SIZE"]) > 1


def shares_its_task() -> bool:
    """Whether torchrun or our own launcher started this process, beside others in one task of a SLURM job."""
    return "TORCHELASTIC_USE_AGENT_STORE" in os.environ


def name_tasks_as_torchrun_does() -> None:
    """Put what submitit knows of this task, if it is one, into torchrun's variables: there is one way on from there.

    Whatever the variables held before came from the shell in which the job was sent.
    """
    if "SUBMITIT_EXECUTOR" in os.environ:
        from submitit import helpers  # a part of a second to import, needed on clusters alone

        helpers.TorchDistributedEnvironment().export(set_cuda_visible_devices=False, overwrite=True)
