"""Weight files of strangers: what they bring is data, and nothing in them is called, fetched, written or looked up."""

from __future__ import annotations

import copy
import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import save_file

from visual_transformers.cli.shorthands import expand, trained_settings
from visual_transformers.config.adoption import ADOPTED, adopt, sanitized
from visual_transformers.config.instantiate import TRUST_VARIABLE, build
from visual_transformers.config.validation import validate
from visual_transformers.errors import ConfigError, UserError
from visual_transformers.inference.predictor import Predictor
from visual_transformers.models import resnet18

WRITE = {"_target_": "torchvision.io.write_file", "filename": "F", "data": {"_target_": "torchvision.io.read_file"}}
TORCHVISION = "torchvision.models.resnet18"


@pytest.fixture(scope="module")
def harmless(composed) -> dict[str, Any]:
    """The configuration of a small classifier, as a weight file carries it."""
    cfg = composed("model=resnet18", "data.image_size=32")
    return validate(cfg).everything


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty folder to stand in, without a network; home is another one."""

    connect = socket.socket.connect

    def refuse(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX:
            pytest.fail(f"a connection to {address} was tried")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", refuse)
    here, home = tmp_path / "here", tmp_path / "home"
    for folder in (here, home):
        folder.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("SECRET", "of-this-machine")
    monkeypatch.chdir(here)
    return here


def stranger(
    folder: Path, config: Any, tensors: dict[str, torch.Tensor] | None = None, name: str = "stranger.safetensors"
) -> Path:
    """A weight file with a configuration, in a folder beside the one where one stands."""
    path = folder.parent / name
    if tensors is None:
        tensors = {name: t.contiguous() for name, t in resnet18(num_classes=10).state_dict().items()}
    text = config if isinstance(config, str) else json.dumps(config)
    save_file(tensors, path, {"config": text, "classes": json.dumps([str(i) for i in range(10)])})
    return path


def used(composed: Callable[..., Any], path: Path, *overrides: str) -> Predictor:
    """What a command makes of a weight file, up to the model with its weights."""
    arguments = expand(["mode=predict", f"weights={path}", *overrides])
    named = {argument.split("=", 1)[0] for argument in arguments}
    cfg = composed(*(argument for argument in arguments if "name" in named))
    if trained := trained_settings(str(path)):
        adopt(cfg, trained, arguments, str(path))
    return Predictor.build(validate(cfg, {}, arguments), path.parent / "here")


def changed(config: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    """The same configuration with another value at a dotted key."""
    config = copy.deepcopy(config)
    node, *keys = config, *key.split(".")
    for part in keys[:-1]:
        node = node.setdefault(part, {})
    node[keys[-1]] = value
    return config


HOSTILE = {
    "a function that writes": ("model", WRITE),
    "a writing function inside a model": ("model", {"_target_": TORCHVISION, "weights": WRITE}),
    "one inside a keyword of another": ("model", {"_target_": TORCHVISION, "norm_layer": WRITE}),
    "one in a list": ("model", {"_target_": TORCHVISION, "weights": [WRITE]}),
    "one in a group without a target": ("model", {"_target_": TORCHVISION, "weights": {"a": {"b": WRITE}}}),
    "one in positional arguments": ("model", {"_target_": "torch.nn.Sequential", "_args_": [WRITE]}),
    "one for a tensor": ("model", {"_target_": "torch.nn.CrossEntropyLoss", "weight": WRITE}),
    "one in a module in a module": (
        "model",
        {
            "_target_": "torchvision.models.segmentation.FCN",
            "backbone": {"_target_": "torch.nn.Linear", "in_features": WRITE},
        },
    ),
    "a hub in a module in a module": (
        "model",
        {
            "_target_": "torchvision.models._utils.IntermediateLayerGetter",
            "model": {"_target_": "timm.create_model", "model_name": "hf-hub:a/b", "pretrained": True},
        },
    ),
    "a lookup": ("model.backbone", "${oc.env:SECRET}"),
    "a lookup that makes a target": ("model", {"_target_": "${oc.decode:torchvision.io.write_file}", "filename": "F"}),
    "an escaped lookup": ("data.root", "\\\\${oc.env:SECRET}"),
    "a builder by its name": ("model", {"_target_": "torchvision.models.get_model", "name": "fcn_resnet50"}),
    "a word for a group": ("data.augmentation", "x"),
    "one in the data": ("data.augmentation", WRITE),
    "one in the task": ("task", WRITE),
    "one in inference": ("inference", {"window": WRITE}),
    "a function that reads": ("model", {"_target_": "torchvision.io.read_file", "path": "/etc/passwd"}),
    "a shell": ("model", {"_target_": "os.system", "command": "touch F"}),
    "a shell through our modules": (
        "model",
        {"_target_": "visual_transformers.cli.main.os.system", "command": "touch F"},
    ),
    "a download of torchvision's": (
        "model",
        {"_target_": "torchvision.datasets.utils.download_url", "url": "http://x"},
    ),
    "a data set of torchvision's": ("data", {"_target_": "torchvision.datasets.MNIST", "root": "F", "download": True}),
    "a helper of torch's": ("model", {"_target_": "torch.nn.init.zeros_", "tensor": 1}),
    "a hub of torch's": ("model", {"_target_": "torch.hub.load", "repo_or_dir": "a/b", "model": "c"}),
    "a hub of timm's": ("model", {"_target_": "timm.models.load_model_config_from_hf", "model_id": "a/b"}),
    "a model of timm's from a hub": ("model", {"_target_": "timm.create_model", "model_name": "hf-hub:a/b"}),
    "a model of timm's from a folder": ("model", {"_target_": "timm.create_model", "model_name": "local-dir:/a"}),
    "a loader of checkpoints": ("model", {"_target_": "timm.models.load_checkpoint", "checkpoint_path": "F"}),
    "an import": ("model", {"_target_": "stranger.Net"}),
    "an optimizer for a model": ("model", {"_target_": "torch.optim.SGD", "lr": 1}),
    "a model for a data set": ("data", {"_target_": TORCHVISION}),
    "a partial call": ("model", {"_target_": TORCHVISION, "_partial_": True}),
    "a call that is not recursive": ("model", {"_target_": TORCHVISION, "_recursive_": False}),
    "a number for a target": ("model", {"_target_": 5}),
    "integers as floats": ("model.width", 64.5),
    "a negative size": ("model.num_classes", -1),
    "a folder above for a name": ("name", "../../outside"),
    "an absolute name": ("name", "/outside"),
    "overrides in a name": ("name", "x,hydra.run.dir=outside"),
    "a variable in a name": ("name", "${oc.env:SECRET}"),
    "code in a name": ("name", "x'] +hydra.run.dir='outside"),
}


LEFT_OUT = ("a writing function inside a model", "one in a list", "one in a group without a target")
"""Those in an argument that fetches, which is left out of what a file brings, whatever it holds."""


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_file_is_refused_with_its_key_and_nothing_is_written(kind, harmless, quiet, command, tmp_path):
    key, value = HOSTILE[kind]
    path = stranger(quiet, changed(harmless, key, value))
    (quiet / "image.png").write_bytes(PICTURE)
    before = tree(tmp_path)
    ended = command("mode=predict", f"weights={path}", f"input={quiet}/image.png", "hardware.threads=1")
    written = tree(tmp_path) - before
    assert "Traceback" not in ended.stderr
    assert "of-this-machine" not in "".join([*written, ended.stdout, ended.stderr])
    assert not [place for above in (tmp_path.parents[0], tmp_path.parents[1]) for place in above.glob("*outside*")]
    if key == "name" or kind in LEFT_OUT:  # a name is taken as it is, or the file is another program's
        assert all(name.startswith("runs") for name in written)
        return
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: ")
    assert key.split(".")[0] in ended.stderr
    assert not written


def tree(folder: Path) -> set[str]:
    """Every path below a folder but what caches hold."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if "home" not in path.parts}


