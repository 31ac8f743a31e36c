from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from visual_transformers.checkpoints import weights
from visual_transformers.config.instantiate import build
from visual_transformers.errors import DataError, RunError
from visual_transformers.inference import token_attention
from visual_transformers.inference.predictor import Predictor
from visual_transformers.models import panoptic_fpn, resnet18
from visual_transformers.modes import explain
from visual_transformers.plotting import image_plots

DIGITS = [str(digit) for digit in range(10)]
SCENES = [*DIGITS, "background"]


class StandInTokenizer(nn.Module):
    """Tokenizer of two tokens: one attends uniformly, one to the pixel (row 1, column 2)."""

    def attention(self, pixels, size, tokens=None):
        height, width = size
        found = torch.zeros(len(pixels), height * width, 2)
        found[:, :, 0] = 1 / (height * width)
        found[:, 1 * width + 2, 1] = 1
        return found


class StandInTransformer(nn.Module):
    """Transformer with given attention (heads, L, L)."""

    def __init__(self, heads):
        super().__init__()
        self.heads = heads

    def attention(self, tokens):
        return self.heads.expand(len(tokens), -1, -1, -1)


def stand_in(heads, *sizes):
    """Make a stage with a tokenizer per size, and the arguments of its modules."""
    tokenizers, transformer = [StandInTokenizer() for _ in sizes], StandInTransformer(heads)
    arguments = {t: (torch.zeros(1, h * w, 5), (h, w), None) for t, (h, w) in zip(tokenizers, sizes, strict=True)}
    arguments[transformer] = (torch.zeros(1, 2 * len(sizes), 5),)
    names = tuple(f"level {i}" for i, _ in enumerate(sizes))
    return token_attention.TokenStage(names, tuple(tokenizers), transformer), arguments


