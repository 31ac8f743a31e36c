"""Loading of weight files into models, with a report on loaded tensors or on differences."""

from __future__ import annotations

import re

import torch
from torch import Tensor, nn

from visual_transformers.checkpoints.compatibility import (
    Differences,
    LoadReport,
    describe_first_difference,
    is_batch_counter,
)
from visual_transformers.checkpoints.key_mapping import (
    NamedTensors,
    find_common_prefix,
    map_keys,
    match_backbone_prefix,
)
from visual_transformers.checkpoints.weights import WeightFile, is_published
from visual_transformers.data.imagenet_classes import load_class_names, replace_wordnet_ids
from visual_transformers.data.io.files import join_first
from visual_transformers.errors import WeightsError

BACKBONE_HINT = "to train from it, weights.backbone_only=true loads only the layers before the head"
SEGMENTER_PREFIXES = ("pyramid.", "branch.")
STRIDE_PLACES = ("the 3x3 convolution", "the first 1x1 convolution")
"""By the value of `stride_in_1x1`."""
SEED_SEGMENTERS = ("seed_panoptic_fpn", "seed_vt_fpn")
STUFF_IDS = list(range(92, 183))


def load_weights(
    model: nn.Module,
    file: WeightFile,
    *,
    backbone_only: bool,
    classes: list[str],
    category_ids: list[int] | None = None,
) -> LoadReport:
    """Load all weights of a file, or with `backbone_only` those of the layers before the model's head.

    A backbone may come from another model: the keys of a ResNet match with and without the prefix `backbone.`, and
    other tensors of the file are not used.

    Args:
        model: receives the weights.
        file: from `weights.read`.
        backbone_only: leave the model's head as it is.
        classes: names of the model's outputs.
        category_ids: COCO-Stuff's official ids of the outputs, if they have any. The reference implementation trained
            its segmenters with labels one too low for the 91 stuff classes; their outputs are shifted if these are the
            ids, and left as they are otherwise.

    Raises:
        WeightsError: if the file does not fit; lists the differences and ways to load it.
    """
    state = model.state_dict()
    named, given, notes = _match_keys(state, file.tensors)
    notes += [*file.notes, *_check_stride(model, file, named), *_check_dilation(named)]
    if backbone_only:
        wanted = _select_backbone(model, state, given, named)
        chosen = {name: tensor for name, tensor in given.items() if name in wanted}
    else:
        wanted, chosen = state, given
        notes += _check_classes(file, classes)
        if named.model in SEED_SEGMENTERS:
            chosen, note = _shift_outputs(chosen, category_ids)
            notes.append(note)
    zeros = _zero_missing_biases(wanted, chosen, named)
    loaded = chosen | zeros
    if differences := Differences.compare(wanted, loaded):
        hints = "" if backbone_only else _suggest_alternatives(model, state, given, named, differences)
        raise WeightsError(f"weights={file.path}: do not fit {type(model).__name__}\n{differences}{hints}")
    model.load_state_dict(loaded, strict=False)
    if zeros:
        notes.append(f"{len(zeros)} biases of convolutions are zero, because the file has none: {join_first([*zeros])}")
    not_loaded = [name for name in state if name not in loaded and not is_batch_counter(name)]
    return LoadReport(file.path, list(chosen), not_loaded, [name for name in given if name not in chosen], notes)


def _match_keys(
    wanted: dict[str, Tensor], tensors: dict[str, Tensor]
) -> tuple[NamedTensors, dict[str, Tensor], list[str]]:
    """Map a file's keys to ours, and as far as possible to the wanted ones; note a removed prefix."""
    named = map_keys(tensors)
    if prefix := find_common_prefix(named.tensors, wanted):
        shorter = map_keys({name.removeprefix(prefix): tensor for name, tensor in named.tensors.items()})
        if set(given := match_backbone_prefix(shorter.tensors, wanted)) & set(wanted):
            return shorter, given, [f"all its names begin with {prefix}, which was removed"]
    return named, match_backbone_prefix(named.tensors, wanted), []


def _select_backbone(
    model: nn.Module, state: dict[str, Tensor], given: dict[str, Tensor], named: NamedTensors
) -> dict[str, Tensor]:
    """Select the layers before the model's head, with the feature pyramid if a detector's file has all of it."""
    head: tuple[str, ...] = getattr(model, "head", ("fc.", "classifier.", "heads.", "head."))
    body = {name: tensor for name, tensor in state.items() if not name.startswith(head)}
    pyramid = {name: tensor for name, tensor in state.items() if name.startswith("pyramid.fpn.")}
    return body | pyramid if named.origin == "detection" and _fits(pyramid, given) else body


def _fits(wanted: dict[str, Tensor], given: dict[str, Tensor]) -> bool:
    return not Differences.compare(wanted, {name: given[name] for name in wanted if name in given})


