import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
import torchvision
from safetensors import safe_open
from torch import Tensor, nn
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops import FrozenBatchNorm2d

from visual_transformers.checkpoints import weights
from visual_transformers.checkpoints.weights import WeightFile
from visual_transformers.data.imagenet_classes import words
from visual_transformers.errors import WeightsError
from visual_transformers.models import panoptic_fpn, resnet18, vt_fpn, vt_resnet18

CLASSES = ["cat", "dog", "fox"]
IDS, WORDS = list(words()), list(words().values())


class Tiny(nn.Module):
    head: ClassVar[tuple[str, ...]] = ("fc.",)

    def __init__(self, classes: int = 3):
        super().__init__()
        self.body = nn.Linear(4, 5)
        self.norm = nn.BatchNorm1d(5)
        self.fc = nn.Linear(5, classes)


def state(module: nn.Module) -> dict[str, Tensor]:
    """A copy of the state dict that training or loading does not change."""
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def assert_same(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert actual.keys() == expected.keys()
    assert [name for name in expected if not torch.equal(actual[name], expected[name])] == []


def given(module: nn.Module, **about: Any) -> WeightFile:
    return WeightFile(Path("given.pt"), state(module), about)


# Files


def config(**model: object) -> dict[str, Any]:
    """A run's configuration, as far as anything looks at it."""
    return {"name": "run", "task": {"_target_": "t"}, "model": {"_target_": "m", **model}, "data": {"_target_": "d"}}


def test_saved_tensors_are_read_back(tmp_path: Path) -> None:
    model, path = Tiny(), tmp_path / "model.safetensors"
    weights.save(path, model, {})
    assert_same(weights.read(path).tensors, state(model))


def test_saved_metadata_is_read_back(tmp_path: Path) -> None:
    about = {"classes": ["cat", "Hund", "狐"], "config": config(tokens=8), "best": 0.5}
    weights.save(tmp_path / "model.safetensors", Tiny(), about)
    assert weights.read(tmp_path / "model.safetensors").about == about


@pytest.mark.parametrize(
    "foreign", [{"lr": 0.1}, ["lr"], "resnet50", {**config(), "model": "resnet50"}, {**config(), "name": None}]
)
def test_a_configuration_of_another_program_is_not_taken_for_ours(tmp_path: Path, foreign: object) -> None:
    torch.save({"model": Tiny().state_dict(), "config": foreign}, tmp_path / "model.pt")
    assert weights.read(tmp_path / "model.pt").about == {}


@pytest.mark.parametrize("name", ["model.safetensors", "model.pt"])
def test_what_a_file_says_can_be_read_alone(tmp_path: Path, name: str) -> None:
    path, about = tmp_path / name, {"classes": ["cat"], "config": config(tokens=8)}
    if path.suffix == ".pt":
        torch.save({"model": Tiny().state_dict(), **about}, path)
    else:
        weights.save(path, Tiny(), about)
    assert weights.read_about(path) == weights.read(path).about == about


@pytest.mark.parametrize("zipped", [True, False])
def test_what_a_file_of_torchs_says_is_read_without_its_tensors_where_the_format_allows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zipped: bool
) -> None:
    content, mapped = {"model": Tiny().state_dict(), "classes": CLASSES}, []
    torch.save(content, tmp_path / "model.pt", _use_new_zipfile_serialization=zipped)
    load = torch.load
    monkeypatch.setattr(
        torch, "load", lambda *given, **options: mapped.append(options["mmap"]) or load(*given, **options)
    )
    assert weights.read_about(tmp_path / "model.pt") == {"classes": CLASSES}
    assert mapped == [zipped]


def test_saved_file_is_plain_safetensors(tmp_path: Path) -> None:
    model = Tiny()
    weights.save(tmp_path / "model.safetensors", model, {"classes": CLASSES})
    with safe_open(tmp_path / "model.safetensors", "pt") as opened:
        assert set(opened.keys()) == set(model.state_dict())
        assert opened.metadata() == {"classes": '["cat", "dog", "fox"]'}


