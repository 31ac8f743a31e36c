from __future__ import annotations

import io
import json
import logging
import sys
import warnings
import zipfile
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import get_args, get_type_hints

import onnx
import onnxruntime
import pytest
import safetensors
import safetensors.torch
import torch
from torch import nn

from visual_transformers import __version__
from visual_transformers.checkpoints import weights
from visual_transformers.config.instantiate import build
from visual_transformers.config.schema import Config, ExportSettings
from visual_transformers.config.validation import validate
from visual_transformers.errors import ConfigError, RunError, WeightsError
from visual_transformers.inference.predictor import Predictor
from visual_transformers.modes.export import run
from visual_transformers.modes.export.formats import FORMATS, InputSizes, Reference

TOKENS = ["model.token_channels=32"]
(ALLOWED,) = get_args(get_type_hints(ExportSettings)["formats"])
EXPORT_FORMATS = get_args(ALLOWED)
SMALL_PYRAMID = ["model.backbone=resnet18", "model.pyramid_channels=32", "model.branch_channels=32"]
MODELS = {
    "vt_resnet18": TOKENS,
    "resnet18": ["model=resnet18"],
    "vt_fpn": ["task=segmentation", *TOKENS, *SMALL_PYRAMID],
    "panoptic_fpn": ["task=segmentation", "model=panoptic_fpn", *SMALL_PYRAMID],
}


@dataclass
class Exported:
    """Inputs, outputs and messages of an export."""

    cfg: Config
    model: nn.Module
    classes: list[str]
    folder: Path
    printed: str
    log: list[logging.LogRecord]
    warned: list[str]

    @cached_property
    def program(self) -> nn.Module:
        return torch.export.load(self.folder / "model.pt2").module()

    @cached_property
    def session(self) -> onnxruntime.InferenceSession:
        return onnxruntime.InferenceSession(self.folder / "model.onnx", providers=["CPUExecutionProvider"])

    def json(self) -> dict:
        return json.loads((self.folder / "export.json").read_text())


def with_statistics(model: nn.Module) -> nn.Module:
    """Fill batch normalization and residual branches as after training: neither identity nor zero."""
    for parameter in model.parameters():
        if not parameter.any():
            nn.init.uniform_(parameter, -0.1, 0.1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2)
    return model.eval()


def trained_file(cfg, path: Path) -> tuple[nn.Module, list[str]]:
    classes = build(cfg.data, "data").classes
    model = with_statistics(build(cfg.model, "model", num_classes=len(classes)))
    weights.save(path, model, {"classes": classes, "config": cfg.everything, "best": {"epoch": 2}})
    return model, classes


QUICK = "resnet18"


@pytest.fixture(
    scope="module",
    params=[name if name == QUICK else pytest.param(name, marks=pytest.mark.slow) for name in MODELS],
)
def exported(request, tmp_path_factory, composed) -> Exported:
    torch.manual_seed(0)
    directory = tmp_path_factory.mktemp(request.param)
    file = directory / "trained.safetensors"
    cfg = validate(composed(*MODELS[request.param], "mode=export", f"weights.file={file}", "hardware.threads=1"))
    model, classes = trained_file(cfg, file)
    said, root, handler = io.StringIO(), logging.getLogger(), Records()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)  # as in a run, where Hydra sets it
    try:
        with redirect_stdout(said), warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            run(cfg, directory)
    finally:
        root.setLevel(level)
        root.removeHandler(handler)
    shown = [str(w.message) for w in warned if not issubclass(w.category, DeprecationWarning)]
    return Exported(cfg, model, classes, directory / "export", said.getvalue(), handler.records, shown)


class Records(logging.Handler):
    def __init__(self):
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record):
        self.records.append(record)


