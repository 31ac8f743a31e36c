"""Reading weight files and putting them into a model, with a list of what does not fit."""

from __future__ import annotations

import json
import pickle
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from visual_transformers import atomic, json_text
from visual_transformers.checkpoints import torchvision_weights
from visual_transformers.checkpoints.compatibility import Differences, Loaded, counts_batches, first_difference, listed
from visual_transformers.checkpoints.key_mapping import NamedTensors, common_prefix, matched, renamed
from visual_transformers.data.imagenet_classes import readable, words
from visual_transformers.errors import WeightsError
from visual_transformers.paths import expand_home, makes_a_folder

ABOUT = ("classes", "config", "best", "version")
"""What a file may say of its weights."""
CONTAINERS = ("model", "model_state_dict", "state_dict")
"""Keys under which a checkpoint may hold its weights: ours, the reference implementation's, PyTorch's examples'."""
OPTIMIZERS = ("optimizer", "optimizer_state_dict")
AVERAGES = ("average", "ema", "model_ema", "ema_model", "ema_state_dict", "state_dict_ema", "model_ema_state_dict")
"""Keys under which a checkpoint may hold a moving average of its weights."""
BACKBONE_ALONE = "to train from it, weights.backbone_only=true loads only the layers before the head"


@dataclass
class WeightFile:
    """A file's tensors, by the names that they have there.

    Args:
        path: the file, or `torchvision:NAME`.
        tensors: by name.
        about: what the file says of them, by the keys of `ABOUT`; `classes` is a list of strings or absent, with words
            for WordNet ids, `config` a configuration of this suite or absent.
        notes: what should be known of the file, sentences.
    """

    path: Path
    tensors: dict[str, Tensor]
    about: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        said, self.about = self.about, {}
        if isinstance(version := said.get("version"), str):
            self.about["version"] = version
        if (best := said.get("best")) is not None and is_plain(best):
            self.about["best"] = best
        classes = said.get("classes")
        if isinstance(classes, list | tuple) and all(isinstance(name, str | int | float) for name in classes):
            self.about["classes"] = readable([str(name) for name in classes])
        elif classes is not None:
            self.notes.append(f"its classes are no list of names, and not used: {shorten(str(classes), LONGEST)}")
        if is_ours(config := said.get("config")):
            self.about["config"] = config
        elif config is not None:
            self.notes.append("its configuration is not one of this suite, and not used")


def is_published(path: str | Path) -> bool:
    """Whether a path is no file, but the name of what torchvision publishes."""
    return str(path).startswith(torchvision_weights.PREFIX)


def is_ours(config: Any) -> bool:
    """Return True if a configuration is one of this suite, and not of another program that uses the same key.

    Its name must be that of a folder below runs/, for results of that run are left there.
    """
    if not isinstance(config, dict) or not isinstance(name := config.get("name"), str) or not is_plain(config):
        return False
    if not makes_a_folder(name) or "${" in name:
        return False
    groups = [config.get(group) for group in ("task", "model", "data")]
    return all(isinstance(node, dict) and isinstance(node.get("_target_"), str) for node in groups)


def is_plain(value: Any) -> bool:
    """Return True if a value consists of JSON types only, and is neither nested too deeply nor too large."""
    left = [(value, 0)]
    for _ in range(MOST_VALUES):
        if not left:
            return True
        value, depth = left.pop()
        if isinstance(value, dict):
            if not all(isinstance(key, str | int) for key in value):
                return False
            value = list(value.values())
        if isinstance(value, list):
            if depth == DEEPEST:
                return False
            left += [(inner, depth + 1) for inner in value]
        elif not (value is None or isinstance(value, str | int | float)):
            return False
    return False


DEEPEST, MOST_VALUES = 20, 100_000
LONGEST = 200
"""Characters of a value that a note shows."""


