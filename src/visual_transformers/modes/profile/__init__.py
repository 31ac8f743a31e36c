"""`mode=profile`: what a model costs, without data and without weights."""

from __future__ import annotations

import copy
import inspect
import platform
import re
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch

from visual_transformers.config.instantiate import allowed_object, blamed_on, build
from visual_transformers.config.schema import Config, Node, ProfileSettings
from visual_transformers.distributed.hardware import Hardware
from visual_transformers.distributed.stop_at_once import interruptible
from visual_transformers.errors import RunError
from visual_transformers.models.flops import count
from visual_transformers.modes.profile import output
from visual_transformers.modes.profile.measure import (
    Workload,
    activation_bytes,
    computed_peak_bytes,
    latency,
    measured_peak_bytes,
    without_data,
)
from visual_transformers.modes.profile.output import Report
from visual_transformers.tasks.task import Task


def run(cfg: Config, directory: Path) -> None:
    """Count, compute and time what the model costs, on random images, and leave it in `profile/`.

    A model that re-associates its products is profiled a second time as the equations are written.

    Raises:
        UserError: if the model cannot take or be trained on such images, or the device's memory is too small.
    """
    hardware: Hardware = build(cfg.hardware, "hardware", trust=cfg.trust)
    hardware.prepare(cfg.seed)
    task: Task = build(cfg.task, "task", trust=cfg.trust)
    report = conditions(cfg, hardware)
    report["forms"] = {
        form: costs(cfg, node, hardware, task) for form, node in interruptible(forms(cfg.model, cfg.trust).items())
    }
    output.write(report, directory / "profile")


def forms(node: Node, trust: Sequence[str] = ()) -> dict[str, Node]:
    """The model's node in each form to profile, the configured one first.

    A model with an argument `reassociate` is profiled as `reassociated` and `literal`, or, where it is false, as
    `literal` alone; any other model is `plain`.
    """
    known = inspect.signature(allowed_object(node["_target_"], "model", trust=trust)).parameters
    if "reassociate" not in known:
        return {"plain": node}
    literal = {"literal": node | {"reassociate": False}}
    return {"reassociated": node} | literal if node.get("reassociate", known["reassociate"].default) else literal


def conditions(cfg: Config, hardware: Hardware) -> Report:
    """What was profiled, and on what."""
    device = hardware.torch_device
    return {
        "name": title(cfg),
        "model": cfg.model,
        "image_size": cfg.profile.image_size,
        "classes": cfg.profile.classes,
        "batch_size": cfg.profile.batch_size,
        "device": str(device),
        "device_name": torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else platform.processor() or platform.machine(),
        "precision": hardware.precision,
        "channels_last": hardware.channels_last,
        "compile": hardware.compile,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "peak_memory": "measured" if measures_memory(hardware) else "computed",
    }


def title(cfg: Config) -> str:
    """The model's name where the run's is the default or a recipe's, which have it between others; else the run's."""
    model = re.escape(cfg.choices.get("model", ""))
    return cfg.choices["model"] if model and re.fullmatch(rf"(.+-)?{model}(-.+)?-seed\d+", cfg.name) else cfg.name


def costs(cfg: Config, node: Node, hardware: Hardware, task: Task) -> Report:
    """What one form of the model costs; latencies are null where `profile.seconds` is 0.

    Activations and a computed peak are those of the model uncompiled, whatever `hardware.compile` says.
    """
    asked, target = cfg.profile, node["_target_"]
    model = build(node, "model", trust=cfg.trust, num_classes=asked.classes)
    image = torch.empty(1, 3, *asked.image_size, device="meta")
    with blamed_on("model", f"{target} cannot take images of shape {tuple(image.shape)}"):
        task.check_output(copy.deepcopy(model).to("meta"), image, asked.classes)
    parts = count(model, asked.image_size)
    macs = sum(part.macs for part in parts)
    found: Report = {"parameters": sum(part.parameters for part in parts), "macs": macs, "flops": 2 * macs}
    found["parts"] = [asdict(part) | {"flops": 2 * part.macs} for part in parts]

    batch = f"profile.batch_size={asked.batch_size} images of profile.image_size={asked.image_size}"
    workload = partial(
        Workload,
        hardware=hardware,
        task=task,
        classes=asked.classes,
        batch_size=asked.batch_size,
        image_size=asked.image_size,
    )
    mode, hollow = without_data(hardware.place(model))
    with mode, blamed_on("profile", f"{target} cannot be trained on {batch}"):
        work = workload(hollow, forward=hollow)
        found["activation_bytes"] = activation_bytes(work)
        found["peak_bytes"] = None if measures_memory(hardware) else computed_peak_bytes(work)
    try:
        return found | on_device(workload(model, forward=hardware.compiled(model)), asked)
    except torch.OutOfMemoryError as error:
        raise RunError(f"{batch} do not fit the memory of {hardware.device}; choose fewer or smaller ones") from error


def on_device(work: Workload, asked: ProfileSettings) -> Report:
    """What only shows where the model runs: latencies, and the peak of the memory on a device that keeps account."""
    found: Report = {"forward": None, "step": None}
    if measures_memory(work.hardware):
        found["peak_bytes"] = measured_peak_bytes(work)
    if asked.seconds:
        for name, run, training in (("forward", work.infer, False), ("step", work.step, True)):
            work.model.train(training)
            time = latency(run, seconds=asked.seconds, repeats=asked.repeats)
            found[name] = asdict(time) | {"images_per_second": asked.batch_size / time.median}
    return found


def measures_memory(hardware: Hardware) -> bool:
    """Whether torch tells the most memory that was in use on the device; elsewhere it is computed."""
    return hardware.torch_device.type == "cuda"
