"""From the configuration's group `distillation` to a teacher with its weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn

from visual_transformers.checkpoints import weights
from visual_transformers.config.adoption import sanitized
from visual_transformers.config.instantiate import build
from visual_transformers.config.schema import Node
from visual_transformers.data.normalization import IMAGENET_MEAN, IMAGENET_STD
from visual_transformers.errors import ConfigError, WeightsError
from visual_transformers.training.distillation import Distillation


def build_distillation(
    node: Node,
    *,
    classes: list[str],
    category_ids: list[int] | None = None,
    place: Callable[[nn.Module], nn.Module] = lambda model: model,
    trust: Sequence[str] = (),
) -> Distillation:
    """The distillation with its teacher: built, loaded, on the device, in evaluation mode and without gradients.

    Args:
        node: the group's keys.
        classes: of the data set, in its order.
        category_ids: see `weights.load`.
        place: puts a model on the device, as `Hardware.place`.
        trust: packages of the user's own that may be named.

    Raises:
        UserError: if there is nothing to build, its weights cannot be fetched or do not fit, or it is for other classes
            or for images that are normalised in another way.
    """
    found: Distillation = build(node | {"teacher": None}, "distillation", trust=trust)
    described = node.get("teacher")
    if described is None and found.weights is None:
        raise ConfigError(
            "distillation: there is no teacher; name its weights with distillation.weights=PATH, or choose one with "
            "distillation=fbnetv3_g"
        )
    teacher = None if described is None else _described(described, trust)
    if found.weights is not None:
        with _of_the_teacher():
            teacher = _loaded(teacher, found.weights, classes, category_ids, trust)
    assert teacher is not None
    found.teacher = place(teacher).eval().requires_grad_(False)
    return found


def _described(node: Node, trust: Sequence[str]) -> nn.Module:
    """What the nested `_target_` builds.

    Raises:
        ConfigError: if it refuses its keys, its weights cannot be fetched, or it is no model for our images.
    """
    try:
        teacher = build(node, "distillation.teacher", kind=(nn.Module,), trust=trust)
    except ConfigError as error:
        key = next((key for key in FETCHES if node.get(key)), None)
        if key is None or not _is_of_the_network(error):
            raise
        raise ConfigError(
            f"distillation.teacher: the weights of {node.get('model_name', node['_target_'])} cannot be downloaded "
            f"({_first_line(error.__cause__)}); fetch them where there is a network, and give the file with "
            f"distillation.teacher.{key}={FETCHES[key]} distillation.weights=PATH"
        ) from error
    _check_normalisation(teacher)
    return teacher


FETCHES = {"pretrained": "false", "weights": "null"}
"""Keys with which timm's and torchvision's builders fetch weights, and with which values they do not."""


def _loaded(
    teacher: nn.Module | None, path: str, classes: list[str], category_ids: list[int] | None, trust: Sequence[str]
) -> nn.Module:
    """The teacher with the weights of the file, or without one the model whose configuration the file carries.

    Raises:
        UserError: if it carries none, is for other classes, or does not fit.
    """
    file = weights.read(path)
    if teacher is None:
        about = weights.read_about(path) | file.about
        if "config" not in about:
            raise WeightsError(
                f"weights={path}: does not say which model it is for; describe that with "
                "+distillation.teacher._target_=... and its keys"
            )
        outputs = len(about.get("classes", classes))
        node = sanitized(about["config"]["model"], "model", path, trust)
        teacher = build(node, "distillation.weights", kind=(nn.Module,), trust=trust, num_classes=outputs)
    print(f"teacher: {weights.load(teacher, file, backbone_only=False, classes=classes, category_ids=category_ids)}")
    return teacher


@contextmanager
def _of_the_teacher() -> Iterator[None]:
    """Say of weights that they are the teacher's, of which the backbone alone is of no use."""
    try:
        yield
    except WeightsError as error:
        said = str(error).replace(f"; {weights.BACKBONE_ALONE}", "").replace(f"\n{weights.BACKBONE_ALONE}", "")
        raise ConfigError(f"distillation.{said}") from error


def _check_normalisation(teacher: nn.Module) -> None:
    """See that a model of timm was trained on images that are normalised as ours.

    Raises:
        ConfigError: if it was not.
    """
    published: dict[str, Any] = getattr(teacher, "pretrained_cfg", None) or {}
    for key, ours in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD)):
        theirs = published.get(key, ours)
        if tuple(theirs) != tuple(ours):
            raise ConfigError(
                f"distillation.teacher: {published.get('architecture')} was trained on images of {key} {theirs}, and "
                f"ours are normalised by {ours}; choose another teacher"
            )


def _is_of_the_network(error: BaseException | None) -> bool:
    """Whether the system is among the causes, as it is where a name is unknown or a connection refused."""
    while error is not None:
        if isinstance(error, OSError):
            return True
        error = error.__cause__ or error.__context__
    return False


def _first_line(error: BaseException | None) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]
