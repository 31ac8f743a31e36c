"""Mapping of state-dict keys: other programs' names of a network's tensors to ours, by a few rules."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

Origin = Literal["plain", "detection", "reference"]
"""Source of the keys: ours (torchvision's in a ResNet), torchvision's detectors, or the reference implementation."""
Rule = tuple[str, str | Callable[[re.Match[str]], str]]
"""Regular expression and the replacement of its matches."""

BACKBONE = "backbone."
WRAPPERS = ("module.", "_orig_mod.")
"""Prefixes of DataParallel and torch.compile."""

DETECTION_RULES: tuple[Rule, ...] = (
    (r"^backbone\.body\.", "backbone."),
    (r"^backbone\.fpn\.", "pyramid.fpn."),
    (r"^(pyramid\.fpn\.(?:inner|layer)_blocks\.\d)\.(weight|bias)$", r"\1.0.\2"),  # older files lack the 0
)

SEED_MODELS = (
    ("vt1.", "seed_vt_resnet18"),
    ("conv_5.", "seed_resnet18"),
    ("tokenizer", "seed_vt_fpn"),
    ("skip_con_conv", "seed_panoptic_fpn"),
)
"""Prefix of a key that only one network of the reference implementation has, and our `model=` of that network."""

SEED_RULES: tuple[Rule, ...] = (
    # Classifiers: six blocks in a row, those of the last two stages named separately.
    (r"^backbone\.0\.", "backbone.conv1."),
    (r"^backbone\.1\.", "backbone.bn1."),
    (r"^backbone\.([4-9])\.", lambda m: f"backbone.layer{int(m[1]) // 2 - 1}.{int(m[1]) % 2}."),
    (r"^conv_5\.", "backbone.layer4."),
    (r"^classification_head\.fc\.", "fc."),
    # Segmenters: stages as the paper counts them, with the stem as the first.
    (r"^backbone\.conv1\.0\.", "backbone.conv1."),
    (r"^backbone\.conv1\.1\.", "backbone.bn1."),
    (r"^backbone\.conv([2-5])\.(\d+)\.", lambda m: f"backbone.layer{int(m[1]) - 1}.{m[2]}."),
    # Inside a block: convolution, batch norm and ReLU, repeated.
    (r"\.plain_arch\.([036])\.", lambda m: f".conv{int(m[1]) // 3 + 1}."),
    (r"\.plain_arch\.([147])\.", lambda m: f".bn{int(m[1]) // 3 + 1}."),
    # The token stage: its parameters belong to convolutions or are bare ones.
    (r"\.W_a(?:\.weight)?$", ".filters.weight"),
    (r"\.W_tr(?:\.weight)?$", ".token_to_filter.weight"),
    (r"(tokenizer\d?)\.W_v(?:\.weight)?$", r"\1.embed.weight"),
    (r"(projector\d?)\.W_v(?:\.weight)?$", r"\1.value.weight"),
    (r"\.W_q(?:\.weight)?$", ".query.weight"),
    (r"\.W_k(?:\.weight)?$", ".key.weight"),
    (r"\.(key|query|value)_proj(?:\.weight)?$", r".\1.weight"),
    (r"\.f([12])(?:\.weight)?$", r".feed_\1.weight"),
    (r"^vt(\d)\.", lambda m: f"vt.{int(m[1]) - 1}."),
    (r"^(tokenizer|projector)(\d)\.", lambda m: f"pyramid.vt.{m[1]}s.{int(m[2]) - 2}."),
    (r"^transformer\.", "pyramid.vt.transformer."),
    # The pyramid and the semantic branch, with levels numbered by stage.
    (r"^skip_con_conv(\d)\.", lambda m: f"pyramid.fpn.inner_blocks.{int(m[1]) - 2}.0."),
    (r"^ss_branch\.u2\.", "branch.stages.0.0.0."),
    (r"^ss_branch\.u3\.(\d)\.", r"branch.stages.1.0.\1."),
    (r"^ss_branch\.u([45])\.(\d)\.(\d)\.", lambda m: f"branch.stages.{int(m[1]) - 2}.{m[2]}.{m[3]}."),
    (r"^ss_branch\.final_conv\.", "branch.classifier."),
)
"""From the reference implementation's keys to ours, applied in this order."""


@dataclass
class NamedTensors:
    """Tensors of a file under the keys of our models."""

    tensors: dict[str, Tensor]
    origin: Origin
    model: str | None = None
    """`model=` of a reference implementation's file, if its keys show it."""


def map_keys(tensors: dict[str, Tensor]) -> NamedTensors:
    """Recognise the origin of a state dict by its keys, and map them to ours."""
    tensors = _strip_wrappers(tensors)
    if any("plain_arch." in name for name in tensors):
        model = next((model for prefix, model in SEED_MODELS if any(n.startswith(prefix) for n in tensors)), None)
        named = {_apply(SEED_RULES, name): tensor for name, tensor in tensors.items()}
        return NamedTensors({name: _squeeze(name, tensor) for name, tensor in named.items()}, "reference", model)
    if any(name.startswith("backbone.body.") for name in tensors):
        return NamedTensors({_apply(DETECTION_RULES, name): tensor for name, tensor in tensors.items()}, "detection")
    return NamedTensors(tensors, "plain")


def _strip_wrappers(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Remove the prefixes of wrappers, as long as all keys have the same one."""
    for prefix in WRAPPERS:
        if tensors and all(name.startswith(prefix) for name in tensors):
            return _strip_wrappers({name.removeprefix(prefix): tensor for name, tensor in tensors.items()})
    return tensors


def find_common_prefix(names: Iterable[str], wanted: Iterable[str]) -> str:
    """Return the prefix, e.g. `net.` or `module.model.`, that all names share and no wanted name has."""
    names, wanted, prefix = list(names), list(wanted), ""
    while names and all("." in name for name in names):
        first = names[0].partition(".")[0] + "."
        is_shared = all(name.startswith(first) for name in names)
        if first == BACKBONE or not is_shared or any(name.startswith(first) for name in wanted):
            break
        names, prefix = [name.removeprefix(first) for name in names], prefix + first
    return prefix


def match_backbone_prefix(tensors: dict[str, Tensor], wanted: Iterable[str]) -> dict[str, Tensor]:
    """Add or remove `backbone.` in front of keys where the wanted ones have or lack it."""
    exact = set(wanted)
    by_plain = {name.removeprefix(BACKBONE): name for name in exact}
    matched = {}
    for name, tensor in tensors.items():
        other = by_plain.get(name.removeprefix(BACKBONE), name)
        matched[name if name in exact or other in tensors else other] = tensor
    return matched


def _apply(rules: Iterable[Rule], name: str) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def _squeeze(name: str, tensor: Tensor) -> Tensor:
    """Turn the reference implementation's 1x1 Conv1d weights (out, in, 1) into ours, (out, in)."""
    in_token_stage = name.startswith(("vt.", "pyramid.vt."))
    return tensor.squeeze(2) if in_token_stage and tensor.ndim == 3 and tensor.shape[2] == 1 else tensor