def save(path: Path, model: nn.Module, about: dict[str, Any]) -> None:
    """Write a model's weights as safetensors, atomically; `about` must be JSON and becomes the file's metadata."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    metadata = {key: json_text.dumps(value) for key, value in about.items()}
    atomic.write(path, lambda temporary: save_file(tensors, temporary, metadata))


def read_about(path: str | Path) -> dict[str, Any]:
    """What is said of weights, by the keys of `ABOUT`; tensors are read of files in torch's old format alone.

    Of what torchvision publishes under a name it is the configuration that the name stands for: nothing is fetched.

    Raises:
        WeightsError: as `read` does.
    """
    if is_published(path):
        return {"config": torchvision_weights.settings(str(path))}
    path = _existing(path)
    if path.suffix != ".safetensors":
        return _from_content(path, _unpickled(path, mmap=zipfile.is_zipfile(path)), {}).about
    with _blaming(path), safe_open(path, "pt") as opened:
        return WeightFile(path, {}, _metadata(opened)).about


def read(path: str | Path) -> WeightFile:
    """Read `.safetensors`, a checkpoint or a bare state dict saved by torch, or what torchvision publishes.

    A checkpoint is this suite's, the reference implementation's or another's with its weights under a key of
    `CONTAINERS`. `torchvision:ResNet50_Weights.IMAGENET1K_V2` is fetched by torch.hub, once.

    Raises:
        WeightsError: if the file is missing, a folder, damaged, or holds no weights.
    """
    if is_published(path):
        weights = torchvision_weights.fetch(str(path))
        return _from_content(Path(weights.name), weights.content, {"classes": weights.classes})
    path = _existing(path)
    if path.suffix != ".safetensors":
        return _from_content(path, _unpickled(path, mmap=False), {})
    with _blaming(path), safe_open(path, "pt") as opened:
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        return WeightFile(path, tensors, _metadata(opened))


def located(path: str | Path) -> Path:
    """The file that a path names: of a run's folder its best weights; ~ is the home folder."""
    found = expand_home(path)
    best = found / "checkpoints" / "best.safetensors"
    return best if best.is_file() else found


def _existing(path: str | Path) -> Path:
    """The file that a path names, if there is one.

    Raises:
        WeightsError: if there is none, or it is a folder of no run.
    """
    found = located(path)
    if found.is_dir():
        raise WeightsError(f"weights={path}: is no folder of a run that has best weights; name a file in it")
    if not found.is_file():
        raise WeightsError(f"weights={path}: no such file")
    return found


def _unpickled(path: Path, *, mmap: bool) -> Any:
    """What torch saved; with `mmap` its tensors stay on the disk until they are used, unchecked."""
    with _blaming(path):
        try:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
        except pickle.UnpicklingError as error:
            refused = re.search(r"GLOBAL (\S+) was not an allowed global", str(error))
            if refused and _is_data(refused[1]):
                raise WeightsError(
                    f"weights={path}: contains a {refused[1]} object next to the weights, and is not loaded. If you "
                    "trust the file, save its weights alone, from the key that holds them:\n"
                    f"  checkpoint = torch.load({str(path)!r}, weights_only=False)\n"
                    "  torch.save(checkpoint['state_dict'], 'weights.pt')"
                ) from error
            raise


def _is_data(name: str) -> bool:
    """Return True for names of classes, as far as they can be told from functions, which only a hostile file has."""
    module, _, last = name.rpartition(".")
    root = module.partition(".")[0]
    return root in ("numpy", "omegaconf") or (root not in ("", "torch", "collections") and last[:1].isupper())


@contextmanager
def _blaming(path: Path) -> Iterator[None]:
    """Say of any error inside that the file is at fault: such files are met with many kinds, KeyError among them.

    Their own words are not repeated, for torch's advise to run whatever code is in the file.
    """
    try:
        yield
    except WeightsError:
        raise
    except Exception as error:
        raise WeightsError(
            f"weights={path}: is no weight file (safetensors, or a state_dict saved by torch.save), or a damaged one"
        ) from error


def _metadata(opened: Any) -> dict[str, Any]:
    """Return the metadata of a safetensors file under the keys of `ABOUT`; values that are not JSON stay strings."""
    about: dict[str, Any] = {}
    for key in ABOUT:
        if (value := (opened.metadata() or {}).get(key)) is not None:
            try:
                about[key] = json.loads(value)
            except (ValueError, RecursionError):
                about[key] = value
    return about


def _from_content(path: Path, content: Any, about: dict[str, Any]) -> WeightFile:
    notes, tensors = [], content
    if isinstance(content, dict) and (container := next((key for key in CONTAINERS if key in content), None)):
        tensors = content[container]
        about = about | {key: content[key] for key in ABOUT if key in content}
        if any(key in content for key in OPTIMIZERS):
            notes.append("its optimizer state is not used")
        if average := next((key for key in AVERAGES if key in content and key != container), None):
            notes.append(f"its average of the weights, under the key {average!r}, is not used")
    if not isinstance(tensors, dict) or not tensors or not all(isinstance(t, Tensor) for t in tensors.values()):
        keys = ", ".join(repr(key) for key in CONTAINERS)
        raise WeightsError(f"weights={path}: holds no state dict, neither bare nor under the key {keys}")
    return WeightFile(path, dict(tensors), about, notes)


