"""Loading weight files into models, and the messages about those that do not fit."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torchvision
from tests.support.weight_files import CLASSES, Tiny, assert_same, copy_state, make_config, make_file
from torch import Tensor, nn
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops import FrozenBatchNorm2d

from visual_transformers.checkpoints import weights
from visual_transformers.checkpoints.compatibility import LoadReport
from visual_transformers.checkpoints.loading import load_weights
from visual_transformers.checkpoints.weights import WeightFile
from visual_transformers.data.imagenet_classes import load_class_names
from visual_transformers.errors import WeightsError
from visual_transformers.models import panoptic_fpn, resnet18, vt_fpn, vt_resnet18

IDS, WORDS = list(load_class_names()), list(load_class_names().values())


def load(model: nn.Module, source: nn.Module | WeightFile, *, backbone_only: bool = False) -> LoadReport:
    file = make_file(source) if isinstance(source, nn.Module) else source
    return load_weights(model, file, backbone_only=backbone_only, classes=CLASSES)


@pytest.mark.parametrize("metadata", [{}, {"classes": CLASSES}], ids=["no classes", "classes"])
def test_all_tensors_are_loaded_and_counted(metadata: dict[str, list[str]]) -> None:
    source, model = Tiny(), Tiny()
    nn.init.uniform_(source.norm.running_mean)
    report = load(model, make_file(source, **metadata))
    assert_same(copy_state(model), copy_state(source))
    assert str(report) == "loaded 9 tensors from given.pt"


def test_only_the_backbone_is_loaded_if_asked_for_and_the_rest_is_reported() -> None:
    source, model = Tiny(), Tiny()
    before, file = copy_state(model), make_file(source)
    file.tensors |= {f"out.{i}.{kind}": torch.ones(1) for i in range(7) for kind in ("weight", "bias")}
    report = load(model, file, backbone_only=True)
    expected = {n: before[n] if n.startswith("fc.") else tensor for n, tensor in copy_state(source).items()}
    assert_same(copy_state(model), expected)
    assert report.not_loaded == ["fc.weight", "fc.bias"]
    assert str(report).splitlines() == [
        "loaded 7 tensors from given.pt",
        "  2 of the model keep their initial values: fc.weight, fc.bias",
        "  16 of the file are left out: fc.weight, fc.bias, out.0.* (2), out.1.* (2), out.2.* (2), ...",
    ]


def test_an_unused_optimizer_state_is_reported(tmp_path: Path) -> None:
    content = {"model_state_dict": Tiny().state_dict(), "optimizer_state_dict": {}, "epoch": 3}
    torch.save(content, tmp_path / "model.pt")
    report = load(Tiny(), weights.read(tmp_path / "model.pt"))
    assert str(report).splitlines()[1:] == ["  its optimizer state is not used"]


@pytest.mark.parametrize("frozen", [True, False], ids=["without counters", "with counters"])
def test_a_missing_batch_counter_is_no_difference(frozen: bool) -> None:
    file, model = make_file(Tiny()), Tiny()
    if frozen:
        del file.tensors["norm.num_batches_tracked"]
    report = load(model, file)
    assert (len(report.loaded), report.not_loaded) == (9 - frozen, [])
    assert_same({"x": model.norm.running_var}, {"x": file.tensors["norm.running_var"]})


@pytest.mark.parametrize("has_head", [True, False])
def test_the_backbone_is_loaded_from_a_model_with_another_head_or_none(has_head: bool) -> None:
    source, model = Tiny(classes=7), Tiny()
    file = make_file(source, classes=list("abcdefg"))
    file.tensors = {n: tensor for n, tensor in file.tensors.items() if has_head or not n.startswith("fc.")}
    load(model, file, backbone_only=True)
    assert_same(copy_state(model.body), copy_state(source.body))


SMALL_FPN = {"backbone": "resnet18", "pyramid_channels": 32, "branch_channels": 32}
SMALL_VT = {"tokens": 2, "token_channels": 16}
MODELS: dict[str, tuple[Callable[[int], nn.Module], tuple[str, ...]]] = {
    "resnet18": (lambda classes: resnet18(num_classes=classes), ("fc.",)),
    "vt_resnet18": (lambda classes: vt_resnet18(num_classes=classes, **SMALL_VT), ("vt.", "fc.")),
    "panoptic_fpn": (lambda classes: panoptic_fpn(num_classes=classes, **SMALL_FPN), ("pyramid.", "branch.")),
    "vt_fpn": (lambda classes: vt_fpn(num_classes=classes, **SMALL_FPN, **SMALL_VT), ("pyramid.", "branch.")),
}


@pytest.mark.parametrize("name", MODELS)
def test_backbone_of_every_model_is_all_but_its_head(name: str) -> None:
    build, head = MODELS[name]
    source, model = build(4), build(3)
    for tensor in (*source.parameters(), *source.buffers()):
        tensor.data.fill_(1)
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data.zero_()
    load(model, source, backbone_only=True)
    loaded = {name for name, tensor in model.state_dict().items() if tensor.all()}
    untouched = {name for name, tensor in model.state_dict().items() if not tensor.any()}
    assert untouched == {name for name in model.state_dict() if name.startswith(head)}
    assert loaded | untouched == set(model.state_dict())


@pytest.mark.parametrize("name", MODELS)
def test_every_models_weights_survive_a_file(tmp_path: Path, name: str) -> None:
    build, _ = MODELS[name]
    source, model = build(3), build(3)
    weights.save(tmp_path / "model.safetensors", source, {"classes": CLASSES})
    load(model, weights.read(tmp_path / "model.safetensors"))
    assert_same(copy_state(model), copy_state(source))


@pytest.mark.parametrize("name", ["vt_resnet18", "panoptic_fpn", "vt_fpn"])
def test_backbone_loads_from_torchvisions_resnet(name: str) -> None:
    source, model = torchvision.models.resnet18(), MODELS[name][0](3)
    load(model, source, backbone_only=True)
    loaded = copy_state(model.backbone)
    assert_same(loaded, {n: t for n, t in copy_state(source).items() if n in loaded})


def with_random_numbers(model: nn.Module) -> nn.Module:
    """In evaluation mode, with statistics and affine parameters of batch norm that a mix-up would show."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d | FrozenBatchNorm2d):
            module.weight.data.uniform_(0.5, 1)
            module.bias.data.normal_(0, 0.3)
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
    return model.eval()


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50", "resnet101"])
@torch.inference_mode()
def test_a_resnets_file_gives_torchvisions_feature_maps(tmp_path: Path, name: str) -> None:
    theirs = with_random_numbers(getattr(torchvision.models, name)())
    torch.save(theirs.state_dict(), tmp_path / "resnet.pth")
    model = panoptic_fpn(num_classes=3, backbone=name).eval()
    load(model, weights.read(tmp_path / "resnet.pth"), backbone_only=True)
    images = torch.randn(1, 3, 64, 96)
    x = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(images))))
    for actual, stage in zip(model.backbone(images).values(), ("layer1", "layer2", "layer3", "layer4"), strict=True):
        x = theirs.get_submodule(stage)(x)
        torch.testing.assert_close(actual, x, rtol=1e-6, atol=1e-6)


