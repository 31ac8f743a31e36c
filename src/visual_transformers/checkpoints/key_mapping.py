"""The names of weights: what other programs call the tensors of a network, turned into ours by a few rules."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

Origin = Literal["plain", "detection", "reference"]
"""Whose names: ours, which are torchvision's in a ResNet; torchvision's detectors'; the reference implementation's."""
Rule = tuple[str, str | Callable[[re.Match[str]], str]]
"""A regular expression, and what takes the place of its matches."""


@dataclass
class NamedTensors:
    """A file's tensors under the names of our models.

    Args:
        tensors: by name; what no rule knows keeps its own.
        origin: whose names they had.
        model: for the reference implementation's files, the `model=` that they belong to, if it can be told.
    """

    tensors: dict[str, Tensor]
    origin: Origin
    model: str | None = None


def renamed(tensors: dict[str, Tensor]) -> NamedTensors:
    """Recognise a file by its names and give its tensors ours."""
    tensors = unwrapped(tensors)
    if any("plain_arch." in name for name in tensors):
        model = next((model for mark, model in SEED_MODELS if any(n.startswith(mark) for n in tensors)), None)
        named = {_by(SEED, name): tensor for name, tensor in tensors.items()}
        return NamedTensors({name: _pointwise(name, tensor) for name, tensor in named.items()}, "reference", model)
    if any(name.startswith("backbone.body.") for name in tensors):
        return NamedTensors({_by(DETECTION, name): tensor for name, tensor in tensors.items()}, "detection")
    return NamedTensors(tensors, "plain")


def unwrapped(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names without the prefixes of DataParallel and torch.compile, as long as all have the same one."""
    for prefix in WRAPPERS:
        if tensors and all(name.startswith(prefix) for name in tensors):
            return unwrapped({name.removeprefix(prefix): tensor for name, tensor in tensors.items()})
    return tensors


def common_prefix(names: Iterable[str], wanted: Iterable[str]) -> str:
    """Return the prefix, e.g. `net.` or `module.model.`, that all names share and no wanted name has."""
    names, wanted, prefix = list(names), list(wanted), ""
    while names and all("." in name for name in names):
        first = names[0].partition(".")[0] + "."
        if (
            first == BACKBONE
            or not all(name.startswith(first) for name in names)
            or any(name.startswith(first) for name in wanted)
        ):
            break
        names, prefix = [name.removeprefix(first) for name in names], prefix + first
    return prefix


def matched(tensors: dict[str, Tensor], wanted: Iterable[str]) -> dict[str, Tensor]:
    """Tensors under the wanted names, whether they or those say `backbone.` in front of a ResNet's names or not."""
    exact = set(wanted)
    by_plain = {name.removeprefix(BACKBONE): name for name in exact}
    found = {}
    for name, tensor in tensors.items():
        other = by_plain.get(name.removeprefix(BACKBONE), name)
        found[name if name in exact or other in tensors else other] = tensor
    return found


def _by(rules: Iterable[Rule], name: str) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def _pointwise(name: str, tensor: Tensor) -> Tensor:
    """The reference implementation's 1x1 Conv1d weights (out, in, 1) as ours, (out, in)."""
    token_stage = name.startswith(("vt.", "pyramid.vt."))
    return tensor.squeeze(2) if token_stage and tensor.ndim == 3 and tensor.shape[2] == 1 else tensor


BACKBONE = "backbone."
WRAPPERS = ("module.", "_orig_mod.")

DETECTION: tuple[Rule, ...] = (
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
"""How a name begins that only one network of the reference implementation has, and our `model=` of that network."""

SEED: tuple[Rule, ...] = (
    # Classifiers: six blocks in a row, the last two stages' apart.
    (r"^backbone\.0\.", "backbone.conv1."),
    (r"^backbone\.1\.", "backbone.bn1."),
    (r"^backbone\.([4-9])\.", lambda m: f"backbone.layer{int(m[1]) // 2 - 1}.{int(m[1]) % 2}."),
    (r"^conv_5\.", "backbone.layer4."),
    (r"^classification_head\.fc\.", "fc."),
    # Segmenters: stages as the paper counts them, the stem being the first.
    (r"^backbone\.conv1\.0\.", "backbone.conv1."),
    (r"^backbone\.conv1\.1\.", "backbone.bn1."),
    (r"^backbone\.conv([2-5])\.(\d+)\.", lambda m: f"backbone.layer{int(m[1]) - 1}.{m[2]}."),
    # Inside a block: convolution, batch norm, ReLU, and again.
    (r"\.plain_arch\.([036])\.", lambda m: f".conv{int(m[1]) // 3 + 1}."),
    (r"\.plain_arch\.([147])\.", lambda m: f".bn{int(m[1]) // 3 + 1}."),
    # The token stage, whose parameters may be a convolution's or bare ones.
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
    # The pyramid and the semantic branch, levels numbered by stage.
    (r"^skip_con_conv(\d)\.", lambda m: f"pyramid.fpn.inner_blocks.{int(m[1]) - 2}.0."),
    (r"^ss_branch\.u2\.", "branch.stages.0.0.0."),
    (r"^ss_branch\.u3\.(\d)\.", r"branch.stages.1.0.\1."),
    (r"^ss_branch\.u([45])\.(\d)\.(\d)\.", lambda m: f"branch.stages.{int(m[1]) - 2}.{m[2]}.{m[3]}."),
    (r"^ss_branch\.final_conv\.", "branch.classifier."),
)
"""From the reference implementation's names to ours, one after the other."""