def _picture() -> bytes:
    from io import BytesIO

    from PIL import Image

    written = BytesIO()
    Image.new("RGB", (32, 32), "grey").save(written, "PNG")
    return written.getvalue()


PICTURE = _picture()


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"a":' * 50_000,
        json.dumps({"name": "x" * 10_000_000}),
        "resnet18",
        "",
        "NaN",
        "{",
        "[1, 2]",
        "null",
    ],
    ids=["deep lists", "deep groups", "huge", "a word", "nothing", "NaN", "torn", "a list", "null"],
)
def test_metadata_that_are_no_configuration_are_passed_over(text, quiet):
    path = stranger(quiet, text)
    assert trained_settings(str(path)) is None


def test_weights_that_do_not_fit_their_configuration_are_refused_by_name(composed, harmless, quiet):
    path = stranger(quiet, harmless, {"fc.weight": torch.zeros(3, 5)})
    with pytest.raises(UserError, match=r"stranger\.safetensors: do not fit ResNetClassifier"):
        used(composed, path)


@pytest.mark.parametrize("text", ["${oc.env:SECRET}", "a${b}", "\\${a}", "\\\\${a}", "${"])
def test_interpolations_of_a_file_are_refused(text):
    for node in (text, [text], {"a": {"b": [text]}}):
        with pytest.raises(ConfigError, match="Interpolations from weight files are not resolved"):
            sanitized({"key": node}, "data", "f", [])


