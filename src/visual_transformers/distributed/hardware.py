"""Hardware settings of a run: device, precision, memory format, threads, loader workers, random seeds."""

from __future__ import annotations

import os
import random
import shlex
import shutil
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
from annotated_types import Ge
from torch import Tensor, nn

from visual_transformers.data.loader import LoaderOptions, resolve_workers
from visual_transformers.distributed import collectives
from visual_transformers.errors import ConfigError

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
STEP_STREAM = 1
"""Fourth number of a step's seed; a sample's seed has three, so the two never coincide."""
WITHOUT_BF16 = ("DEFAULT", "NO AVX", "AVX2")
"""CPU capabilities, as torch names them, that emulate bf16 in software."""


def available_cores() -> int:
    """Return the number of cores of this process: those of its SLURM task, or an equal share of the machine's."""
    all_cores = resolve_workers(None)
    of_task = os.environ.get("SLURM_CPUS_PER_TASK")
    # Several processes share one task if torchrun or our launcher started them; both set this variable.
    if of_task and "TORCHELASTIC_USE_AGENT_STORE" not in os.environ:
        return min(all_cores, int(of_task))
    return max(1, all_cores // collectives.local_world_size())


@dataclass(kw_only=True)
class Hardware:
    """Device of this process, and how it computes; the keys are described in `conf/hardware/`.

    With several processes on a machine, each uses its local rank as the index of its device.

    Raises:
        ConfigError: if this machine lacks the device, or the device lacks the precision.
    """

    device: str = "cpu"
    devices: Annotated[int, Ge(1)] | None = 1
    precision: Literal["fp32", "tf32", "bf16", "fp16", "fp64"] = "fp32"
    compile: bool = False
    channels_last: bool = True
    workers: Annotated[int, Ge(0)] | None = 0
    threads: Annotated[int, Ge(1)] | None = None
    deterministic: bool = False

    def __post_init__(self) -> None:
        try:
            self.torch_device = torch.device(self.device)
            if self.torch_device.type != "cpu" and collectives.world_size() > 1:
                self.torch_device = torch.device(self.torch_device.type, collectives.local_rank())
                torch.accelerator.set_device_index(collectives.local_rank())
            torch.empty(1, device=self.torch_device)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            raise ConfigError(
                f"hardware.device={self.device} cannot be used here ({reason}). Use hardware=cpu, "
                "or install the PyTorch build for this device."
            ) from error
        if self.compile:
            self._check_compiler()
        if self.precision in ("fp16", "tf32") and self.torch_device.type == "cpu":
            raise ConfigError(f"hardware.precision={self.precision} needs a GPU. On a CPU use bf16 or fp32.")
        capability = torch.backends.cpu.get_cpu_capability()
        if self.precision == "bf16" and self.torch_device.type == "cpu" and capability in WITHOUT_BF16:
            print(f"note: this CPU ({capability}) computes bf16 in software, some twenty times slower than fp32")

    def prepare(self, seed: int) -> None:
        """Set torch's number of threads, float32 precision, determinism and random seed."""
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        elif available_cores() < resolve_workers(None):
            torch.set_num_threads(available_cores())
        torch.set_float32_matmul_precision("high" if self.precision == "tf32" else "highest")
        torch.backends.cudnn.allow_tf32 = self.precision == "tf32"
        if self.deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(self.deterministic)
        torch.backends.cudnn.benchmark = not self.deterministic
        torch.manual_seed(seed)

    def seed_step(self, seed: int, step: int) -> None:
        """Seed the random numbers of a step, e.g. of dropout, with the run's seed, the step and the rank.

        A resumed run therefore needs no saved random state, whatever its world size.
        """
        number = int(np.random.SeedSequence([seed, step, collectives.rank(), STEP_STREAM]).generate_state(1)[0])
        random.seed(number)
        np.random.seed(number)  # layers of other libraries may draw from these two
        torch.manual_seed(number)

    def place(self, model: nn.Module) -> nn.Module:
        """Move the model to the device, in the configured memory format and precision."""
        model = model.to(self.torch_device, torch.float64 if self.precision == "fp64" else None)
        return model.to(memory_format=torch.channels_last) if self.channels_last else model  # type: ignore[call-overload]

    def maybe_compile(self, model: nn.Module) -> nn.Module:
        """Return the compiled model if `compile` is set, else the model itself."""
        return torch.compile(model) if self.compile else model  # type: ignore[return-value]

    def move(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Copy a batch to the device asynchronously."""
        memory_format = torch.channels_last if self.channels_last else torch.preserve_format
        images = images.to(self.torch_device, non_blocking=True, memory_format=memory_format)
        return images, targets.to(self.torch_device, non_blocking=True)

    def autocast(self) -> AbstractContextManager[None]:
        """Return the autocast context of a forward pass."""
        return torch.autocast(
            self.torch_device.type, dtype=AUTOCAST.get(self.precision), enabled=self.precision in AUTOCAST
        )

    def scaler(self) -> torch.amp.GradScaler:
        """Return the loss scaler, which is disabled unless the precision is fp16."""
        return torch.amp.GradScaler(self.torch_device.type, enabled=self.precision == "fp16")

    @property
    def loading(self) -> LoaderOptions:
        """Options with which the loaders fetch this rank's share of the samples."""
        workers = available_cores() if self.workers is None else self.workers
        return LoaderOptions(workers, self.torch_device.type == "cuda", collectives.rank(), collectives.world_size())

    def _check_compiler(self) -> None:
        """Check that the compiler that torch.compile calls is installed."""
        on_cpu = self.torch_device.type == "cpu"
        variable, usual = ("CXX", ("g++", "clang++", "c++")) if on_cpu else ("CC", ("gcc", "clang", "cc"))
        given = os.environ.get(variable)
        if not any(map(shutil.which, shlex.split(given)[:1] if given else usual)):
            raise ConfigError(
                f"hardware.compile=true: torch.compile needs a compiler, and {given or ' or '.join(usual)} is not "
                "installed. Install one, or omit this setting."
            )