def test_saving_replaces_a_file_and_leaves_nothing_else(tmp_path: Path) -> None:
    first, second = Tiny(), Tiny()
    for model in (first, second):
        weights.save(tmp_path / "model.safetensors", model, {})
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]
    assert_same(weights.read(tmp_path / "model.safetensors").tensors, state(second))


def test_failed_save_keeps_the_file_before(tmp_path: Path) -> None:
    model, path = Tiny(), tmp_path / "model.safetensors"
    weights.save(path, model, {})
    with pytest.raises(TypeError):
        weights.save(path, Tiny(), {"classes": {1, 2}})  # a set is not JSON
    assert_same(weights.read(path).tensors, state(model))


def test_bare_state_dict_of_torch_is_read(tmp_path: Path) -> None:
    model = Tiny()
    torch.save(model.state_dict(), tmp_path / "model.pt")
    assert_same(weights.read(tmp_path / "model.pt").tensors, state(model))


def test_checkpoint_with_key_model_is_read(tmp_path: Path) -> None:
    model = Tiny()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    torch.save(
        {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "classes": CLASSES, "step": 7},
        tmp_path / "checkpoint.pt",
    )
    read = weights.read(tmp_path / "checkpoint.pt")
    assert_same(read.tensors, state(model))
    assert read.about == {"classes": CLASSES}


def test_path_may_be_a_string(tmp_path: Path) -> None:
    weights.save(tmp_path / "model.safetensors", Tiny(), {})
    assert weights.read(str(tmp_path / "model.safetensors")).path == tmp_path / "model.safetensors"


def test_folder_is_refused_as_one(tmp_path: Path) -> None:
    with pytest.raises(
        WeightsError, match=re.escape(f"weights={tmp_path}: is no folder of a run that has best weights")
    ):
        weights.read(tmp_path)


@pytest.mark.parametrize("name", ["absent.pt", "absent.safetensors"])
def test_missing_file_is_refused_with_its_path(tmp_path: Path, name: str) -> None:
    with pytest.raises(WeightsError, match=re.escape(f"weights={tmp_path / name}: no such file")):
        weights.read(tmp_path / name)


NO_WEIGHT_FILE = re.escape("is no weight file (safetensors, or a state_dict saved by torch.save), or a damaged one")


def as_safetensors(path: Path) -> None:
    weights.save(path, Tiny(), {})


def as_zip(path: Path) -> None:
    torch.save(Tiny().state_dict(), path)


def as_legacy(path: Path) -> None:
    torch.save(Tiny().state_dict(), path, _use_new_zipfile_serialization=False)


