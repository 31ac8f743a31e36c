"""Environment variables by which torchrun, submitit or our own launcher tell a process its rank.

This module does not import torch, so that commands that compute nothing start fast.
"""

from __future__ import annotations

import os

from visual_transformers.errors import RunError

NUMBERS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_PORT")
"""Variables that hold a number."""
VARIABLES = (*NUMBERS, "MASTER_ADDR")
"""Variables that torchrun sets in every process that it starts; our own launcher sets them too."""


def is_main_process() -> bool:
    """Return True on rank 0, also before the process group exists and after it was destroyed."""
    return not is_multi_process() or int(os.environ["RANK"]) == 0


def is_multi_process() -> bool:
    """Return True if torchrun, SLURM (through submitit) or our launcher started this process as one of several.

    Raises:
        RunError: if some of the variables are missing or have impossible values.
    """
    missing = sorted(name for name in VARIABLES if name not in os.environ)
    if missing:
        if "RANK" in os.environ:
            raise RunError(
                f"the environment has RANK, but not {', '.join(missing)}. Start the program with torchrun, which sets "
                "them all, or unset RANK."
            )
        return False
    for name in NUMBERS:
        if not os.environ[name].isdecimal():
            raise RunError(
                f"{name}={os.environ[name]} (in the environment): must be a number. Start the program with torchrun, "
                "which sets it, or unset RANK."
            )
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if rank >= world_size:
        raise RunError(
            f"RANK={rank} (in the environment): must be below WORLD_SIZE={world_size}. Start the program with "
            "torchrun, which sets both, or unset RANK."
        )
    return world_size > 1


def export_torchrun_env() -> None:
    """Translate the variables of a submitit task, if this process is one, into torchrun's.

    Earlier values are overwritten: they come from the shell in which the job was submitted.
    """
    if "SUBMITIT_EXECUTOR" in os.environ:
        from submitit import helpers  # slow to import, and needed on clusters only

        helpers.TorchDistributedEnvironment().export(set_cuda_visible_devices=False, overwrite=True)