def _suggest_alternatives(
    model: nn.Module, state: dict[str, Tensor], given: dict[str, Tensor], named: NamedTensors, differences: Differences
) -> str:
    """Return ways to load the file or its backbone, a line each."""
    hints = ""
    if named.model and not differences.only_shapes_of(("fc.", "branch.classifier.")):
        hints += f"\nthis file of the reference implementation is for model={named.model}"
    if _fits(_select_backbone(model, state, given, named), given):
        hints += f"\n{BACKBONE_HINT}"
    return hints


def _zero_missing_biases(wanted: dict[str, Tensor], given: dict[str, Tensor], named: NamedTensors) -> dict[str, Tensor]:
    """Return zeros for branch convolutions that have no bias in the reference implementation: the same function."""
    if named.origin != "reference":
        return {}
    convolutions = [name for name, tensor in given.items() if tensor.ndim == 4 and name.startswith("branch.")]
    biases = [f"{name.removesuffix('weight')}bias" for name in convolutions]
    return {name: torch.zeros_like(wanted[name]) for name in biases if name in wanted and name not in given}


def _check_stride(model: nn.Module, file: WeightFile, named: NamedTensors) -> list[str]:
    """Note if bottlenecks have their stride in another convolution than the model's: no key or shape shows it.

    torchvision and the reference implementation have it in the 3x3 convolution; so does a bare ResNet, presumably.
    Their files are refused if the model has it elsewhere.
    """
    in_model: bool = getattr(getattr(model, "backbone", model), "stride_in_1x1", False)
    if not any(re.search(r"layer\d\.\d+\.conv3\.weight$", name) for name in named.tensors):
        return []
    config = file.metadata.get("config")
    is_bare = config is None and not any(name.startswith(SEGMENTER_PREFIXES) for name in named.tensors)
    if is_published(file.path) or named.origin != "plain" or is_bare:
        if in_model:
            raise WeightsError(
                f"weights={file.path}: bottlenecks of {'bare ResNets' if is_bare else 'this kind'} have the stride in "
                f"{STRIDE_PLACES[False]}, as torchvision's, but the model's in {STRIDE_PLACES[True]}. Set "
                "model.stride_in_1x1=false"
            )
        return []
    in_file = config["model"].get("stride_in_1x1", False) if config else in_model
    if in_file == in_model:
        return []
    return [f"its bottlenecks have the stride in {STRIDE_PLACES[in_file]}, the model's in {STRIDE_PLACES[in_model]}"]


def _check_dilation(named: NamedTensors) -> list[str]:
    """Note if a backbone comes from a torchvision segmenter, which only the names of its heads show."""
    heads = {name.split(".")[0] for name in named.tensors if not name.startswith("backbone.")}
    if named.origin != "plain" or not heads or not heads <= {"classifier", "aux_classifier"}:
        return []
    return [
        "these weights come from a torchvision segmenter, whose last two stages are dilated where the model's have "
        "strides: the model's features will differ from those that it learned"
    ]


def _check_classes(file: WeightFile, classes: list[str]) -> list[str]:
    """Compare the classes in the file's metadata, if any, with the data set's; refuse other ones.

    A WordNet id and its word are the same class. For all of ImageNet, other words are accepted with a note, because
    every publisher has its own, in the order of the ids.
    """
    in_data, imagenet = replace_wordnet_ids(classes), list(load_class_names().values())
    in_file: list[str] = file.metadata.get("classes", in_data)
    if in_file == in_data:
        return []
    if in_data == imagenet and len(in_file) == len(imagenet) and set(in_file) != set(imagenet):
        return [f"its classes are assumed to be in the order of ImageNet's ids: {in_data[0]!r} is {in_file[0]!r}"]
    raise WeightsError(
        f"weights={file.path}: trained for {len(in_file)} classes ({join_first(in_file)}), the data set has "
        f"{len(in_data)} ({join_first(in_data)}){describe_first_difference(in_file, in_data)}; {BACKBONE_HINT}"
    )


def _shift_outputs(tensors: dict[str, Tensor], category_ids: list[int] | None) -> tuple[dict[str, Tensor], str]:
    """Move a reference segmenter's output i to class i + 1 for the 91 stuff classes, on which it was trained so.

    No pixel trained its last output, which becomes that of class 0.
    """
    if category_ids != STUFF_IDS:
        return tensors, "trained with labels one too low: output i is class i + 1 of COCO-Stuff's 91 stuff classes"
    shifted = {name: tensor.roll(1, 0) for name, tensor in tensors.items() if name.startswith("branch.classifier.")}
    return (
        tensors | shifted,
        "trained with labels one too low: outputs were shifted by one, so that output i is class i",
    )
