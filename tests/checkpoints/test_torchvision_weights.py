import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch import nn
from torchvision.models import ResNet18_Weights, ResNet50_Weights, Weights, WeightsEnum

from visual_transformers.checkpoints import torchvision_weights, weights
from visual_transformers.checkpoints.loading import load_weights
from visual_transformers.data import ImageNet
from visual_transformers.data.normalization import Normalise
from visual_transformers.errors import WeightsError
from visual_transformers.models import resnet18

NAME = "torchvision:ResNet18_Weights.IMAGENET1K_V1"
FILE = "resnet18-f37072fd.pth"
CATEGORIES = ["cat", "dog", "fox"]
Publish = Callable[..., tuple[type[WeightsEnum], Path]]


@pytest.fixture(autouse=True)
def checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder of torch.hub's weights, which does not exist yet."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "hub" / "checkpoints"


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise URLError("Name or service not known")

    monkeypatch.setattr("torch.hub.urlopen", refuse)


@pytest.fixture
def publish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Publish:
    """Publish a ResNet-18 on the disk like torchvision, with its hash in its name; return the weights and the file."""

    def published(digest: str | None = None) -> tuple[type[WeightsEnum], Path]:
        model = torchvision.models.resnet18(num_classes=3)
        torch.save(model.state_dict(), tmp_path / "new.pth")
        digest = digest or hashlib.sha256((tmp_path / "new.pth").read_bytes()).hexdigest()
        path = (tmp_path / "new.pth").rename(tmp_path / f"resnet18-{digest[:8]}.pth")
        weight = Weights(url=path.as_uri(), transforms=nn.Identity, meta={"categories": CATEGORIES})
        monkeypatch.setattr("torchvision.models.get_weight", WeightsEnum("Stub_Weights", {"V1": weight}).__getitem__)
        return torch.load(path, weights_only=True), path

    return published


def message(name: str) -> str:
    with pytest.raises(WeightsError) as caught:
        weights.read(name)
    return str(caught.value)


def test_published_weights_are_downloaded_with_their_classes(publish: Publish, checkpoints: Path) -> None:
    tensors, path = publish()
    read = weights.read("torchvision:V1")
    assert read.metadata == {"classes": CATEGORIES}
    assert str(read.path) == "torchvision:Stub_Weights.V1"
    assert all(torch.equal(read.tensors[name], tensor) for name, tensor in tensors.items())
    assert [entry.name for entry in checkpoints.iterdir()] == [path.name]


@pytest.mark.usefixtures("offline")
def test_published_weights_put_there_by_hand_are_used_offline(publish: Publish, checkpoints: Path) -> None:
    tensors, path = publish()
    checkpoints.mkdir(parents=True)
    path.rename(checkpoints / path.name)
    model = resnet18(num_classes=3)
    report = load_weights(model, weights.read("torchvision:V1"), backbone_only=False, classes=CATEGORIES)
    assert str(report) == "loaded 122 tensors from torchvision:Stub_Weights.V1"
    assert torch.equal(model.fc.weight, tensors["fc.weight"])


def test_a_download_with_another_hash_is_refused_and_not_kept(publish: Publish, checkpoints: Path) -> None:
    _, path = publish("0123456789abcdef")
    text = message("torchvision:V1")
    assert "the download is not as published (RuntimeError: invalid hash value" in text
    assert f"by hand and put it at {checkpoints / path.name}" in text
    assert list(checkpoints.iterdir()) == []


@pytest.mark.usefixtures("offline")
def test_a_wrong_file_put_there_by_hand_is_refused(checkpoints: Path) -> None:
    checkpoints.mkdir(parents=True)
    torch.save(torchvision.models.resnet18().state_dict(), checkpoints / FILE)
    assert f"{checkpoints / FILE} is not the published file, because its hash differs" in message(NAME)


@pytest.mark.usefixtures("offline")
def test_without_a_network_the_message_says_what_to_download_and_where_to_put_it(checkpoints: Path) -> None:
    text = message(NAME)
    assert f"weights={NAME}: cannot be downloaded (URLError" in text
    assert f"download https://download.pytorch.org/models/{FILE}\n" in text
    assert text.endswith(f"put it at {checkpoints / FILE}")


@pytest.mark.usefixtures("offline")
def test_the_name_of_a_published_classifier_means_its_model_and_its_preprocessing() -> None:
    config = torchvision_weights.derive_config("torchvision:ResNet50_Weights.IMAGENET1K_V2")
    assert config["model"] == {"_target_": "visual_transformers.models.resnet50"}
    prepare = ImageNet.build_eval_transform(config["data"])
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8))
    expected = ResNet50_Weights.IMAGENET1K_V2.transforms()(image)
    torch.testing.assert_close(
        Normalise()(prepare(image))[0], expected, rtol=0, atol=2 / 255 / 0.225
    )  # both round to uint8


def test_a_published_classifier_that_we_lack_is_built_by_torchvision() -> None:
    config = torchvision_weights.derive_config("torchvision:ConvNeXt_Tiny_Weights.IMAGENET1K_V1")
    assert config["model"] == {"_target_": "torchvision.models.convnext_tiny"}


def test_the_name_of_a_classifier_with_another_preprocessing_means_only_its_model() -> None:
    bicubic = "torchvision:EfficientNet_B0_Weights.IMAGENET1K_V1"
    assert "data" not in torchvision_weights.derive_config(bicubic)


def test_the_name_of_a_published_segmenter_means_no_configuration() -> None:
    assert torchvision_weights.derive_config("torchvision:FCN_ResNet50_Weights.COCO_WITH_VOC_LABELS_V1") == {}


def test_an_alias_is_replaced_by_its_name() -> None:
    assert "weights=torchvision:ResNet50_Weights.IMAGENET1K_V2: " in message("torchvision:ResNet50_Weights.DEFAULT")


@pytest.mark.parametrize(
    "name", ["ResNet18_Weights.IMAGENET1K_V2", "ResNet18Weights.IMAGENET1K_V1", "resnet18_weights", "resnet18"]
)
def test_an_unknown_name_is_refused_with_similar_names(name: str) -> None:
    text = message(f"torchvision:{name}")
    assert f"weights=torchvision:{name}: torchvision publishes no weights of this name; did you mean" in text
    assert str(ResNet18_Weights.IMAGENET1K_V1) in text


@pytest.mark.parametrize("name", ["", "resnet.x", "zzz"])
def test_a_name_without_similar_ones_is_refused_with_an_example(name: str) -> None:
    assert "a name is like ResNet50_Weights.IMAGENET1K_V2" in message(f"torchvision:{name}")


def test_the_command_line_accepts_the_name_without_quotes(composed: Callable[..., Any]) -> None:
    assert composed(f"weights.file={NAME}").weights.file == NAME
