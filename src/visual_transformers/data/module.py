"""What every data set offers to the runner: class names, a training set, a validation set, a check before work."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from PIL.Image import Image
from torch import Tensor

from visual_transformers.errors import DataError

Preparation = Callable[[Image], Tensor]
"""From an RGB image of any size to a float image (3, H, W) for the model."""


class Samples(Protocol):
    """A set of (image, target) pairs: float image (3, H, W), target a class index or an (H, W) mask of them."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[Tensor, Any]: ...


@dataclass(kw_only=True)
class DataModule(ABC):
    """Base of all data sets; the fields of a subclass are its configuration keys.

    Args:
        batch_size: images in one optimizer step.
        eval_batch_size: images at a time in evaluation.
    """

    task: ClassVar[str]

    batch_size: int = 64
    eval_batch_size: int = 128

    @property
    @abstractmethod
    def classes(self) -> list[str]:
        """Names of the classes; a target or a pixel holds an index into them."""

    @abstractmethod
    def train_set(self) -> Samples:
        """Training samples, augmented through torch's global random state.

        Raises:
            DataError: if the folders are not as expected.
        """

    @abstractmethod
    def val_set(self) -> Samples:
        """Validation samples, always the same.

        Raises:
            DataError: if the folders are not as expected.
        """

    def test_set(self) -> Samples:
        """What `mode=test` scores: the validation set, unless the data set has one of its own."""
        return self.val_set()

    @abstractmethod
    def pictures(self, count: int) -> list[tuple[str, Image]]:
        """At most `count` validation images as they are, before any preparation, spread over the split, with names.

        Raises:
            DataError: if the folders are not as expected.
        """

    @classmethod
    @abstractmethod
    def preparation(cls, settings: dict[str, Any]) -> Preparation:
        """How any image is made ready for a model trained with these settings (the keys of `data`).

        It needs no data set, so that a trained model can be used where there is none.
        """

    @classmethod
    def category_ids(cls, settings: dict[str, Any]) -> list[int] | None:
        """Official ids of the classes in their order, where the data set has a result format that names them."""
        return None

    @classmethod
    def known_classes(cls, settings: dict[str, Any]) -> list[str] | None:
        """Names of the classes where the settings alone tell them; None where that takes the data set's files."""
        return None

    def check(self, samples: Samples) -> None:
        """Look at one of the sets above before any work starts.

        Raises:
            DataError: naming the file, the value and the setting that mends it.
        """
        if len(samples) == 0:
            raise DataError(f"{type(self).__name__}: a split holds no samples")


def spread(length: int, count: int) -> list[int]:
    """At most `count` indices, evenly spaced from the first to the last of `length`."""
    if count < 2 or length <= count:
        return list(range(min(length, max(count, 0))))
    return [round(i * (length - 1) / (count - 1)) for i in range(count)]
