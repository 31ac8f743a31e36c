"""Train VT-ResNet-18 for an epoch on one device and on several, and compare the weights.

`python -m tests.support.devices PATH` takes a folder of `train` and `val` with class folders, as Imagenette's. It
computes in float64 with synchronised batch norms, so that all that may differ is the order of sums; what else differed
would grow from step to step. In float64 a CPU is slow: the images are small, and an epoch of ten thousand takes some
ten minutes.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor

TOLERANCE = 1e-5
"""Of a weight, absolute and as a part of it."""


def trained(folder: Path, devices: int, options: argparse.Namespace) -> dict[str, Tensor]:
    """The weights of a run on so many devices."""
    settings = [
        f"name={devices}", f"hardware.devices={devices}", f"hardware={options.hardware}", "hardware.precision=fp64",
        "data=imagenet", f"data.root={Path(options.data).resolve()}", f"data.image_size={options.image_size}",
        "data.batch_size=128", "optimizer=sgd", "batch_norm.sync=true", "training.epochs=1", "training.samples=0",
    ]  # fmt: skip
    began = time.monotonic()
    subprocess.run([sys.executable, "-m", "visual_transformers", *settings], cwd=folder, check=True)
    print(f"{devices} devices: {time.monotonic() - began:.0f} s", flush=True)
    weights: dict[str, Tensor] = torch.load(folder / f"runs/{devices}/checkpoints/last.pt", weights_only=True)["model"]
    return weights


def main() -> None:
    """Print the largest difference, and fail if it is beyond the tolerance."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", help="folder with train and val")
    parser.add_argument("--devices", type=int, default=2, help="to be compared with one")
    parser.add_argument("--hardware", default="cpu", help="cpu or gpu")
    parser.add_argument("--image-size", type=int, default=32, help="side of the images, pixels")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="devices-"))
    one, many = (trained(folder, devices, options) for devices in (1, options.devices))
    worst = max((float((many[name] - one[name]).abs().max()), name) for name in one)
    beyond = [name for name in one if not torch.allclose(many[name], one[name], rtol=TOLERANCE, atol=TOLERANCE)]
    print(f"largest difference of {len(one)} tensors: {worst[0]:.2e}, in {worst[1]}; beyond {TOLERANCE}: {len(beyond)}")
    sys.exit(bool(beyond))


if __name__ == "__main__":
    main()
