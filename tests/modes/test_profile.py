from __future__ import annotations

import csv
import json
import os

import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from torch import nn
from torch.distributed._tools.mem_tracker import MemTracker
from torchvision import models as torchvision_models

from visual_transformers import models
from visual_transformers.config.schema import ProfileSettings
from visual_transformers.config.validation import validate
from visual_transformers.distributed.hardware import Hardware
from visual_transformers.errors import ConfigError, DataError
from visual_transformers.models.flops import count_costs, name_groups
from visual_transformers.modes import profile
from visual_transformers.modes.profile import output, plots
from visual_transformers.modes.profile.latency import measure_latency
from visual_transformers.modes.profile.memory import Workload, compute_peak_bytes, count_activation_bytes, to_fake
from visual_transformers.tasks.task import Classification, Segmentation

PUBLISHED = {
    "resnet18": torchvision_models.ResNet18_Weights.IMAGENET1K_V1.meta,
    "resnet34": torchvision_models.ResNet34_Weights.IMAGENET1K_V1.meta,
    "resnet50": torchvision_models.ResNet50_Weights.IMAGENET1K_V1.meta,
    "resnet101": torchvision_models.ResNet101_Weights.IMAGENET1K_V1.meta,
}


def workload(model: nn.Module, forward: nn.Module | None = None, task=None, **changes) -> Workload:
    """Build a workload of two images of 4 x 4 pixels and 5 classes, unless changed."""
    hardware = changes.pop("hardware", Hardware(channels_last=False))
    settings = {"classes": 5, "batch_size": 2, "image_size": [4, 4], "seconds": 0, "repeats": 1} | changes
    task, settings = task or Classification(), ProfileSettings(**settings)
    return Workload(model, forward=forward or model, hardware=hardware, task=task, settings=settings)


def test_the_parameters_and_macs_of_a_resnet_are_those_that_torchvision_publishes():
    for name, published in PUBLISHED.items():
        with torch.device("meta"):
            model = getattr(torchvision_models, name)()
        parts = count_costs(model, (224, 224))
        assert sum(part.parameters for part in parts) == published["num_params"]
        assert round(sum(part.macs for part in parts) / 1e9, 3) == published["_ops"]