def photo(path: Path, width: int = 70, height: int = 50) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(width).integers(0, 256, (height // 5, width // 5, 3), np.uint8)
    Image.fromarray(noise).resize((width, height)).save(path)
    return path


def command(fixture, tmp_path: Path, *overrides: str):
    """Configure `mode=explain` on a folder of images, and save random weights for it."""
    kept = [override for override in overrides if override.startswith("model")]
    cfg, file = fixture(*kept), tmp_path / "weights.safetensors"
    classes = DIGITS if cfg.task["_target_"].endswith("Classification") else SCENES
    weights.save(
        file, build(cfg.model, "model", num_classes=len(classes)), {"classes": classes, "config": cfg.everything}
    )
    return fixture("mode=explain", f"input={tmp_path}/in", f"weights.file={file}", *overrides)


def test_the_entropy_of_a_uniform_map_is_ln_hw_and_of_one_pixel_0():
    one_pixel = torch.zeros(5, 7)
    one_pixel[2, 3] = 1
    found = token_attention.entropy(torch.stack([torch.full((5, 7), 1 / 35), one_pixel]))
    assert found.tolist() == pytest.approx([math.log(35), 0.0], abs=1e-6)


def test_numbers_say_where_each_token_looks_most_and_how_widely():
    stage, arguments = stand_in(torch.eye(2).expand(2, 2, 2), (4, 6))
    [part] = token_attention.compute_stage_attention(stage, arguments)
    said = token_attention.summarize(part)
    assert (said["name"], said["size"]) == ("level 0", [4, 6])
    assert said["uniform_entropy"] == pytest.approx(math.log(24))
    assert said["tokens"][1] == {"entropy": pytest.approx(0.0, abs=1e-6), "peak": [1, 2]}
    assert said["tokens"][0]["entropy"] == pytest.approx(math.log(24))
    assert said["mean_entropy"] == pytest.approx(math.log(24) / 2)


def test_interaction_is_the_mean_over_heads_of_what_tokens_take_times_where_those_look():
    heads = torch.rand(2, 2, 2).softmax(dim=2)
    stage, arguments = stand_in(heads, (4, 6))
    [part] = token_attention.compute_stage_attention(stage, arguments)
    mixing, (everywhere, pixel) = heads.mean(dim=0).double(), part.attention
    for token in range(2):
        expected = mixing[token, 0] * everywhere + mixing[token, 1] * pixel
        torch.testing.assert_close(part.interaction[token], expected)


def test_interaction_runs_over_the_tokens_of_all_levels_at_the_largest_size():
    heads = torch.rand(2, 4, 4).softmax(dim=2)
    stage, arguments = stand_in(heads, (8, 12), (4, 6))
    fine, coarse = token_attention.compute_stage_attention(stage, arguments)
    assert coarse.attention.shape == (2, 4, 6)
    mixing, uniform = heads.mean(dim=0).double(), torch.full((8, 12), 1 / 96).double()
    blurred = nn.functional.interpolate(coarse.attention[None, 1:], size=(8, 12), mode="bilinear")[0, 0]
    maps = [uniform, fine.attention[1], uniform, blurred / blurred.sum()]
    for token, found in enumerate([*fine.interaction, *coarse.interaction]):
        expected = sum(mixing[token, other] * maps[other] for other in range(4))
        torch.testing.assert_close(found, expected)
        assert found.sum().item() == pytest.approx(1)


def test_a_resized_map_keeps_its_mass_even_at_the_border():
    corner = torch.zeros(1, 3, 3)
    corner[0, 0, 0] = 0.7
    assert token_attention.resize_density(corner, 11, 8).sum().item() == pytest.approx(0.7)


@pytest.mark.parametrize("mixer", [nn.Identity(), nn.Linear(5, 5)])
def test_tokens_that_no_transformer_mixes_have_no_interaction(mixer):
    stage, arguments = stand_in(torch.eye(2).expand(1, 2, 2), (4, 6))
    stage = token_attention.TokenStage(stage.names, stage.tokenizers, mixer)
    [part] = token_attention.compute_stage_attention(stage, arguments)
    assert part.interaction is None
    assert part.attention.shape == (2, 4, 6)


def test_hooks_leave_no_trace_even_after_an_error():
    layer = nn.Linear(3, 3)
    x = torch.randn(2, 3)
    before = layer(x)
    with token_attention.record_arguments([layer]) as kept:
        assert torch.equal(layer(x), before)
        assert kept[layer][0] is x
    assert not layer._forward_pre_hooks
    with pytest.raises(ZeroDivisionError), token_attention.record_arguments([layer]):
        1 / 0  # noqa: B018
    assert not layer._forward_pre_hooks


def test_every_module_of_a_vt_resnet_is_explained_on_the_image_that_the_model_sees(tiny, tmp_path):
    photo(tmp_path / "in/a.png")
    cfg = command(tiny, tmp_path, "model.tokens=3", "model.modules=3")
    explain.run(cfg, tmp_path / "run")
    [said] = json.loads((tmp_path / "run/explain/explain.json").read_text())
    assert [part["name"] for part in said["parts"]] == ["module 1", "module 2", "module 3"]
    for part in said["parts"]:
        assert part["size"] == [2, 2]  # 32 pixels at stride 16
        assert len(part["tokens"]) == 3
        assert 0 < part["mean_entropy"] <= part["uniform_entropy"] + 1e-6
    assert said["predicted"]["name"] in DIGITS
    assert Image.open(tmp_path / "run/explain" / said["picture"]).format == "PNG"


def test_attention_is_that_of_the_forward_pass_and_the_forward_pass_is_unchanged(tiny, tmp_path, monkeypatch):
    trained = Predictor.build(command(tiny, tmp_path, "model.tokens=3"), tmp_path)
    image, used = torch.randn(3, 32, 32), []
    with monkeypatch.context() as watched:
        for module in trained.model.vt:
            usual = module.tokenizer.attention
            watched.setattr(module.tokenizer, "attention", lambda *given, of=usual: used.append(of(*given)) or used[-1])
        before = trained.compute_logits(image[None])[0]
    logits, found = token_attention.compute_token_attention(
        trained.compute_logits, token_attention.find_token_stages(trained.model), image[None]
    )
    assert torch.equal(logits, before)
    assert not any(module._forward_pre_hooks for module in trained.model.modules())
    for part, expected in zip(found, used, strict=True):
        torch.testing.assert_close(part.attention.flatten(1), expected[0].T.double())
        torch.testing.assert_close(part.interaction.sum(dim=(1, 2)), torch.ones(3).double(), rtol=1e-5, atol=0)


def test_every_level_of_a_vt_fpn_is_explained_at_any_image_size(tiny_scenes, tmp_path):
    photo(tmp_path / "in/a.png"), photo(tmp_path / "in/b/a.png", 90, 20)
    explain.run(command(tiny_scenes, tmp_path, "model.tokens=2"), tmp_path / "run")
    listed = json.loads((tmp_path / "run/explain/explain.json").read_text())
    assert [one["picture"] for one in listed] == ["a.png", "b/a.png"]
    sizes = [[13, 18], [7, 9], [4, 5], [2, 3]], [[8, 23], [4, 12], [2, 6], [1, 3]]
    for one, expected in zip(listed, sizes, strict=True):
        assert "predicted" not in one
        assert [part["name"] for part in one["parts"]] == [f"level c{i}" for i in (2, 3, 4, 5)]
        assert [part["size"] for part in one["parts"]] == expected
        assert (tmp_path / "run/explain" / one["picture"]).is_file()


def test_sheets_of_an_earlier_command_do_not_stay_beside_new_ones(tiny, tmp_path):
    photo(tmp_path / "in/a.png"), photo(tmp_path / "in/b/a.png", 90, 20)
    cfg = command(tiny, tmp_path, "model.tokens=2")
    explain.run(cfg, tmp_path / "run")
    kept = tmp_path / "run/explain/mine.png"
    kept.write_bytes(b"not of this mode")
    (tmp_path / "in/b/a.png").unlink()
    explain.run(cfg, tmp_path / "run")
    left = sorted(path.relative_to(kept.parent).as_posix() for path in kept.parent.rglob("*.*"))
    assert left == ["a.png", "explain.json", "mine.png"]


@pytest.mark.parametrize("said", [None, "", "[", "5", '[{"file": "a"}]', '[{"picture": "../outside.png"}]'])
def test_only_sheets_that_are_named_in_the_folder_are_an_earlier_command_s(tmp_path, said):
    photo(tmp_path / "outside.png"), photo(tmp_path / "explain/mine.png")
    if said is not None:
        (tmp_path / "explain/explain.json").write_text(said)
    assert explain.list_previous_figures(tmp_path / "explain") == []


def test_the_colours_of_a_nearly_uniform_map_are_not_stretched():
    uniform = np.full((6, 6), 1 / 36)
    nearly = uniform + np.linspace(-1e-6, 1e-6, 36).reshape(6, 6)
    for heat in (uniform, nearly):
        assert image_plots.get_colour_range(heat) == pytest.approx((0, 2 / 36), abs=1e-12)


def test_the_colours_of_a_map_with_a_peak_range_over_its_own_values():
    peaked = np.full((6, 6), 0.01)
    peaked[2, 3] = 0.65
    assert image_plots.get_colour_range(peaked) == (0.01, 0.65)


def test_a_model_without_visual_tokens_is_refused(tiny, tmp_path, monkeypatch):
    photo(tmp_path / "in/a.png")
    monkeypatch.setattr(explain, "find_token_stages", lambda model: [])
    with pytest.raises(RunError, match="VTResNet has none"):
        explain.run(command(tiny, tmp_path), tmp_path / "run")


@pytest.mark.parametrize("model", [resnet18(num_classes=3), panoptic_fpn(num_classes=3, backbone="resnet18")])
def test_a_model_without_visual_tokens_has_no_stages(model):
    assert token_attention.find_token_stages(model) == []


def test_unreadable_files_are_skipped_and_said_when_the_others_are_done(tiny, tmp_path):
    photo(tmp_path / "in/b.png")
    (tmp_path / "in/a.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"1 of 2 files was skipped, the others are done:(.|\n)*a\.png"):
        explain.run(command(tiny, tmp_path, "model.tokens=2"), tmp_path / "run")
    [said] = json.loads((tmp_path / "run/explain/explain.json").read_text())
    assert said["file"].endswith("b.png")
