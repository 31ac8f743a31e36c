"""One of several processes that normalise a batch together, started by test_batch_norm.py.

    python batch_norm_processes.py RANK FOLDER

Reads case.pt in the folder, and leaves there what this process computed in each world that it was part of.
"""

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from visual_transformers.distributed.batch_norm import convert_sync_batch_norm


def record(model: nn.Module, steps: list[tuple[torch.Tensor, torch.Tensor]]) -> list[dict]:
    """Outputs and gradients of some training steps, and the model's state after each."""
    found = []
    for images, factors in steps:
        images = images.clone().requires_grad_()
        model.zero_grad()
        outputs = model(images)
        factors = factors[(..., *[None] * (outputs.ndim - 2))]
        (outputs.square() * factors).sum().backward()
        gradients = {name.removeprefix("module."): p.grad.clone() for name, p in model.named_parameters()}
        state = {name.removeprefix("module."): t.clone() for name, t in model.state_dict().items()}
        found.append({"outputs": outputs.detach(), "images": images.grad, "gradients": gradients, "state": state})
    return found


def work(rank: int, world: int, folder: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/store{world}", rank=rank, world_size=world)
    case = torch.load(folder / "case.pt", weights_only=False)
    steps = [step[rank] for step in case["steps"][world]]
    results = {}
    for name, model in case["models"].items():
        results[name] = record(convert_sync_batch_norm(model), steps)
    results["ddp"] = record(DistributedDataParallel(convert_sync_batch_norm(case["wrapped"])), steps)
    model = convert_sync_batch_norm(case["alone"])
    try:
        model(torch.zeros(int(rank == 0), 3, 1, 1))
    except ValueError as error:
        results["one value"] = str(error)
    model(torch.zeros(0, 3, 1, 1)).sum().backward()  # no process has an image
    results["no value"] = model.state_dict()
    results["evaluation"] = model.eval()(steps[0][0].float())
    torch.save(results, folder / f"result{world}_{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    rank, folder = int(sys.argv[1]), Path(sys.argv[2])
    for world in (3, 2):
        if rank < world:
            work(rank, world, folder)
