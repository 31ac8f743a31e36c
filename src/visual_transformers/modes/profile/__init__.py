"""`mode=profile`: count, compute and time the costs of a model, without data and weights."""

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
from visual_transformers.config.schema import Node, ProfileConfig, ProfileSettings
from visual_transformers.distributed.hardware import Hardware
from visual_transformers.distributed.signals import interruptible
from visual_transformers.errors import RunError
from visual_transformers.models.flops import count_costs
from visual_transformers.modes.profile import output
from visual_transformers.modes.profile.latency import measure_latency
from visual_transformers.modes.profile.memory import (
    Workload,
    compute_peak_bytes,
    count_activation_bytes,
    measure_peak_bytes,
    to_fake,
)
from visual_transformers.modes.profile.output import Report
from visual_transformers.tasks.task import Task


def run(cfg: ProfileConfig, directory: Path) -> None:
    """Profile the model on random images and write the results to `profile/`.

    A model that re-associates its products is also profiled in its literal form, as the equations are written.

    Raises:
        UserError: if the model cannot take or be trained on such images, or the device has too little memory.
    """
    hardware: Hardware = build(cfg.hardware, "hardware", trust=cfg.trust)
    hardware.prepare(cfg.seed)
    task: Task = build(cfg.task, "task", trust=cfg.trust)
    report = describe_setup(cfg, hardware)
    report["forms"] = {
        form: profile_form(cfg, node, hardware, task)
        for form, node in interruptible(list_forms(cfg.model, cfg.trust).items())
    }
    output.write_report(report, directory / "profile")


def list_forms(node: Node, trust: Sequence[str] = ()) -> dict[str, Node]:
    """Return the model's node in each form to profile, the configured form first.

    A model with an argument `reassociate` is profiled as `reassociated` and `literal`, or only as `literal` if the
    argument is false; any other model is `plain`.
    """
    parameters = inspect.signature(allowed_object(node["_target_"], "model", trust=trust)).parameters
    if "reassociate" not in parameters:
        return {"plain": node}
    literal = {"literal": node | {"reassociate": False}}
    return {"reassociated": node} | literal if node.get("reassociate", parameters["reassociate"].default) else literal


def describe_setup(cfg: ProfileConfig, hardware: Hardware) -> Report:
    """Return the settings, hardware and software of a profile."""
    device, processor = hardware.torch_device, platform.processor() or platform.machine()
    return {
        "name": choose_name(cfg),
        "model": cfg.model,
        "image_size": cfg.profile.image_size,
        "classes": cfg.profile.classes,
        "batch_size": cfg.profile.batch_size,
        "device": str(device),
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else processor,
        "precision": hardware.precision,
        "channels_last": hardware.channels_last,
        "compile": hardware.compile,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "peak_memory": "measured" if has_memory_statistics(hardware) else "computed",
    }


def choose_name(cfg: ProfileConfig) -> str:
    """Return the model's name if the run has a default name that contains it, otherwise the run's name."""
    model = re.escape(cfg.choices.get("model", ""))
    return cfg.choices["model"] if model and re.fullmatch(rf"(.+-)?{model}(-.+)?-seed\d+", cfg.name) else cfg.name


def profile_form(cfg: ProfileConfig, node: Node, hardware: Hardware, task: Task) -> Report:
    """Profile one form of the model; latencies are null if `profile.seconds` is 0.

    Activations and a computed peak are those of the uncompiled model, even with `hardware.compile`.
    """
    settings, target = cfg.profile, node["_target_"]
    model = build(node, "model", trust=cfg.trust, num_classes=settings.classes)
    image = torch.empty(1, 3, *settings.image_size, device="meta")
    with blamed_on("model", f"{target} cannot take images of shape {tuple(image.shape)}"):
        task.check_output(copy.deepcopy(model).to("meta"), image, settings.classes)
    parts = count_costs(model, settings.image_size)
    macs = sum(part.macs for part in parts)
    costs: Report = {"parameters": sum(part.parameters for part in parts), "macs": macs, "flops": 2 * macs}
    costs["parts"] = [asdict(part) | {"flops": 2 * part.macs} for part in parts]

    batch = f"profile.batch_size={settings.batch_size} images of profile.image_size={settings.image_size}"
    workload = partial(Workload, hardware=hardware, task=task, settings=settings)
    mode, fake_model = to_fake(hardware.place(model))
    with mode, blamed_on("profile", f"{target} cannot be trained on {batch}"):
        work = workload(fake_model, forward=fake_model)
        costs["activation_bytes"] = count_activation_bytes(work)
        costs["peak_bytes"] = None if has_memory_statistics(hardware) else compute_peak_bytes(work)
    try:
        return costs | measure_on_device(workload(model, forward=hardware.maybe_compile(model)), settings)
    except torch.OutOfMemoryError as error:
        raise RunError(f"{batch} do not fit the memory of {hardware.device}. Choose fewer or smaller images") from error


def measure_on_device(work: Workload, settings: ProfileSettings) -> Report:
    """Measure latencies and, on a CUDA device, peak memory."""
    measured: Report = {"forward": None, "step": None}
    if has_memory_statistics(work.hardware):
        measured["peak_bytes"] = measure_peak_bytes(work)
    if settings.seconds:
        for name, run, training in (("forward", work.infer, False), ("step", work.step, True)):
            work.model.train(training)
            time = measure_latency(run, seconds=settings.seconds, repeats=settings.repeats)
            measured[name] = asdict(time) | {"images_per_second": settings.batch_size / time.median}
    return measured


def has_memory_statistics(hardware: Hardware) -> bool:
    """Return True if torch measures peak memory on the device; on others it is computed."""
    return hardware.torch_device.type == "cuda"