def detector() -> nn.Module:
    """torchvision's ResNet-50 with a feature pyramid, as in its detectors' files: frozen batch norms, no counts."""
    backbone = resnet_fpn_backbone(backbone_name="resnet50", weights=None, norm_layer=FrozenBatchNorm2d)
    return with_random_numbers(nn.ModuleDict({"backbone": backbone, "rpn": nn.Linear(2, 2)}))


def as_before_0_13(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {re.sub(r"(_blocks\.\d)\.0\.", r"\1.", name): tensor for name, tensor in tensors.items()}


@pytest.mark.parametrize("form", [dict, as_before_0_13])
@torch.inference_mode()
def test_a_detectors_file_gives_torchvisions_pyramid(
    tmp_path: Path, form: Callable[[dict[str, Tensor]], dict[str, Tensor]]
) -> None:
    theirs, model = detector(), panoptic_fpn(num_classes=3)
    torch.save(form(theirs.state_dict()), tmp_path / "detector.pth")
    report = load(model, weights.read(tmp_path / "detector.pth"), backbone_only=True)
    assert report.unused == ["rpn.weight", "rpn.bias"]
    images = torch.randn(1, 3, 64, 96, dtype=torch.float64)  # torchvision's frozen batch norms round differently
    theirs, model = theirs.double(), model.double().eval()
    expected = list(theirs["backbone"](images).values())[:4]
    for p, e in zip(model.pyramid(list(model.backbone(images).values())), expected, strict=True):
        torch.testing.assert_close(p, e, rtol=1e-6, atol=1e-6)


def test_a_detectors_pyramid_of_other_channels_is_left_out() -> None:
    source, model = detector(), panoptic_fpn(num_classes=3, pyramid_channels=32)
    before = copy_state(model.pyramid)
    report = load(model, source, backbone_only=True)
    assert_same(copy_state(model.pyramid), before)
    assert "pyramid.fpn.* (16)" in str(report)


def test_a_detectors_backbone_goes_into_a_token_pyramid_alone() -> None:
    source, model = detector(), vt_fpn(num_classes=3, token_channels=16)
    report = load(model, source, backbone_only=True)
    assert torch.equal(model.backbone.layer4[2].conv3.weight, source["backbone"].body.layer4[2].conv3.weight)
    assert "pyramid.fpn.* (16)" in str(report)


@pytest.mark.parametrize(
    ("name", "build"),
    [("resnet18", vt_resnet18), ("vt_resnet18", vt_resnet18), ("panoptic_fpn", panoptic_fpn), ("vt_fpn", vt_fpn)],
)
def test_a_reference_file_into_another_model_is_refused_with_the_model_to_choose(
    seed_net: Callable[..., nn.Module], name: str, build: Callable[..., nn.Module]
) -> None:
    refusal = get_refusal(build(num_classes=10), make_file(seed_net(name)), classes=list("abcdefghij"))
    assert f"\nthis file of the reference implementation is for model=seed_{name}\n" in refusal


@torch.inference_mode()
def test_a_reference_files_backbone_gives_its_feature_maps(seed_net: Callable[..., nn.Module]) -> None:
    net, model = seed_net("vt_fpn").double(), panoptic_fpn(num_classes=3).double().eval()
    load(model, net, backbone_only=True)
    images = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    for actual, expected in zip(model.backbone(images).values(), net.backbone(images), strict=True):
        torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("kind", ["reference", "bare", "published"])
def test_bottlenecks_with_another_stride_are_refused(seed_net: Callable[..., nn.Module], kind: str) -> None:
    """A bare ResNet is taken for torchvision's."""
    model = panoptic_fpn(num_classes=3, stride_in_1x1=True)
    file = make_file(seed_net("vt_fpn") if kind == "reference" else torchvision.models.resnet50())
    before = copy_state(model)
    if kind == "published":
        file.path = Path("torchvision:ResNet50_Weights.IMAGENET1K_V2")
    refusal = get_refusal(model, file, backbone_only=True)
    named = "this kind" if kind == "reference" else "bare ResNets"
    assert f"bottlenecks of {named} have the stride in the 3x3 convolution" in refusal
    assert refusal.endswith("Set model.stride_in_1x1=false")
    assert_same(copy_state(model), before)


@pytest.mark.parametrize("stride_in_1x1", [False, True])
def test_a_bare_state_dict_of_our_own_segmenter_is_loaded(stride_in_1x1: bool) -> None:
    source, model = (panoptic_fpn(num_classes=3, stride_in_1x1=stride_in_1x1) for _ in range(2))
    report = load(model, source)
    assert "stride" not in str(report)
    assert_same(copy_state(model), copy_state(source))


@pytest.mark.parametrize("in_model", [False, True])
@pytest.mark.parametrize("in_file", [False, True])
def test_a_file_of_a_run_brings_a_note_only_if_its_strides_differ(in_file: bool, in_model: bool) -> None:
    model = panoptic_fpn(num_classes=3, stride_in_1x1=in_model)
    notes = load(model, make_file(model, config=make_config(stride_in_1x1=in_file))).notes
    places = ("the 3x3 convolution", "the first 1x1 convolution")
    expected = f"its bottlenecks have the stride in {places[in_file]}, the model's in {places[in_model]}"
    assert notes == ([expected] if in_file != in_model else [])


def test_basic_blocks_bring_no_hint_about_strides() -> None:
    model = panoptic_fpn(num_classes=3, backbone="resnet18", stride_in_1x1=True)
    report = load(model, make_file(torchvision.models.resnet18()), backbone_only=True)
    assert "stride" not in str(report)


@pytest.mark.parametrize("auxiliary", [False, True])
def test_a_backbone_of_torchvisions_segmenters_brings_a_note_that_it_is_dilated(auxiliary: bool) -> None:
    with torch.device("meta"):
        theirs = torchvision.models.segmentation.fcn_resnet50(
            weights=None, weights_backbone=None, aux_loss=auxiliary, num_classes=3
        )
    theirs.to_empty(device="cpu")
    loaded = load(panoptic_fpn(num_classes=3), make_file(theirs), backbone_only=True)
    assert any("dilated" in note for note in loaded.notes)


def test_an_fpn_of_ours_brings_no_note_that_it_is_dilated() -> None:
    model = panoptic_fpn(num_classes=3, backbone="resnet18")
    assert load(model, model, backbone_only=True).notes == []


def test_resnet_loads_the_backbone_of_an_fpn() -> None:
    source, model = MODELS["panoptic_fpn"][0](3), resnet18(num_classes=3)
    load(model, source, backbone_only=True)
    assert_same({n: t for n, t in copy_state(model).items() if not n.startswith("fc.")}, copy_state(source.backbone))


def test_fpn_refuses_the_backbone_of_a_vt_resnet_which_lacks_layer4() -> None:
    source, model = MODELS["vt_resnet18"][0](3), MODELS["panoptic_fpn"][0](3)
    refusal = get_refusal(model, make_file(source), backbone_only=True)
    assert "missing from the file: backbone.layer4.0.conv1.weight," in refusal


# Weights that do not fit


def other_model() -> nn.Module:
    model = Tiny()
    model.other = nn.Linear(2, 2)
    del model.norm
    return model


def get_refusal(
    model: nn.Module, file: WeightFile, *, backbone_only: bool = False, classes: list[str] | None = None
) -> str:
    with pytest.raises(WeightsError) as caught:
        load_weights(model, file, backbone_only=backbone_only, classes=classes or CLASSES)
    return str(caught.value)


def test_a_wrong_model_is_refused_with_the_differences_and_without_a_hint_that_would_fail() -> None:
    refusal = get_refusal(Tiny(), make_file(other_model()))
    names = "norm.weight, norm.bias, norm.running_mean, norm.running_var"
    assert f"do not fit Tiny\n  4 missing from the file: {names}\n" in refusal
    assert "\n  2 not in the model: other.weight, other.bias" in refusal
    assert "weights.backbone_only=true" not in refusal


def test_another_head_is_refused_with_the_hint_to_load_the_backbone() -> None:
    file = make_file(Tiny())
    file.tensors = {name.replace("fc.", "out."): tensor for name, tensor in file.tensors.items()}
    refusal = get_refusal(Tiny(), file)
    assert "missing from the file: fc.weight, fc.bias\n" in refusal
    assert refusal.endswith("\nto train from it, weights.backbone_only=true loads only the layers before the head")


def test_a_wrong_backbone_is_refused_without_that_hint() -> None:
    refusal = get_refusal(Tiny(), make_file(other_model()), backbone_only=True)
    assert "missing from the file" in refusal
    assert "weights.backbone_only=true" not in refusal


def test_long_lists_of_names_are_cut_after_five() -> None:
    refusal = get_refusal(Tiny(), WeightFile(Path("x"), {"a": torch.ones(1)}))
    assert re.search(r"  8 missing from the file: (\S+, ){5}\.\.\.\n", refusal)


def test_other_shape_is_refused_with_both_shapes() -> None:
    file = make_file(Tiny())
    file.tensors["body.weight"] = torch.zeros(5, 8)
    assert "1 of another shape: body.weight (5, 8) in the file, (5, 4) in the model" in get_refusal(Tiny(), file)


def test_other_class_count_is_refused_with_both_shapes_of_the_head() -> None:
    refusal = get_refusal(Tiny(), make_file(Tiny(classes=7)))
    assert "fc.weight (7, 5) in the file, (3, 5) in the model, fc.bias (7,) in the file, (3,) in the model" in refusal
    assert "to train from it, weights.backbone_only=true loads" in refusal


def test_other_class_count_is_refused_with_both_counts_where_the_file_names_its_classes() -> None:
    refusal = get_refusal(Tiny(), make_file(Tiny(classes=2), classes=["oak", "elm"]))
    assert "trained for 2 classes (oak, elm), the data set has 3 (cat, dog, fox); to train from it, " in refusal
    assert "weights.backbone_only=true" in refusal


@pytest.mark.parametrize("theirs", [["cat", "dog", "owl"], ["dog", "cat", "fox"]], ids=["other name", "other order"])
def test_other_class_names_are_refused_with_both_lists(theirs: list[str]) -> None:
    refusal = get_refusal(Tiny(), make_file(Tiny(), classes=theirs))
    assert f"trained for 3 classes ({', '.join(theirs)}), the data set has 3 (cat, dog, fox)" in refusal


def test_other_class_names_are_refused_with_the_place_where_a_long_list_differs() -> None:
    ours = [f"class {i}" for i in range(20)]
    theirs = [*ours[:17], "owl", *ours[18:]]
    refusal = get_refusal(Tiny(20), make_file(Tiny(20), classes=theirs), classes=ours)
    assert "first different at index 17: 'owl' in the file, 'class 17' in the data set" in refusal


@pytest.mark.parametrize("ours", [IDS, WORDS], ids=["ids", "words"])
@pytest.mark.parametrize("theirs", [IDS, WORDS], ids=["ids in the file", "words in the file"])
def test_imagenets_ids_and_their_words_are_the_same_classes(ours: list[str], theirs: list[str]) -> None:
    file = make_file(Tiny(3), classes=theirs[:3])
    assert file.metadata["classes"] == WORDS[:3]
    assert "classes" not in str(load_weights(Tiny(3), file, backbone_only=False, classes=ours[:3]))


@pytest.mark.parametrize("ours", [IDS, WORDS], ids=["ids", "words"])
def test_all_of_imagenet_is_taken_for_another_publishers_words_in_the_same_order(ours: list[str]) -> None:
    theirs = [f"thing {i}" for i in range(1000)]
    report = load_weights(Tiny(1000), make_file(Tiny(1000), classes=theirs), backbone_only=False, classes=ours)
    assert "order of ImageNet's ids: 'tench' is 'thing 0'" in str(report)


@pytest.mark.parametrize(
    ("theirs", "ours"), [([f"thing {i}" for i in range(1000)], IDS[::-1]), (IDS[::-1], IDS)], ids=["ours", "theirs"]
)
def test_imagenet_in_another_order_is_refused(theirs: list[str], ours: list[str]) -> None:
    refusal = get_refusal(Tiny(1000), make_file(Tiny(1000), classes=theirs), classes=ours)
    assert "trained for 1000 classes" in refusal


@pytest.mark.parametrize("backbone_only", [False, True])
def test_refused_weights_change_nothing(backbone_only: bool) -> None:
    model, file = Tiny(), make_file(Tiny())
    before = copy_state(model)
    file.tensors["norm.weight"] = torch.zeros(6)
    get_refusal(model, file, backbone_only=backbone_only)
    assert_same(copy_state(model), before)


def test_backbone_of_a_model_that_names_no_head_is_all_but_its_fc() -> None:
    source, model = torchvision.models.resnet18(num_classes=4), torchvision.models.resnet18(num_classes=3)
    before = copy_state(model.fc)
    load(model, source, backbone_only=True)
    assert_same(copy_state(model.layer4), copy_state(source.layer4))
    assert_same(copy_state(model.fc), before)
