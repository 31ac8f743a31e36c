"""Where and how a run computes: devices, precision, memory format, threads, workers, random numbers."""

from __future__ import annotations

import os
import random
import shlex
import shutil
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from visual_transformers.data.loader import Loading, processes
from visual_transformers.distributed import collectives, environment
from visual_transformers.errors import ConfigError

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
STEP = 1
"""Sets the seeds of steps apart from those of samples, which have three numbers."""

WITHOUT_BF16 = ("DEFAULT", "NO AVX", "AVX2")
"""CPUs, by torch's name for what they can do, on which bf16 costs far more than it saves."""


def cores() -> int:
    """Cores of this process alone: those of its SLURM task, or a part of those that all on the machine share."""
    shared = processes(None)
    task = os.environ.get("SLURM_CPUS_PER_TASK")
    if task and not environment.shares_its_task():
        return min(shared, int(task))
    return max(1, shared // collectives.local_ranks())


def _check_compiler(device: str) -> None:
    """See that what torch.compile needs is installed.

    Raises:
        ConfigError: if it is not.
    """
    variable, usual = ("CXX", ("g++", "clang++", "c++")) if device == "cpu" else ("CC", ("gcc", "clang", "cc"))
    given = os.environ.get(variable)
    if not any(map(shutil.which, shlex.split(given)[:1] if given else usual)):
        raise ConfigError(
            f"hardware.compile=true: torch.compile needs a compiler, and there is no {given or ' or '.join(usual)}; "
            "install one, or leave this setting out"
        )


@dataclass(kw_only=True)
class Hardware:
    """The device of this process, how it is used, and how many there are.

    Args:
        device: a torch device, as `cpu`, `cuda` or `cuda:1`; of several processes each takes the one of its number.
        devices: processes that the program starts on this machine, each with a device and a share of every batch; null
            takes all GPUs. torchrun and SLURM say themselves how many there are.
        precision: of the forward pass; `tf32` of matrix products and convolutions, `bf16` and `fp16` by autocast,
            `fp16` with a loss scaler, `fp64` of the weights too, for comparisons.
        compile: whether `torch.compile` compiles the model.
        channels_last: whether images and weights lie in memory as (B, H, W, C).
        workers: loader processes; 0 loads in the main process, null takes one for each core of this process.
        threads: CPU threads of torch; null takes all cores of this process.
        deterministic: whether to refuse algorithms whose results differ from run to run.

    Raises:
        ConfigError: if this machine lacks the device, or the device the precision.
    """

    device: str = "cpu"
    devices: int | None = 1
    precision: Literal["fp32", "tf32", "bf16", "fp16", "fp64"] = "fp32"
    compile: bool = False
    channels_last: bool = True
    workers: int | None = 0
    threads: int | None = None
    deterministic: bool = False

    def __post_init__(self) -> None:
        try:
            self.torch_device = torch.device(self.device)
            if self.torch_device.type != "cpu" and collectives.ranks() > 1:
                self.torch_device = torch.device(self.torch_device.type, collectives.local_rank())
                torch.accelerator.set_device_index(collectives.local_rank())
            torch.empty(1, device=self.torch_device)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            raise ConfigError(
                f"hardware.device={self.device} cannot be used here ({reason}); use hardware=cpu, "
                "or install the PyTorch build for this device"
            ) from error
        if self.compile:
            _check_compiler(self.torch_device.type)
        if self.precision in ("fp16", "tf32") and self.torch_device.type == "cpu":
            raise ConfigError(f"hardware.precision={self.precision} needs a GPU; on a CPU use bf16 or fp32")
        capability = torch.backends.cpu.get_cpu_capability()
        if self.precision == "bf16" and self.torch_device.type == "cpu" and capability in WITHOUT_BF16:
            print(f"note: this CPU ({capability}) computes bf16 in software, some twenty times slower than fp32")

    def prepare(self, seed: int) -> None:
        """Set torch's threads, its precision of fp32, determinism and random seed."""
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        elif cores() < processes(None):
            torch.set_num_threads(cores())
        torch.set_float32_matmul_precision("high" if self.precision == "tf32" else "highest")
        torch.backends.cudnn.allow_tf32 = self.precision == "tf32"
        if self.deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(self.deterministic)
        torch.backends.cudnn.benchmark = not self.deterministic
        torch.manual_seed(seed)

    def seed_step(self, seed: int, step: int) -> None:
        """Make the random numbers of a step, as of dropout, a function of the run's seed, the step and the process.

        So a run that goes on needs no saved random state, on as many devices as there may be then.
        """
        number = int(np.random.SeedSequence([seed, step, collectives.rank(), STEP]).generate_state(1)[0])
        random.seed(number)
        np.random.seed(number)  # which other libraries' layers may draw from
        torch.manual_seed(number)

    def place(self, model: nn.Module) -> nn.Module:
        """The model on the device, in the configured memory format and width."""
        model = model.to(self.torch_device, torch.float64 if self.precision == "fp64" else None)
        return model.to(memory_format=torch.channels_last) if self.channels_last else model  # type: ignore[call-overload]

    def compiled(self, model: nn.Module) -> nn.Module:
        """What to call in place of the model: itself, or what torch.compile makes of it."""
        return torch.compile(model) if self.compile else model  # type: ignore[return-value]

    def move(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """A batch on the device, without waiting for it."""
        memory_format = torch.channels_last if self.channels_last else torch.preserve_format
        images = images.to(self.torch_device, non_blocking=True, memory_format=memory_format)
        return images, targets.to(self.torch_device, non_blocking=True)

    def autocast(self) -> AbstractContextManager[None]:
        """The context of a forward pass."""
        return torch.autocast(
            self.torch_device.type, dtype=AUTOCAST.get(self.precision), enabled=self.precision in AUTOCAST
        )

    def scaler(self) -> torch.amp.GradScaler:
        """The loss scaler; it does nothing unless the precision is fp16."""
        return torch.amp.GradScaler(self.torch_device.type, enabled=self.precision == "fp16")

    @property
    def loading(self) -> Loading:
        """How the loaders fetch samples for this device: this process's share of them."""
        workers = cores() if self.workers is None else self.workers
        return Loading(workers, self.torch_device.type == "cuda", collectives.rank(), collectives.ranks())