@pytest.mark.parametrize("text", ["a\\", "$", "}", "$a", "é", "a,b", "???"])
def test_other_texts_of_a_file_are_taken_as_they_are(text):
    assert OmegaConf.create(sanitized({"key": text}, "inference", "f", []))._get_node("key")._value() == text


def test_nothing_is_fetched_that_a_file_asks_for():
    """What is to be fetched the weights are for, and data are where the user says."""
    target = {"_target_": TORCHVISION, "weights": "DEFAULT", "pretrained": True}
    assert sanitized(target, "model", "f", []) == {"_target_": TORCHVISION, "weights": None}
    data = {"_target_": "visual_transformers.data.Imagenette", "root": "x", "download": True}
    assert sanitized(data, "data", "f", [])["download"] is False
    timm = sanitized({"_target_": "timm.create_model", "model_name": "resnet18", "pretrained": True}, "model", "f", [])
    assert (timm["pretrained"], timm["checkpoint_path"], timm["pretrained_cfg"]) == (False, None, None)
    segmenter = sanitized({"_target_": "torchvision.models.segmentation.fcn_resnet50"}, "model", "f", [])
    assert segmenter["weights_backbone"] is None


def test_a_whole_configuration_of_ours_is_taken_as_it_is(harmless):
    for group in ADOPTED:
        assert sanitized(harmless[group], group, "f", []) == harmless[group]


def test_a_file_from_before_a_renaming_is_taken_under_the_current_names():
    data = {"_target_": "visual_transformers.data.ImageFolder", "root": "x"}
    reading = {"_target_": "visual_transformers.data.reading.Reading", "upright": False}
    adopted = sanitized(data | {"reading": reading}, "data", "f", [])["reading"]
    assert adopted == {"_target_": "visual_transformers.data.io.reading.Reading", "upright": False}


# Code of one's own

MY_MODEL = """
from torch import nn
from visual_transformers.models import ResNetClassifier

class Net(ResNetClassifier):
    def __init__(self, *, num_classes: int, width: int = 8):
        super().__init__(num_classes=num_classes, backbone="resnet18")
        self.width = width

def net(num_classes: int):
    return Net(num_classes=num_classes)

def none(num_classes: int):
    return 5

def write(num_classes: int) -> int:
    open("F", "w").close()
"""