@pytest.mark.parametrize("kept", [0.0, 0.01, 0.1, 0.5, 0.9])
@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("model.safetensors", as_safetensors),
        ("model.pt", as_zip),
    ],
)
def test_truncated_file_is_refused_as_damaged(
    tmp_path: Path, name: str, write: Callable[[Path], None], kept: float
) -> None:
    path = tmp_path / name
    write(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(WeightsError, match=rf"weights={re.escape(str(path))}: {NO_WEIGHT_FILE}"):
        weights.read(path)


def test_file_of_torchs_old_format_truncated_anywhere_is_refused_as_damaged(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    as_legacy(path)
    content = path.read_bytes()
    for end in range(0, len(content), 7):
        path.write_bytes(content[:end])
        with pytest.raises(WeightsError, match=NO_WEIGHT_FILE):
            weights.read(path)


@pytest.mark.parametrize("name", ["model.pt", "photo.jpg", "model.safetensors"])
@pytest.mark.parametrize(
    "content",
    [b"<!DOCTYPE html>\n", b"version https://git-lfs.github.com/\n", b"hello\n", b"\xff\xd8\xff\xe0\0\x10JFIF"],
)
def test_file_of_another_kind_is_refused_without_advice_to_run_it(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=rf"^weights={re.escape(str(tmp_path / name))}: {NO_WEIGHT_FILE}$"):
        weights.read(tmp_path / name)


class Touch:
    """Unpickling this creates a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.path,)


def test_code_in_a_pickle_would_run_where_nothing_refuses_it(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps({"a": Touch(tmp_path / "ran")}))
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "write",
    [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content, protocol=2))],
    ids=["torch", "pickle"],
)
def test_pickle_with_code_is_refused_and_not_run(tmp_path: Path, write: Callable[[Any, Path], object]) -> None:
    write({"body.weight": torch.ones(1), "more": Touch(tmp_path / "ran")}, tmp_path / "model.pt")
    with pytest.raises(WeightsError, match=NO_WEIGHT_FILE):
        weights.read(tmp_path / "model.pt")
    assert not (tmp_path / "ran").exists()


def test_pickled_model_is_refused(tmp_path: Path) -> None:
    torch.save(Tiny(), tmp_path / "model.pt")
    with pytest.raises(WeightsError, match=r"contains a \S+\.Tiny object next to the weights"):
        weights.read(tmp_path / "model.pt")


@pytest.mark.parametrize(
    "content", [torch.ones(2), [torch.ones(2)], {}, {"model": {}}, {"a": 1}, {"model": torch.ones(2), "b": 1}]
)
def test_file_without_a_state_dict_is_refused(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "model.pt")
    with pytest.raises(WeightsError, match="holds no state dict, neither bare nor under the key 'model'"):
        weights.read(tmp_path / "model.pt")


@pytest.mark.parametrize("key", ["model", "model_state_dict", "state_dict"])
def test_checkpoints_of_other_programs_are_read(tmp_path: Path, key: str) -> None:
    model = Tiny()
    torch.save({key: model.state_dict(), "epoch": 3}, tmp_path / "model.pt")
    assert_same(weights.read(tmp_path / "model.pt").tensors, state(model))


@pytest.mark.parametrize(
    ("classes", "read"),
    [
        (None, {}),
        (3, {}),
        ((0, 1, 2), {"classes": ["0", "1", "2"]}),
        (("cat", "dog", "fox"), {"classes": CLASSES}),
    ],
)
def test_classes_of_other_programs_are_names_or_nothing(tmp_path: Path, classes: Any, read: dict[str, Any]) -> None:
    torch.save({"model": Tiny().state_dict(), "classes": classes}, tmp_path / "model.pt")
    assert weights.read(tmp_path / "model.pt").about == read


# Loading


def test_all_loads_every_tensor() -> None:
    source, model = Tiny(), Tiny()
    nn.init.uniform_(source.norm.running_mean)
    weights.load(model, given(source, classes=CLASSES), backbone_only=False, classes=CLASSES)
    assert_same(state(model), state(source))


def test_all_says_how_many_tensors_were_loaded_and_whence() -> None:
    said = weights.load(Tiny(), given(Tiny()), backbone_only=False, classes=CLASSES)
    assert str(said) == "loaded 9 tensors from given.pt"


def test_file_that_names_no_classes_loads() -> None:
    source, model = Tiny(), Tiny()
    weights.load(model, given(source), backbone_only=False, classes=CLASSES)
    assert_same(state(model), state(source))


def test_backbone_loads_all_before_the_head() -> None:
    source, model = Tiny(), Tiny()
    weights.load(model, given(source), backbone_only=True, classes=CLASSES)
    before_head = [name for name in state(model) if not name.startswith("fc.")]
    assert len(before_head) == 7
    assert_same({n: state(model)[n] for n in before_head}, {n: state(source)[n] for n in before_head})


def test_backbone_leaves_the_head_as_it_was() -> None:
    model = Tiny()
    before = state(model.fc)
    weights.load(model, given(Tiny()), backbone_only=True, classes=CLASSES)
    assert_same(state(model.fc), before)


def test_backbone_says_how_many_tensors_keep_their_values() -> None:
    said = weights.load(Tiny(), given(Tiny()), backbone_only=True, classes=CLASSES)
    assert said.kept == ["fc.weight", "fc.bias"]
    assert str(said).splitlines()[:2] == [
        "loaded 7 tensors from given.pt",
        "  2 of the model keep their initial values: fc.weight, fc.bias",
    ]


def test_backbone_says_which_tensors_of_the_file_are_left_out() -> None:
    file = given(Tiny())
    file.tensors |= {f"out.{i}.{kind}": torch.ones(1) for i in range(7) for kind in ("weight", "bias")}
    said = weights.load(Tiny(), file, backbone_only=True, classes=CLASSES)
    assert str(said).splitlines()[2] == (
        "  16 of the file are left out: fc.weight, fc.bias, out.0.* (2), out.1.* (2), out.2.* (2), ..."
    )


def test_loading_says_that_an_optimizers_state_is_not_used(tmp_path: Path) -> None:
    content = {"model_state_dict": Tiny().state_dict(), "optimizer_state_dict": {}, "epoch": 3}
    torch.save(content, tmp_path / "model.pt")
    said = weights.load(Tiny(), weights.read(tmp_path / "model.pt"), backbone_only=False, classes=CLASSES)
    assert str(said).splitlines()[1:] == ["  its optimizer state is not used"]


@pytest.mark.parametrize("frozen", [True, False], ids=["without counts", "with counts"])
def test_a_missing_count_of_batches_is_no_difference(frozen: bool) -> None:
    file, model = given(Tiny()), Tiny()
    if frozen:
        del file.tensors["norm.num_batches_tracked"]
    said = weights.load(model, file, backbone_only=False, classes=CLASSES)
    assert (len(said.names), said.kept) == (9 - frozen, [])
    assert_same({"x": model.norm.running_var}, {"x": file.tensors["norm.running_var"]})


def test_backbone_loads_from_a_model_of_other_classes() -> None:
    source, model = Tiny(classes=7), Tiny()
    weights.load(model, given(source, classes=list("abcdefg")), backbone_only=True, classes=CLASSES)
    assert_same(state(model.body), state(source.body))


def test_backbone_loads_from_a_file_without_a_head() -> None:
    source, model = Tiny(), Tiny()
    file = given(source)
    file.tensors = {name: tensor for name, tensor in file.tensors.items() if not name.startswith("fc.")}
    weights.load(model, file, backbone_only=True, classes=CLASSES)
    assert_same(state(model.body), state(source.body))


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
    weights.load(model, given(source), backbone_only=True, classes=CLASSES)
    loaded = {name for name, tensor in model.state_dict().items() if tensor.all()}
    untouched = {name for name, tensor in model.state_dict().items() if not tensor.any()}
    assert untouched == {name for name in model.state_dict() if name.startswith(head)}
    assert loaded | untouched == set(model.state_dict())


@pytest.mark.parametrize("name", MODELS)
def test_every_models_weights_survive_a_file(tmp_path: Path, name: str) -> None:
    build, _ = MODELS[name]
    source, model = build(3), build(3)
    weights.save(tmp_path / "model.safetensors", source, {"classes": CLASSES})
    weights.load(model, weights.read(tmp_path / "model.safetensors"), backbone_only=False, classes=CLASSES)
    assert_same(state(model), state(source))


@pytest.mark.parametrize("name", ["vt_resnet18", "panoptic_fpn", "vt_fpn"])
def test_backbone_loads_from_torchvisions_resnet(name: str) -> None:
    source, model = torchvision.models.resnet18(), MODELS[name][0](3)
    weights.load(model, given(source), backbone_only=True, classes=CLASSES)
    loaded = state(model.backbone)
    assert_same(loaded, {n: t for n, t in state(source).items() if n in loaded})


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
    weights.load(model, weights.read(tmp_path / "resnet.pth"), backbone_only=True, classes=CLASSES)
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
    said = weights.load(model, weights.read(tmp_path / "detector.pth"), backbone_only=True, classes=CLASSES)
    assert said.skipped == ["rpn.weight", "rpn.bias"]
    images = torch.randn(
        1, 3, 64, 96, dtype=torch.float64
    )  # torchvision's frozen batch norms round otherwise than ours
    theirs, model = theirs.double(), model.double().eval()
    expected = list(theirs["backbone"](images).values())[:4]
    for p, e in zip(model.pyramid(list(model.backbone(images).values())), expected, strict=True):
        torch.testing.assert_close(p, e, rtol=1e-6, atol=1e-6)


def test_a_detectors_pyramid_of_other_channels_is_left_out() -> None:
    source, model = detector(), panoptic_fpn(num_classes=3, pyramid_channels=32)
    before = state(model.pyramid)
    said = weights.load(model, given(source), backbone_only=True, classes=CLASSES)
    assert_same(state(model.pyramid), before)
    assert "pyramid.fpn.* (16)" in str(said)


def test_a_detectors_backbone_goes_into_a_token_pyramid_alone() -> None:
    source, model = detector(), vt_fpn(num_classes=3, token_channels=16)
    said = weights.load(model, given(source), backbone_only=True, classes=CLASSES)
    assert torch.equal(model.backbone.layer4[2].conv3.weight, source["backbone"].body.layer4[2].conv3.weight)
    assert "pyramid.fpn.* (16)" in str(said)


@pytest.mark.parametrize(
    ("name", "build"),
    [
        ("resnet18", vt_resnet18),
        ("vt_resnet18", vt_resnet18),
        ("panoptic_fpn", panoptic_fpn),
        ("vt_fpn", vt_fpn),
    ],
)
def test_a_reference_file_into_another_model_is_refused_with_the_model_to_choose(
    seed_net: Callable[..., nn.Module], name: str, build: Callable[..., nn.Module]
) -> None:
    said = message(build(num_classes=10), given(seed_net(name)), classes=list("abcdefghij"))
    assert f"\nthis file of the reference implementation is for model=seed_{name}\n" in said


@torch.inference_mode()
def test_a_reference_files_backbone_gives_its_feature_maps(seed_net: Callable[..., nn.Module]) -> None:
    net, model = seed_net("vt_fpn").double(), panoptic_fpn(num_classes=3).double().eval()
    weights.load(model, given(net), backbone_only=True, classes=CLASSES)
    images = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    for actual, expected in zip(model.backbone(images).values(), net.backbone(images), strict=True):
        torch.testing.assert_close(actual, expected)


def test_a_reference_files_bottlenecks_are_refused_where_the_stride_is_in_the_first_convolution(
    seed_net: Callable[..., nn.Module],
) -> None:
    model = panoptic_fpn(num_classes=3, stride_in_1x1=True)
    assert "set model.stride_in_1x1=false" in message(model, given(seed_net("vt_fpn")), backbone_only=True)


def test_bare_bottlenecks_are_taken_for_torchvisions_and_refused_where_the_stride_is_in_the_first_convolution() -> None:
    model, file = panoptic_fpn(num_classes=3, stride_in_1x1=True), given(torchvision.models.resnet50())
    before = state(model)
    said = message(model, file, backbone_only=True)
    assert "bottlenecks of bare ResNets have the stride in the 3x3 convolution" in said
    assert said.endswith("set model.stride_in_1x1=false")
    assert_same(state(model), before)


@pytest.mark.parametrize("stride_in_1x1", [False, True])
def test_a_bare_state_dict_of_our_own_segmenter_is_loaded(stride_in_1x1: bool) -> None:
    source, model = (panoptic_fpn(num_classes=3, stride_in_1x1=stride_in_1x1) for _ in range(2))
    said = weights.load(model, given(source), backbone_only=False, classes=CLASSES)
    assert "stride" not in str(said)
    assert_same(state(model), state(source))


@pytest.mark.parametrize("stride_in_1x1", [False, True])
def test_our_own_file_brings_a_note_only_where_strides_differ(stride_in_1x1: bool) -> None:
    model = panoptic_fpn(num_classes=3, stride_in_1x1=True)
    file = given(model, config=config(stride_in_1x1=stride_in_1x1))
    said = str(weights.load(model, file, backbone_only=False, classes=CLASSES))
    assert ("their bottlenecks have the stride in the 3x3 convolution" in said) == (not stride_in_1x1)


def test_our_own_file_brings_a_note_where_only_its_strides_are_in_the_first_convolution() -> None:
    file = given(panoptic_fpn(num_classes=3), config=config(stride_in_1x1=True))
    said = weights.load(panoptic_fpn(num_classes=3), file, backbone_only=True, classes=CLASSES)
    assert "the stride in the first 1x1 convolution, the model's in the 3x3 convolution" in str(said)


def test_basic_blocks_bring_no_hint_about_strides() -> None:
    model = panoptic_fpn(num_classes=3, backbone="resnet18", stride_in_1x1=True)
    said = weights.load(model, given(torchvision.models.resnet18()), backbone_only=True, classes=CLASSES)
    assert "stride" not in str(said)


def test_published_bottlenecks_are_refused_where_the_stride_is_in_the_first_convolution() -> None:
    model, file = panoptic_fpn(num_classes=3, stride_in_1x1=True), given(torchvision.models.resnet50())
    file.path = Path("torchvision:ResNet50_Weights.IMAGENET1K_V2")
    before = state(model)
    assert "set model.stride_in_1x1=false" in message(model, file, backbone_only=True)
    assert_same(state(model), before)


@pytest.mark.parametrize("auxiliary", [False, True])
def test_a_backbone_of_torchvisions_segmenters_brings_a_note_that_it_is_dilated(auxiliary: bool) -> None:
    with torch.device("meta"):
        theirs = torchvision.models.segmentation.fcn_resnet50(
            weights=None, weights_backbone=None, aux_loss=auxiliary, num_classes=3
        )
    theirs.to_empty(device="cpu")
    loaded = weights.load(panoptic_fpn(num_classes=3), given(theirs), backbone_only=True, classes=CLASSES)
    assert any("dilated" in note for note in loaded.notes)


def test_an_fpn_of_ours_brings_no_note_that_it_is_dilated() -> None:
    model = panoptic_fpn(num_classes=3, backbone="resnet18")
    assert weights.load(model, given(model), backbone_only=True, classes=CLASSES).notes == []


def test_resnet_loads_the_backbone_of_an_fpn() -> None:
    source, model = MODELS["panoptic_fpn"][0](3), resnet18(num_classes=3)
    weights.load(model, given(source), backbone_only=True, classes=CLASSES)
    assert_same({n: t for n, t in state(model).items() if not n.startswith("fc.")}, state(source.backbone))


def test_fpn_refuses_the_backbone_of_a_vt_resnet_which_lacks_layer4() -> None:
    source, model = MODELS["vt_resnet18"][0](3), MODELS["panoptic_fpn"][0](3)
    assert "missing from the file: backbone.layer4.0.conv1.weight," in message(model, given(source), backbone_only=True)


# Weights that do not fit


def other_model() -> nn.Module:
    model = Tiny()
    model.other = nn.Linear(2, 2)
    del model.norm
    return model


def message(
    model: nn.Module, file: WeightFile, *, backbone_only: bool = False, classes: list[str] | None = None
) -> str:
    with pytest.raises(WeightsError) as caught:
        weights.load(model, file, backbone_only=backbone_only, classes=classes or CLASSES)
    return str(caught.value)


def test_wrong_model_is_refused_with_the_missing_names() -> None:
    said = message(Tiny(), given(other_model()))
    names = "norm.weight, norm.bias, norm.running_mean, norm.running_var"
    assert f"do not fit Tiny\n  4 missing from the file: {names}\n" in said


def test_wrong_model_is_refused_with_the_unexpected_names() -> None:
    assert "\n  2 not in the model: other.weight, other.bias" in message(Tiny(), given(other_model()))


def test_other_head_is_refused_with_the_offer_to_load_the_backbone() -> None:
    file = given(Tiny())
    file.tensors = {name.replace("fc.", "out."): tensor for name, tensor in file.tensors.items()}
    said = message(Tiny(), file)
    assert "missing from the file: fc.weight, fc.bias\n" in said
    assert said.endswith("\nto train from it, weights.backbone_only=true loads only the layers before the head")


def test_wrong_model_is_refused_without_an_offer_that_would_fail() -> None:
    assert "weights.backbone_only=true" not in message(Tiny(), given(other_model()))


def test_wrong_backbone_is_refused_without_the_offer_it_has_taken() -> None:
    said = message(Tiny(), given(other_model()), backbone_only=True)
    assert "missing from the file" in said
    assert "weights.backbone_only=true" not in said


def test_long_lists_of_names_are_cut_after_five() -> None:
    assert re.search(
        r"  8 missing from the file: (\S+, ){5}\.\.\.\n", message(Tiny(), WeightFile(Path("x"), {"a": torch.ones(1)}))
    )


def test_other_shape_is_refused_with_both_shapes() -> None:
    file = given(Tiny())
    file.tensors["body.weight"] = torch.zeros(5, 8)
    assert "1 of another shape: body.weight (5, 8) in the file, (5, 4) in the model" in message(Tiny(), file)


def test_other_class_count_is_refused_with_both_shapes_of_the_head() -> None:
    said = message(Tiny(), given(Tiny(classes=7)))
    assert "fc.weight (7, 5) in the file, (3, 5) in the model, fc.bias (7,) in the file, (3,) in the model" in said
    assert "to train from it, weights.backbone_only=true loads" in said


def test_other_class_count_is_refused_with_both_counts_where_the_file_names_its_classes() -> None:
    said = message(Tiny(), given(Tiny(classes=2), classes=["oak", "elm"]))
    assert "trained for 2 classes (oak, elm), the data set has 3 (cat, dog, fox); to train from it, " in said
    assert "weights.backbone_only=true" in said


@pytest.mark.parametrize("theirs", [["cat", "dog", "owl"], ["dog", "cat", "fox"]], ids=["other name", "other order"])
def test_other_class_names_are_refused_with_both_lists(theirs: list[str]) -> None:
    said = message(Tiny(), given(Tiny(), classes=theirs))
    assert f"trained for 3 classes ({', '.join(theirs)}), the data set has 3 (cat, dog, fox)" in said


def test_other_class_names_are_refused_with_the_place_where_a_long_list_differs() -> None:
    ours = [f"class {i}" for i in range(20)]
    theirs = [*ours[:17], "owl", *ours[18:]]
    said = message(Tiny(20), given(Tiny(20), classes=theirs), classes=ours)
    assert "first different at index 17: 'owl' in the file, 'class 17' in the data set" in said


@pytest.mark.parametrize("ours", [IDS, WORDS], ids=["ids", "words"])
@pytest.mark.parametrize("theirs", [IDS, WORDS], ids=["ids in the file", "words in the file"])
def test_imagenets_ids_and_their_words_are_the_same_classes(ours: list[str], theirs: list[str]) -> None:
    file = given(Tiny(3), classes=theirs[:3])
    assert file.about["classes"] == WORDS[:3]
    assert "classes" not in str(weights.load(Tiny(3), file, backbone_only=False, classes=ours[:3]))


@pytest.mark.parametrize("ours", [IDS, WORDS], ids=["ids", "words"])
def test_all_of_imagenet_is_taken_for_another_publishers_words_in_the_same_order(ours: list[str]) -> None:
    theirs = [f"thing {i}" for i in range(1000)]
    said = weights.load(Tiny(1000), given(Tiny(1000), classes=theirs), backbone_only=False, classes=ours)
    assert "order of ImageNet's ids: 'tench' is 'thing 0'" in str(said)


def test_imagenet_in_another_order_is_refused() -> None:
    theirs = [f"thing {i}" for i in range(1000)]
    assert "trained for 1000 classes" in message(Tiny(1000), given(Tiny(1000), classes=theirs), classes=IDS[::-1])
    assert "trained for 1000 classes" in message(Tiny(1000), given(Tiny(1000), classes=IDS[::-1]), classes=IDS)


@pytest.mark.parametrize("backbone_only", [False, True])
def test_refused_weights_change_nothing(backbone_only: bool) -> None:
    model, file = Tiny(), given(Tiny())
    before = state(model)
    file.tensors["norm.weight"] = torch.zeros(6)
    message(model, file, backbone_only=backbone_only)
    assert_same(state(model), before)


def test_backbone_of_a_model_that_names_no_head_is_all_but_its_fc() -> None:
    source, model = torchvision.models.resnet18(num_classes=4), torchvision.models.resnet18(num_classes=3)
    before = state(model.fc)
    weights.load(model, given(source), backbone_only=True, classes=CLASSES)
    assert_same(state(model.layer4), state(source.layer4))
    assert_same(state(model.fc), before)