def load(
    model: nn.Module,
    weights: WeightFile,
    *,
    backbone_only: bool,
    classes: list[str],
    category_ids: list[int] | None = None,
) -> Loaded:
    """Put weights into the model: all of them, or with `backbone_only` those of the layers before its head.

    Names are those of `weight_names`. A backbone may come from another model: a ResNet's layers are the same with or
    without the prefix `backbone.`, and what the file holds beyond them is left out.

    Args:
        model: takes the weights.
        weights: from `read`.
        backbone_only: see above.
        classes: names of the model's outputs.
        category_ids: COCO-Stuff's official ids of the outputs, if they have any. The reference implementation's
            segmenters have their outputs one too low for the 91 stuff classes; with their ids given here, the outputs
            are moved to where they belong, otherwise they are left as they are.

    Returns:
        What was loaded; as text, a few lines.

    Raises:
        WeightsError: listing what differs, and what would load all the same.
    """
    whole = model.state_dict()
    file, given, notes = _named_as(whole, weights.tensors)
    notes += [*weights.notes, *_notes_on_strides(model, weights, file), *_notes_on_dilation(file)]
    if backbone_only:
        wanted = _backbone(model, whole, given, file)
        chosen = {name: tensor for name, tensor in given.items() if name in wanted}
    else:
        wanted, chosen = whole, given
        notes += _notes_on_classes(weights, classes)
        if file.model in SEED_SEGMENTERS:
            chosen, note = _with_labels_moved(chosen, category_ids)
            notes.append(note)
    zeros = _biases_left_out(wanted, chosen, file)
    if differences := Differences.between(wanted, chosen | zeros):
        raise WeightsError(
            f"weights={weights.path}: do not fit {type(model).__name__}\n{differences}"
            + ("" if backbone_only else _offers(model, whole, given, file, differences))
        )
    model.load_state_dict(chosen | zeros, strict=False)
    if zeros:
        notes.append(f"{len(zeros)} biases of convolutions are zero, for the file has none: {listed(list(zeros))}")
    kept = [name for name in whole if name not in chosen and name not in zeros and not counts_batches(name)]
    return Loaded(weights.path, list(chosen), kept, [name for name in given if name not in chosen], notes)


def _named_as(
    wanted: dict[str, Tensor], tensors: dict[str, Tensor]
) -> tuple[NamedTensors, dict[str, Tensor], list[str]]:
    """A file's tensors, the same as far as possible by the wanted names, and what to say of a prefix taken off them."""
    file = renamed(tensors)
    if prefix := common_prefix(file.tensors, wanted):
        without = renamed({name.removeprefix(prefix): tensor for name, tensor in file.tensors.items()})
        if set(given := matched(without.tensors, wanted)) & set(wanted):
            return without, given, [f"all its names begin with {prefix}, which was taken off"]
    return file, matched(file.tensors, wanted), []


def _backbone(
    model: nn.Module, wanted: dict[str, Tensor], given: dict[str, Tensor], file: NamedTensors
) -> dict[str, Tensor]:
    """What the layers before the model's head want, with the pyramid where a detector's file holds all of that."""
    head: tuple[str, ...] = getattr(model, "head", ("fc.", "classifier.", "heads.", "head."))
    body = {name: tensor for name, tensor in wanted.items() if not name.startswith(head)}
    pyramid = {name: tensor for name, tensor in wanted.items() if name.startswith("pyramid.fpn.")}
    fits = not Differences.between(pyramid, {name: given[name] for name in pyramid if name in given})
    return body | pyramid if fits and file.origin == "detection" else body


def _offers(
    model: nn.Module, whole: dict[str, Tensor], given: dict[str, Tensor], file: NamedTensors, differences: Differences
) -> str:
    """What would load all the same, a line each."""
    offers = ""
    if file.model and not differences.only_shapes_of(("fc.", "branch.classifier.")):
        offers += f"\nthis file of the reference implementation is for model={file.model}"
    backbone = _backbone(model, whole, given, file)
    if not Differences.between(backbone, {name: given[name] for name in backbone if name in given}):
        offers += f"\n{BACKBONE_ALONE}"
    return offers


