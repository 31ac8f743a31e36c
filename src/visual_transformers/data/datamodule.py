"""Base classes of the data sets: class names, training, validation and test sets, and a check before training."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Protocol

import numpy as np
from annotated_types import Ge, Le
from numpy.typing import NDArray
from PIL.Image import Image
from torch import Tensor
from torchvision.transforms import v2

from visual_transformers.data.dataset import FileSamples, count_targets
from visual_transformers.data.io.bad_files import BadFiles
from visual_transformers.data.io.exclude_list import is_excluded, read_exclude_list
from visual_transformers.data.io.reading import Note, Reading
from visual_transformers.errors import BadFileError, DataError
from visual_transformers.paths import expand_home

EvalTransform = Callable[[Image], Tensor]
"""Transform of an RGB image of any size to uint8 (3, H, W), the input of `normalization.Normalise`."""


class Samples(Protocol):
    """Set of (image, target) pairs: uint8 image (3, H, W); target a class index or a uint8 mask (H, W) of them."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[Tensor, Any]: ...


@dataclass(kw_only=True)
class DataModule(ABC):
    """Base of all data sets; the fields of a subclass are its configuration keys.

    Args:
        batch_size: images per optimizer step.
        eval_batch_size: images per batch in evaluation.

    Raises:
        DataError: from the methods that build a set or load images, if the folders are not as expected.
    """

    task: ClassVar[str]
    mirrored_labels: ClassVar[tuple[tuple[int, int], ...]] = ()
    """Pairs of class indices that a mirrored image swaps, e.g. left and right arm."""
    eval_transform_keys: ClassVar[tuple[str, ...]] = ()
    """Keys that define how an image becomes model input, independent of the data set that it comes from."""

    batch_size: Annotated[int, Ge(1)] = 64
    eval_batch_size: Annotated[int, Ge(1)] = 128

    @property
    @abstractmethod
    def classes(self) -> list[str]:
        """Class names by class index."""

    @abstractmethod
    def train_set(self) -> Samples:
        """Build the training set, augmented through torch's global random state."""

    @abstractmethod
    def val_set(self) -> Samples:
        """Build the validation set, which is deterministic."""

    @property
    def has_test_split(self) -> bool:
        """True if `test_set` differs from `val_set`, which selects the best weights."""
        return False

    def test_set(self) -> Samples:
        """Build the set that `mode=test` scores: the validation set unless the data set has a test split."""
        return self.val_set()

    @abstractmethod
    def load_val_images(self, count: int) -> list[tuple[str, Image]]:
        """Load at most `count` unprocessed validation images, evenly spaced over the split, with names."""

    @classmethod
    def build_eval_transform(cls, settings: dict[str, Any]) -> EvalTransform:
        """Build the evaluation transform of a model trained with these settings (the keys of `data`).

        It needs no data set, so that a trained model can be used without one. By default images keep their size.
        """
        return v2.Compose([v2.ToImage()])

    @classmethod
    def reading_from_settings(cls, settings: dict[str, Any]) -> Reading:
        """Return how images are read for a model trained with these settings (the keys of `data`)."""
        given, known = settings.get("reading") or {}, {key.name for key in fields(Reading)}
        return Reading(**{key: value for key, value in given.items() if key in known})

    @classmethod
    def category_ids(cls, settings: dict[str, Any]) -> list[int] | None:
        """Return the official ids of the classes, if a result format of the data set needs them."""
        return None

    @classmethod
    def classes_from_settings(cls, settings: dict[str, Any]) -> list[str] | None:
        """Return the class names that the settings define; None if they depend on the data set's files."""
        names = settings.get("class_names")
        return list(names) if names else None

    def build_mixing(self) -> Callable[[Tensor, Tensor], Any] | None:
        """Build the transform of training batches on the device, e.g. mixup: float images (B, 3, H, W) and targets."""
        return None

    def bad_files(self, samples: Samples) -> BadFiles:
        """Create the record of a split's unreadable files; by default the first one is an error."""
        return BadFiles(len(samples))

    def check(self, samples: Samples) -> None:
        """Check one of the sets before training; raise DataError with the file, the value and the setting to change."""
        if len(samples) == 0:
            raise DataError(f"{type(self).__name__}: a split holds no samples")