@pytest.fixture
def untrained(tmp_path, composed):
    """Configure an export of a model's initial weights."""

    def prepared(*overrides: str):
        file = tmp_path / "trained.safetensors"
        cfg = validate(composed("mode=export", f"weights.file={file}", "hardware.threads=1", *overrides))
        trained_file(cfg, file)
        return cfg

    return prepared


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    assert found.shape == expected.shape
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize(
    "options",
    [
        ["model.tokenizer=pooling", "model.token_module=graph", "model.norm=pre"],
        ["model.tokenizer=clustering", "model.norm=post", "model.heads=4"],
        ["model.recurrent=false", "model.token_module=none", "model.reassociate=false"],
    ],
    ids="-".join,
)
@pytest.mark.slow
def test_ablations_are_exported_in_every_format_and_agree(untrained, tmp_path, options):
    run(untrained(*TOKENS, *options), tmp_path)
    found = json.loads((tmp_path / "export/export.json").read_text())
    assert {one["format"] for one in found["artefacts"]} == set(EXPORT_FORMATS)


SHAPES = [(1, 3, 50, 131), (4, 3, 67, 45)]
"""Shapes on which the export itself compares nothing."""


@torch.no_grad()
def test_onnxruntime_gives_the_model_s_outputs_at_any_size(exported):
    for images in map(torch.randn, SHAPES):
        found = torch.from_numpy(exported.session.run(["logits"], {"images": images.numpy()})[0])
        assert relative(found, exported.model(images)) < 1e-5


@torch.no_grad()
def test_the_traced_program_gives_the_model_s_outputs_at_any_size(exported):
    for images in map(torch.randn, SHAPES):
        assert relative(exported.program(images), exported.model(images)) < 1e-5


def test_the_weights_are_the_model_s_bit_for_bit(exported):
    tensors = safetensors.torch.load_file(exported.folder / "model.safetensors")
    expected = exported.model.state_dict()
    assert tensors.keys() == expected.keys()
    assert all(torch.equal(tensors[name], expected[name]) for name in expected)


def test_the_onnx_model_is_one_valid_file_with_named_dimensions(exported):
    onnx.checker.check_model(str(exported.folder / "model.onnx"), full_check=True)
    assert not list(exported.folder.glob("*.data"))
    (images,) = onnx.load(exported.folder / "model.onnx").graph.input
    dimensions = [d.dim_param or d.dim_value for d in images.type.tensor_type.shape.dim]
    assert dimensions == ["batch", 3, "height", "width"]


def test_the_traced_program_refuses_a_side_below_the_least_that_it_names(exported):
    least = exported.json()["input"]["least_side"]
    exported.program(torch.zeros(1, 3, least, least))
    with pytest.raises(AssertionError, match=str(least)):
        exported.program(torch.zeros(1, 3, least - 1, least))


def test_every_artefact_says_without_this_package_what_it_is(exported):
    of_onnx = {key: json.loads(value) for key, value in exported.session.get_modelmeta().custom_metadata_map.items()}
    with safetensors.safe_open(exported.folder / "model.safetensors", "pt") as opened:
        of_safetensors = {key: json.loads(value) for key, value in opened.metadata().items()}
    with zipfile.ZipFile(exported.folder / "model.pt2") as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("extra/about.json"))
        of_torch = json.loads(archive.read(name))
    assert of_onnx == of_safetensors == of_torch
    assert of_onnx["classes"] == exported.classes
    assert of_onnx["config"] == exported.cfg.everything
    assert of_onnx["version"] == __version__
    assert of_onnx["best"] == {"epoch": 2}
    assert of_onnx["input"]["shape"] == ["batch", 3, "height", "width"]
    assert "0.485" in of_onnx["input"]["preparation"]


def test_an_artefact_names_no_source_file_of_this_machine(exported):
    with zipfile.ZipFile(exported.folder / "model.pt2") as archive:
        texts = [archive.read(name) for name in archive.namelist() if name.endswith(".json")]
    assert not any(b"resnet.py" in text for text in [*texts, (exported.folder / "model.onnx").read_bytes()])


def test_the_report_says_what_was_written_and_how_far_it_is_from_the_model(exported):
    artefacts = {artefact["format"]: artefact for artefact in exported.json()["artefacts"]}
    assert tuple(artefacts) == EXPORT_FORMATS
    for artefact in artefacts.values():
        assert artefact["bytes"] == (exported.folder / artefact["file"]).stat().st_size
        assert 0 <= artefact["largest_relative_difference"] < 1e-5
        assert artefact["file"] in exported.printed
    assert artefacts["safetensors"]["largest_relative_difference"] == 0