def _biases_left_out(wanted: dict[str, Tensor], given: dict[str, Tensor], file: NamedTensors) -> dict[str, Tensor]:
    """Zeros for the branch's convolutions that had no bias in the reference implementation: the same function."""
    if file.origin != "reference":
        return {}
    convolutions = [name.removesuffix("weight") for name, tensor in given.items() if tensor.ndim == 4]
    biases = [f"{name}bias" for name in convolutions if name.startswith("branch.")]
    return {name: torch.zeros_like(wanted[name]) for name in biases if name in wanted and name not in given}


def _notes_on_strides(model: nn.Module, weights: WeightFile, file: NamedTensors) -> list[str]:
    """Say where bottlenecks have their stride, if the file's and the model's differ: no name or shape shows it.

    Raises:
        WeightsError: if the file is torchvision's or the reference implementation's, whose are in the 3x3 convolution,
            or may be: a bare ResNet of which nothing else is known.
    """
    ours: bool = getattr(getattr(model, "backbone", model), "stride_in_1x1", False)
    if not any(re.search(r"layer\d\.\d+\.conv3\.weight$", name) for name in file.tensors):
        return []
    config = weights.about.get("config")
    bare = config is None and not any(name.startswith(OUR_SEGMENTERS) for name in file.tensors)
    if is_published(weights.path) or file.origin != "plain" or bare:
        if ours:
            raise WeightsError(
                f"weights={weights.path}: bottlenecks of {'bare ResNets' if bare else 'their kind'} have the stride in "
                f"{PLACES[False]}, as torchvision's have, the model's in {PLACES[True]}; set model.stride_in_1x1=false"
            )
        return []
    theirs = config["model"].get("stride_in_1x1", False) if config else ours
    return (
        []
        if theirs == ours
        else [f"their bottlenecks have the stride in {PLACES[theirs]}, the model's in {PLACES[ours]}"]
    )


def _notes_on_dilation(file: NamedTensors) -> list[str]:
    """Say that a backbone is of one of torchvision's segmenters, which only the names of their heads show."""
    heads = {name.split(".")[0] for name in file.tensors if not name.startswith("backbone.")}
    if file.origin != "plain" or not heads or not heads <= {"classifier", "aux_classifier"}:
        return []
    return [
        "these are one of torchvision's segmenters, whose last two stages are dilated where the model's have strides: "
        "its features will not be those that they learned"
    ]


OUR_SEGMENTERS = ("pyramid.", "branch.")
# By the value of stride_in_1x1.
PLACES = ("the 3x3 convolution", "the first 1x1 convolution")


def _notes_on_classes(weights: WeightFile, classes: list[str]) -> list[str]:
    """Compare the file's classes, if it names them, with the data set's.

    A WordNet id and its word are the same class. For all of ImageNet another list of words will do, since every
    publisher has its own, in the order of the ids.

    Raises:
        WeightsError: if they differ.
    """
    ours, imagenet = readable(classes), list(words().values())
    theirs: list[str] = weights.about.get("classes", ours)
    if theirs == ours:
        return []
    if ours == imagenet and len(theirs) == len(imagenet) and set(theirs) != set(imagenet):
        return [f"its classes are taken to be in the order of ImageNet's ids: {ours[0]!r} is {theirs[0]!r}"]
    raise WeightsError(
        f"weights={weights.path}: trained for {len(theirs)} classes ({listed(theirs)}), the data set has "
        f"{len(ours)} ({listed(ours)}){first_difference(theirs, ours)}; {BACKBONE_ALONE}"
    )


SEED_SEGMENTERS = ("seed_panoptic_fpn", "seed_vt_fpn")
STUFF_IDS = list(range(92, 183))


def _with_labels_moved(tensors: dict[str, Tensor], category_ids: list[int] | None) -> tuple[dict[str, Tensor], str]:
    """The reference implementation's weights with output i for class i, if the classes are the 91 of COCO-Stuff.

    It numbered these classes from the second on: its output i is class i + 1, and no pixel taught it the last one,
    which becomes that of class 0.
    """
    if category_ids != STUFF_IDS:
        return tensors, "trained with labels one too low: output i is class i + 1 of COCO-Stuff's 91 stuff classes"
    moved = {name: tensor.roll(1, 0) for name, tensor in tensors.items() if name.startswith("branch.classifier.")}
    return (
        tensors | moved,
        "trained with labels one too low: its outputs were moved on by one, so that output i is class i",
    )