@pytest.fixture
def my_package(quiet: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (quiet / "mynet.py").write_text(MY_MODEL)
    monkeypatch.delitem(__import__("sys").modules, "mynet", raising=False)
    return "mynet"


def test_code_of_ones_own_is_refused_until_it_is_trusted(my_package):
    node = {"_target_": f"{my_package}.Net"}
    with pytest.raises(ConfigError, match=r"If you trust the code of mynet, add trust=\[mynet\]\."):
        build(node, "model", num_classes=2)
    assert build(node, "model", trust=[my_package], num_classes=2).width == 8


def test_what_is_trusted_is_checked_by_kind(my_package, quiet):
    assert type(build({"_target_": "mynet.net"}, "model", trust=["mynet"], num_classes=2)).__name__ == "Net"
    with pytest.raises(ConfigError, match="returned a int, but model must name a class or function that returns"):
        build({"_target_": "mynet.none"}, "model", trust=["mynet"], num_classes=2)
    with pytest.raises(ConfigError, match="returns a Module"):
        build({"_target_": "mynet.write"}, "model", trust=["mynet"], num_classes=2)
    with pytest.raises(ConfigError, match="returns a DataModule"):
        build({"_target_": "mynet.Net"}, "data", trust=["mynet"])
    assert not (quiet / "F").exists()


def test_the_keys_of_a_trusted_class_are_checked(composed, my_package):
    clear = [f"~model.{key}" for key in composed("model=resnet18").model if key != "_target_"]
    target = ["model=resnet18", *clear, "model._target_=mynet.Net"]
    assert validate(composed(*target, "trust=[mynet]", "+model.width=9")).model["width"] == 9
    with pytest.raises(ConfigError, match=r"model\.width=x: expected int"):
        validate(composed(*target, "trust=[mynet]", "+model.width=x"))
    with pytest.raises(ConfigError, match=r"model\.tokens: no such key"):
        validate(composed(*target, "trust=[mynet]", "+model.tokens=1"))


def test_a_variable_trusts_as_the_key_does(composed, my_package, monkeypatch):
    monkeypatch.setenv(TRUST_VARIABLE, "other, mynet")
    assert validate(composed("trust=[mine]")).trust == ["mine", "other", "mynet"]
    monkeypatch.setenv(TRUST_VARIABLE, "os.system('x')")
    with pytest.raises(ConfigError, match=r"trust=os\.system\('x'\): expected a package name"):
        validate(composed())


def test_a_file_cannot_trust(composed, harmless, my_package, quiet):
    path = stranger(quiet, changed(harmless, "model", {"_target_": "mynet.Net"}) | {"trust": ["mynet"]})
    function = stranger(quiet, changed(harmless, "model", {"_target_": "mynet.net"}), name="function.safetensors")
    with pytest.raises(ConfigError, match="names a function without a return annotation"):
        used(composed, function, "trust=[mynet]")
    with pytest.raises(ConfigError, match=r"model\._target_=mynet\.Net: .*trust=\[mynet\]"):
        used(composed, path)
    assert type(used(composed, path, "trust=[mynet]").model).__name__ == "Net"


def test_a_run_with_a_model_of_ones_own_trains_and_is_tested(command, tmp_path):
    (tmp_path / "mynet.py").write_text(MY_MODEL)
    (tmp_path / "mine/model").mkdir(parents=True)
    (tmp_path / "mine/model/mynet.yaml").write_text("_target_: mynet.Net\nwidth: 9\n")
    small = ["data.image_size=32", "data.batch_size=360", "training.steps=1", "hardware.threads=1"]
    mine = ["--config-dir", "mine", "model=mynet", "name=mine", *small]
    refused = command(*mine)
    assert refused.returncode == 1
    assert "add trust=[mynet]" in refused.stderr
    assert command(*mine, "trust=[mynet]").returncode == 0
    tested = command("mode=test", "weights=runs/mine", "hardware.threads=1")
    assert tested.returncode == 1
    assert "trust=[mynet]" in tested.stderr
    assert command("mode=test", "weights=runs/mine", "trust=[mynet]", "hardware.threads=1").returncode == 0