def test_artefacts_are_compared_on_several_batches_and_odd_sizes(exported):
    shapes = exported.json()["compared_on"]
    assert len({batch for batch, *_ in shapes}) >= 2
    assert len({(h, w) for _, _, h, w in shapes if h % 32 and w % 32}) >= 2


def test_nothing_is_logged_and_nothing_warned_of(exported):
    assert not [record.getMessage() for record in exported.log]
    assert not exported.warned


def test_every_format_that_the_configuration_knows_can_be_written():
    assert tuple(FORMATS) == EXPORT_FORMATS


@pytest.mark.parametrize(
    "wrong",
    [lambda logits: logits * 1.001, lambda logits: logits * float("nan"), lambda logits: logits[:1]],
    ids=["other numbers", "no numbers", "another shape"],
)
def test_an_artefact_that_gives_something_else_is_an_error_that_names_it(untrained, tmp_path, monkeypatch, wrong):
    def load(path, reference):
        forward = right.load(path, reference)
        return lambda images: wrong(forward(images))

    right = FORMATS["safetensors"]
    monkeypatch.setitem(FORMATS, "safetensors", replace(right, load=load))
    cfg = untrained(*TOKENS, "export.formats=[safetensors,torch_export]")
    with pytest.raises(RunError, match=r"export/model\.safetensors: .*export\.tolerance") as refused:
        run(cfg, tmp_path)
    assert "model.pt2" not in str(refused.value)
    assert (tmp_path / "export" / "export.json").is_file()


def test_the_copy_is_in_float32_and_contiguous_whatever_the_hardware(untrained, tmp_path):
    cfg = untrained(*TOKENS, "hardware.precision=bf16", "hardware.channels_last=true")
    trained = Predictor.build(cfg, tmp_path)
    trained.model.to(torch.bfloat16)
    reference = Reference.from_predictor(cfg, trained)
    assert all(p.dtype == torch.float32 and p.is_contiguous() for p in reference.model.parameters())
    assert all(p.dtype == torch.bfloat16 for p in trained.model.parameters())


@torch.no_grad()
def test_a_model_of_images_as_small_as_its_stride_is_exported_for_that_size(untrained, tmp_path):
    cfg = untrained("model=resnet18", "model.stem_stride=4", "data.image_size=32", "export.formats=[torch_export]")
    run(cfg, tmp_path)
    report = json.loads((tmp_path / "export" / "export.json").read_text())
    assert report["input"]["shape"] == ["batch", 3, 32, 32]
    assert torch.export.load(tmp_path / "export" / "model.pt2").module()(torch.zeros(5, 3, 32, 32)).shape == (5, 10)


def test_a_model_that_names_no_stride_takes_only_the_size_that_images_are_prepared_to():
    sizes = InputSizes.from_model(nn.Linear(1, 1), torch.zeros(3, 224, 192))
    assert sizes.shape == ["batch", 3, 224, 192]
    assert list(sizes.dynamic_shape) == [0]
    assert {shape[1:] for shape in sizes.compared_shapes} == {(3, 224, 192)}


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_is_named_with_how_to_install_it_before_the_weights_are_read(
    tiny, tmp_path, monkeypatch, package
):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError) as refused:
        run(tiny("mode=export", "weights=missing"), tmp_path)
    for words in (
        f"not installed ({package})",
        "visual-transformers[export]",
        "export.formats=[safetensors,torch_export]",
    ):
        assert words in str(refused.value)


def test_formats_that_need_no_onnx_are_written_without_it(untrained, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    run(untrained(*TOKENS, "export.formats=[safetensors]"), tmp_path)
    assert {path.name for path in (tmp_path / "export").iterdir()} == {"export.json", "model.safetensors"}


def test_a_missing_weight_file_is_said(tiny, tmp_path):
    with pytest.raises(WeightsError, match="no such file"):
        run(tiny("mode=export", f"weights={tmp_path / 'missing.pt'}"), tmp_path)