@dataclass(kw_only=True)
class FileData(DataModule):
    """Base of the data sets whose images are files.

    Args:
        root: root folder of the data set; `~` is the home folder.
        reading: rules that turn an image file into pixels.
        check_files: samples per split to read before training.
        exclude: text file with one file to leave out per line, as written by `mode=check_data`.
        on_error: action on an unusable file: `stop` the run, or `skip` the sample, count it and print its name.
        max_skipped: fraction of a split's samples that may be skipped before the run stops.

    Raises:
        DataError: if the list of `exclude` cannot be read.
    """

    eval_transform_keys: ClassVar[tuple[str, ...]] = ("reading",)

    root: str
    reading: Reading = field(default_factory=Reading)
    check_files: Annotated[int, Ge(0)] = 200
    exclude: str | None = None
    on_error: Literal["stop", "skip"] = "stop"
    max_skipped: Annotated[float, Ge(0), Le(1)] = 0.01

    def __post_init__(self) -> None:
        self.root = str(expand_home(self.root))
        self.excluded = read_exclude_list(self.exclude)

    def kept_indices(self, *files: Sequence[str | Path]) -> NDArray[np.int64]:
        """Indices of samples none of whose files is excluded; each list in `files` has one file per sample."""
        count = len(files[0])
        if not self.excluded:
            return np.arange(count)
        rows = enumerate(zip(*files, strict=True))
        indices = np.array([index for index, row in rows if not is_excluded(self.excluded, *row)], int)
        if self.exclude:
            print(f"data.exclude={self.exclude}: left out {count - len(indices)} of {count} samples")
        return indices

    def bad_files(self, samples: Samples) -> BadFiles:
        """Create the record of a split's unreadable files; they are skipped if `on_error` is `skip`."""
        return BadFiles(len(samples), self.on_error == "skip", self.max_skipped)

    def check(self, samples: Samples) -> None:
        """Read `check_files` evenly spaced samples, print their notes, and check the counts of their targets."""
        super().check(samples)
        assert isinstance(samples, FileSamples)
        bad_files = self.bad_files(samples)
        indices = spread_indices(len(samples), self.check_files)
        note_counts: Counter[Note] = Counter()
        class_counts = np.zeros(len(self.classes) + 1, np.int64)
        texts = self._describe_notes()
        for index in indices:
            try:
                notes, target = samples.read(index)
            except BadFileError as error:
                if not bad_files.allowed:
                    raise
                bad_files.skip(error)
            else:
                note_counts.update(note for note in texts if note in notes)
                class_counts += count_targets(target, len(self.classes))
        for note, count in note_counts.items():
            print(f"note: of {len(indices)} images that were checked, {count} {texts[note]}")
        if indices:
            self.check_targets(class_counts, len(indices))

    def check_targets(self, counts: NDArray[np.int64], samples: int) -> None:
        """Check target counts of some samples, per class and then ignored; raise DataError if all are ignored."""

    def _describe_notes(self) -> dict[Note, str]:
        """Return the notes that are reported before training, and how such images are handled."""
        texts = {
            Note.TRANSPARENT: f"are transparent somewhere; {self.reading.background} is shown there "
            "(data.reading.background)",
            Note.DEEP: "have more than 8 bits a channel, scaled to 8 (data.reading.white)",
            Note.BAD_EXIF: "have unreadable EXIF data, and are used as stored",
        }
        if self.task == "segmentation":
            texts[Note.HALF_TURNED] = (
                "are turned by their EXIF orientation to the same size; their masks are assumed to match the upright "
                "image (data.reading.upright)"
            )
        return texts


def spread_indices(length: int, count: int) -> list[int]:
    """Return at most `count` indices, evenly spaced from the first to the last of `length`."""
    if count < 2 or length <= count:
        return list(range(min(length, max(count, 0))))
    return [round(i * (length - 1) / (count - 1)) for i in range(count)]
