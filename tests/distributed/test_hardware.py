from __future__ import annotations

import os

import pytest
import torch

from visual_transformers.distributed import collectives, hardware
from visual_transformers.distributed.hardware import Hardware
from visual_transformers.errors import ConfigError
from visual_transformers.models import vt_resnet18


def test_a_missing_device_is_refused_with_what_to_use():
    with pytest.raises(ConfigError, match=r"hardware\.device=cuda:99 .*hardware=cpu"):
        Hardware(device="cuda:99")


def test_an_unknown_device_is_refused():
    with pytest.raises(ConfigError, match=r"hardware\.device=abacus"):
        Hardware(device="abacus")


def test_channels_last_orders_images_and_weights():
    hardware = Hardware(channels_last=True)
    images, _ = hardware.move(torch.zeros(2, 3, 8, 8), torch.zeros(2))
    model = hardware.place(torch.nn.Conv2d(3, 4, 3))
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert model.weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_logits_have_the_configured_precision(precision):
    model = vt_resnet18(num_classes=10, token_channels=32).eval()
    with Hardware(precision=precision).autocast():
        assert model(torch.randn(2, 3, 32, 32)).dtype == {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]


def test_bf16_agrees_with_fp32():
    model = vt_resnet18(num_classes=10, token_channels=64).eval()
    images = torch.randn(4, 3, 64, 64)
    with torch.inference_mode():
        exact = model(images)
        with Hardware(precision="bf16").autocast():
            rounded = model(images).float()
    assert (exact - rounded).abs().max() < 0.05 * exact.abs().max()


def test_channels_last_changes_nothing():
    model = vt_resnet18(num_classes=10, token_channels=32).eval()
    images = torch.randn(2, 3, 32, 32)
    expected = model(images)
    hardware = Hardware(channels_last=True)
    placed = hardware.place(model)
    torch.testing.assert_close(placed(hardware.move(images, images)[0]), expected, rtol=1e-4, atol=1e-5)


def test_determinism_is_set_in_torch():
    Hardware(deterministic=True).prepare(seed=0)
    assert torch.are_deterministic_algorithms_enabled()
    Hardware(deterministic=False).prepare(seed=0)
    assert not torch.are_deterministic_algorithms_enabled()


def test_the_number_of_threads_is_set():
    before = torch.get_num_threads()
    Hardware(threads=1).prepare(seed=0)
    assert torch.get_num_threads() == 1
    torch.set_num_threads(before)


def test_null_workers_are_one_per_available_core():
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert Hardware(workers=None).loading.workers == 1
    finally:
        os.sched_setaffinity(0, before)
    assert Hardware(workers=3).loading.workers == 3


def test_a_slurm_task_uses_its_own_cores(monkeypatch):
    monkeypatch.setattr(hardware, "resolve_workers", lambda workers: 8)
    monkeypatch.setattr(collectives, "local_world_size", lambda: 4)
    assert hardware.available_cores() == 2
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "8")
    assert hardware.available_cores() == 8
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")  # torchrun within a task
    assert hardware.available_cores() == 2


@pytest.mark.parametrize(("capability", "said"), [("AVX2", True), ("AVX512", False)])
def test_bf16_in_software_is_printed(monkeypatch, capsys, capability, said):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    Hardware(precision="bf16")
    assert ("twenty times slower" in capsys.readouterr().out) == said
    Hardware(precision="fp32")
    assert capsys.readouterr().out == ""