class Odd(nn.Module):
    """Model with a parameter of its own, a shared layer, and parts that can be counted by hand."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential()
        self.backbone.add_module("conv1", nn.Conv2d(3, 4, 3, padding=1))
        self.backbone.add_module("bn1", nn.BatchNorm2d(4))
        self.backbone.add_module("layer1", nn.Conv2d(4, 8, 2, stride=2, groups=2, bias=False))
        self.vt = nn.ModuleList([nn.Linear(8, 8), nn.Linear(8, 8, bias=False)])
        self.again = self.vt[1]
        self.own = nn.Parameter(torch.zeros(8, 5))

    def forward(self, images):
        x = self.backbone(images).flatten(2).transpose(1, 2)  # (B, HW, 8)
        return (self.again(self.vt[0](x)) @ self.own).mean(dim=1)


def test_the_parts_of_a_model_are_those_counted_by_hand():
    counted = {part.name: (part.parameters, part.macs) for part in count_costs(Odd(), (6, 8))}
    pixels = 3 * 4
    second = counted.pop("vt.1", (0, 0)), counted.pop("again", (0, 0))
    assert tuple(map(sum, zip(*second, strict=True))) == (64, pixels * 64)  # one layer under two names counts once
    assert counted == {
        "stem": (3 * 4 * 9 + 4 + 8, 6 * 8 * 3 * 4 * 9),
        "layer1": (8 * 2 * 4, pixels * 8 * 2 * 4),
        "vt.0": (72, pixels * 64),
        "rest": (40, pixels * 40),
    }


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (models.resnet18, ["stem", "layer1", "layer2", "layer3", "layer4", "fc"]),
        (models.vt_resnet18, ["stem", "layer1", "layer2", "layer3", "vt.0", "vt.1", "fc"]),
        (models.panoptic_fpn, ["stem", "layer1", "layer2", "layer3", "layer4", "pyramid", "branch"]),
        (models.vt_fpn, ["stem", "layer1", "layer2", "layer3", "layer4", "pyramid", "branch"]),
    ],
)
def test_every_model_falls_into_its_parts_without_rest_and_they_add_up(model, expected):
    model = model(num_classes=7)
    parts = count_costs(model, (64, 96))
    assert [part.name for part in parts] == expected
    assert sum(part.parameters for part in parts) == sum(p.numel() for p in model.parameters())
    with torch.device("meta"), torch.utils.flop_counter.FlopCounterMode(display=False) as counter:
        model.to("meta").eval()(torch.empty(1, 3, 64, 96))
    assert 2 * sum(part.macs for part in parts) == counter.get_total_flops()


def test_all_of_a_model_s_parameters_are_in_a_part():
    model = models.vt_resnet18(num_classes=7)
    assert all(
        name.startswith(tuple(f"{path}." for path in name_groups(model))) for name, _ in model.named_parameters()
    )


def test_kept_activations_are_those_counted_by_hand():
    class SumOfSquares(Classification):
        def loss_sum(self, logits, targets, *, training):
            return (logits**2).sum()

    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 5), nn.ReLU())
    images, after_relu, divisor = 4 * 2 * 48, 4 * 2 * 5, 8
    assert count_activation_bytes(workload(model, task=SumOfSquares())) == images + after_relu + divisor


@pytest.mark.parametrize(
    ("precision", "tolerance"),
    [("fp32", 0), ("bf16", 0.002)],  # without data, torch has a norm's statistics in half precision too
)
def test_activations_counted_without_data_are_those_that_a_real_step_keeps(precision, tolerance):
    hardware = Hardware(precision=precision)
    model = hardware.place(models.vt_resnet18(num_classes=5, token_channels=32))
    counted = count_activation_bytes(workload(model, hardware=hardware, image_size=(32, 32)))
    mode, fake_model = to_fake(model)
    with mode:
        without = count_activation_bytes(workload(fake_model, hardware=hardware, image_size=(32, 32)))
    assert without == pytest.approx(counted, rel=tolerance, abs=0)


def test_half_precision_keeps_fewer_bytes():
    kept = []
    for precision in ("fp32", "bf16"):
        mode, fake_model = to_fake(models.vt_fpn(num_classes=5, backbone="resnet18"))
        with mode:
            work = workload(
                fake_model,
                task=Segmentation(),
                hardware=Hardware(precision=precision),
                batch_size=32,
                image_size=(96, 128),
            )
            kept.append(count_activation_bytes(work))
    assert kept[1] < 0.8 * kept[0]


@pytest.mark.parametrize("model", [models.resnet18, models.vt_resnet18])
def test_the_computed_peak_is_that_of_torch_s_own_tracker(model):
    mode, fake_model = to_fake(model(num_classes=5))
    with mode:
        work = workload(fake_model, batch_size=8, image_size=(64, 64))
        peak = compute_peak_bytes(work)
        tracker = MemTracker()
        tracker.track_external(fake_model, work.images, work.targets)
        with tracker:
            work.step()
    assert peak == tracker.get_tracker_snapshot("peak")[torch.device("cpu")]["Total"]


def test_the_computed_peak_of_a_step_is_that_counted_by_hand():
    class Scale(nn.Module):
        def __init__(self):
            super().__init__()
            self.factor = nn.Parameter(torch.ones(2, 3, 64, 64))

        def forward(self, images):
            return images * self.factor

    class Sum(Classification):
        def loss_sum(self, logits, targets, *, training):
            return logits.sum()

    mode, fake_model = to_fake(Scale())
    with mode:
        peak = compute_peak_bytes(workload(fake_model, task=Sum(), image_size=(64, 64)))
    size = 4 * 2 * 3 * 64 * 64
    assert 0 <= peak - 3 * size <= 200  # the factor, the images, then the product or the gradient; and scalars


def test_a_latency_has_quartiles_and_as_many_measurements_as_asked():
    image = torch.rand(2, 3, 32, 32)
    model = nn.Conv2d(3, 8, 3)
    measured = measure_latency(lambda: model(image), seconds=0.02, repeats=7)
    assert 0 < measured.lower <= measured.median <= measured.upper
    assert measured.measurements >= 7


def test_a_training_step_keeps_the_weights_and_no_gradients():
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 5))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    workload(model).step()
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


class StandIn(nn.Module):
    """Layer before or after the mean over the pixels."""

    def __init__(self, num_classes: int, reassociate: bool):
        super().__init__()
        self.fc = nn.Linear(3, num_classes, bias=False)
        self.reassociate = reassociate

    def forward(self, images):
        pixels = images.flatten(2).transpose(1, 2)
        return self.fc(pixels.mean(dim=1)) if self.reassociate else self.fc(pixels).mean(dim=1)


def stand_in(*, num_classes: int, reassociate: bool = True) -> nn.Module:
    return StandIn(num_classes, reassociate)


@pytest.fixture
def profiled(composed, tmp_path, monkeypatch):
    """Profile a model at a tiny size into a folder, and return its report."""
    stand_in.__module__ = "visual_transformers.models"
    monkeypatch.setattr(models, "stand_in", stand_in, raising=False)

    def run(folder: str, *overrides: str, model: dict | None = None) -> dict:
        small = ["hardware.threads=1", "profile.image_size=[32,48]", "profile.classes=7", "profile.seconds=0"]
        cfg = validate(composed("mode=profile", *small, *overrides))
        cfg.model = model or cfg.model
        profile.run(cfg, tmp_path / folder)
        return json.loads((tmp_path / folder / "profile" / "profile.json").read_text())

    return run


STAND_IN = {"_target_": "visual_transformers.models.stand_in"}


def rows_of(path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_a_long_title_stays_within_the_picture(tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(plots, "save_figure", lambda figure, path: figures.append(figure))
    plots.draw_part_costs(tmp_path / "x.png", "a title that names much hardware, " * 6, {"literal": {"fc": 1}}, {})
    canvas = FigureCanvasAgg(figures[0])
    canvas.draw()
    title = figures[0]._suptitle.get_window_extent()
    assert title.width > 0.8 * figures[0].bbox.width
    assert 0 <= title.x0 <= title.x1 <= figures[0].bbox.width


def test_a_profile_leaves_its_files_and_no_latency_where_none_is_asked_for(profiled, tmp_path):
    report = profiled("run", "model=resnet18", "profile.batch_size=2", "name=resnet18")
    assert {path.name for path in (tmp_path / "run" / "profile").iterdir()} == {
        "profile.json", "profile.csv", "profile.md", "profile.png",
    }  # fmt: skip
    assert report["name"] == "resnet18"
    assert (report["image_size"], report["device"], report["precision"], report["threads"]) == (
        [32, 48],
        "cpu",
        "fp32",
        1,
    )
    (costs,) = report["forms"].values()
    assert (costs["forward"], costs["step"]) == (None, None)
    assert costs["flops"] == 2 * costs["macs"]
    parts = rows_of(tmp_path / "run" / "profile" / "profile.csv")
    assert sum(int(row["macs_literal"]) for row in parts) == costs["macs"]
    assert sum(int(row["parameters"]) for row in parts) == costs["parameters"]


@pytest.mark.parametrize("node", [STAND_IN, STAND_IN | {"reassociate": True}])
def test_a_model_that_reassociates_is_counted_and_timed_as_the_equations_are_too(profiled, tmp_path, node):
    report = profiled("run", "profile.seconds=0.01", model=node)
    assert list(report["forms"]) == ["reassociated", "literal"]
    assert report["forms"]["reassociated"]["macs"] == 3 * 7
    assert report["forms"]["literal"]["macs"] == 32 * 48 * 3 * 7
    for costs in report["forms"].values():
        for time in (costs["forward"], costs["step"]):
            assert 0 < time["lower"] <= time["median"] <= time["upper"]
            assert time["measurements"] >= 5
            assert time["images_per_second"] == pytest.approx(1 / time["median"])
    forms = ("re-associated", "literal")
    assert list(output.collect_latencies(report)) == [
        f"{what}, {form}" for what in ("forward pass", "training step") for form in forms
    ]
    (row,) = rows_of(tmp_path / "run" / "profile" / "profile.csv")
    assert (row["macs_reassociated"], row["macs_literal"]) == ("21", str(32 * 48 * 21))


def test_a_model_told_not_to_reassociate_is_literal_alone(profiled):
    report = profiled("run", model=STAND_IN | {"reassociate": False})
    assert list(report["forms"]) == ["literal"]
    assert report["forms"]["literal"]["macs"] == 32 * 48 * 3 * 7


def test_the_jobs_of_a_sweep_are_gathered_into_one_row_a_model(profiled, tmp_path, capsys):
    first = profiled("sweep/0", "model=resnet18", "profile.batch_size=2", "name=resnet18", "profile.seconds=0.01")
    second = profiled("sweep/1", "name=stand_in", "profile.seconds=0.01", model=STAND_IN)
    output.gather(tmp_path / "sweep")
    rows = rows_of(tmp_path / "sweep" / "profile.csv")
    assert [row["model"] for row in rows] == ["resnet18", "stand_in"]
    assert [row["macs_reassociated"] for row in rows] == ["", "21"]
    assert int(rows[0]["macs_literal"]) == first["forms"]["plain"]["macs"]
    assert float(rows[1]["forward_seconds"]) == second["forms"]["reassociated"]["forward"]["median"]
    assert float(rows[1]["literal_step_seconds"]) == second["forms"]["literal"]["step"]["median"]
    assert int(rows[0]["peak_bytes_computed"]) == first["forms"]["plain"]["peak_bytes"]
    lines = (tmp_path / "sweep" / "profile.md").read_text().splitlines()
    assert [line.split(" | ")[0] for line in lines[2:4]] == ["| resnet18", "| stand_in"]
    assert (tmp_path / "sweep" / "profile.png").stat().st_size > 1000
    assert "2 profiles, side by side" in capsys.readouterr().out


def test_jobs_of_an_earlier_sweep_in_the_same_folder_are_not_gathered(profiled, tmp_path, capsys):
    profiled("sweep/0", "name=old", model=STAND_IN)
    os.utime(tmp_path / "sweep/0/profile/profile.json", (1, 1))
    (tmp_path / "sweep/multirun.yaml").write_text("")
    profiled("sweep/1", "name=new", model=STAND_IN)
    output.gather(tmp_path / "sweep")
    assert [row["model"] for row in rows_of(tmp_path / "sweep" / "profile.csv")] == ["new"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("vt_fpn-digits-seed3", "vt_fpn"),
        ("camvid_small-vt_fpn-seed0", "vt_fpn"),
        ("my-model", "my-model"),
        ("vt_fpn-x", "vt_fpn-x"),
        ("vt_fpn_r101-digits-seed0", "vt_fpn_r101-digits-seed0"),  # the choice was another: the name is the user's own
    ],
)
def test_a_profile_carries_the_run_s_name_or_the_model_s_where_it_is_part_of_a_name_that_was_made(
    composed, name, expected
):
    assert profile.choose_name(validate(composed(f"name={name}"), {"model": "vt_fpn"})) == expected


def test_a_profile_of_a_model_that_nobody_chose_carries_the_run_s_name(composed):
    assert profile.choose_name(validate(composed("name=vt_fpn-digits-seed3"))) == "vt_fpn-digits-seed3"


def test_models_of_one_name_are_told_apart_by_what_differs():
    def report(batch_size: int, **keys: int) -> dict:
        return {"name": "vt", "model": {"_target_": "x"} | keys, "batch_size": batch_size, "forms": {}}

    labels = output.make_labels([report(1, tokens=8), report(1, tokens=16), report(1, tokens=8)], ["0", "1", "2"])
    assert labels == ["vt tokens=8 (0)", "vt tokens=16", "vt tokens=8 (2)"]
    assert output.make_labels([report(1), report(8)], ["0", "1"]) == ["vt batch_size=1", "vt batch_size=8"]


def test_the_tables_give_each_number_in_its_heading_s_unit():
    row = {
        "parameters": 11_689_512,
        "macs_literal": 1_814_073_344,
        "activation_bytes": 3 * 2**30,
        "forward_seconds": 0.0125,
    }
    assert output.format_rows([row, {"parameters": 5}]) == [
        {"parameters, M": "11.69", "GMACs literal": "1.814", "activations, MiB": "3072", "forward, ms": "12.5"},
        {"parameters, M": "5e-06", "GMACs literal": "", "activations, MiB": "", "forward, ms": ""},
    ]


def test_a_batch_that_cannot_be_trained_on_is_refused_before_anything_is_timed(profiled):
    with pytest.raises(ConfigError, match=r"cannot be trained on profile\.batch_size=1 images .*\[32, 32\]"):
        profiled("run", "model=resnet18", "profile.image_size=[32,32]", "profile.seconds=1000")


def test_images_that_the_model_cannot_take_are_refused(profiled):
    with pytest.raises(DataError, match="8 x 48 pixels are smaller than the backbone's stride of 32"):
        profiled("run", "model=resnet18", "profile.image_size=[8,48]")


def test_a_sweep_on_the_command_line_ends_with_its_models_side_by_side(command, tmp_path):
    settings = ["mode=profile", "model=resnet18,vt_resnet18", "profile.image_size=[32,64]", "profile.seconds=0",
                "hardware.threads=1", "hydra.sweep.dir=sweep"]  # fmt: skip
    assert command("-m", *settings).returncode == 0
    assert [row["model"] for row in rows_of(tmp_path / "sweep" / "profile.csv")] == ["resnet18", "vt_resnet18"]
