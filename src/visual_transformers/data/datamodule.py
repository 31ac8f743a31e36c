"""What every data set offers to the runner: class names, a training set, a validation set, a check before work."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image
from torch import Tensor

from visual_transformers.data.dataset import FileSamples, target_counts
from visual_transformers.data.io.bad_files import BadFiles
from visual_transformers.data.io.exclude_list import excluded_files, is_excluded
from visual_transformers.data.io.reading import Note, Reading
from visual_transformers.errors import BadFileError, DataError
from visual_transformers.paths import expand_home

Preparation = Callable[[Image], Tensor]
"""From an RGB image of any size to the uint8 image (3, H, W) that `transforms.Normalise` makes ready for the model."""


class Samples(Protocol):
    """A set of (image, target) pairs: uint8 image (3, H, W), target a class index or a uint8 mask (H, W) of them."""

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
    mirrored_labels: ClassVar[tuple[tuple[int, int], ...]] = ()
    """Pairs of class indices that a mirrored image swaps, as left and right arm."""
    prepared_by: ClassVar[tuple[str, ...]] = ()
    """Keys that say how an image is made ready for the model, whatever data set it is of."""

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

    @property
    def has_test_split(self) -> bool:
        """Whether `test_set` is another set than `val_set`, which picks the best weights."""
        return False

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
    def reads(cls, settings: dict[str, Any]) -> Reading:
        """Return how images are read for a model trained with these settings (the keys of `data`)."""
        given, known = settings.get("reading") or {}, {key.name for key in fields(Reading)}
        return Reading(**{key: value for key, value in given.items() if key in known})

    @classmethod
    def category_ids(cls, settings: dict[str, Any]) -> list[int] | None:
        """Official ids of the classes in their order, where the data set has a result format that names them."""
        return None

    def mixing(self) -> Callable[[Tensor, Tensor], Any] | None:
        """What each training batch goes through on the device, as mixup: float images (B, 3, H, W) and targets."""
        return None

    def bad_files(self, samples: Samples) -> BadFiles:
        """What becomes of the samples of a split that cannot be read: the first one is an error."""
        return BadFiles(len(samples))

    @classmethod
    def known_classes(cls, settings: dict[str, Any]) -> list[str] | None:
        """Names of the classes where the settings alone tell them; None where that takes the data set's files."""
        names = settings.get("class_names")
        return list(names) if names else None

    def check(self, samples: Samples) -> None:
        """Look at one of the sets above before any work starts.

        Raises:
            DataError: naming the file, the value and the setting that mends it.
        """
        if len(samples) == 0:
            raise DataError(f"{type(self).__name__}: a split holds no samples")


@dataclass(kw_only=True)
class FileData(DataModule):
    """Base of the data sets whose images are files.

    Args:
        root: the data set's folder; ~ is the home folder.
        reading: how an image file becomes pixels.
        check_files: samples of each split that are read before training.
        exclude: a text file of files to leave out, one a line, as `mode=check_data` writes it; null for none.
        on_error: what a file that cannot be used does in training and evaluation: `stop` the run, or `skip` the sample,
            which is counted and named.
        max_skipped: share of a split's samples that may be skipped before the run stops.
    """

    prepared_by: ClassVar[tuple[str, ...]] = ("reading",)

    root: str
    reading: Reading = field(default_factory=Reading)
    check_files: int = 200
    exclude: str | None = None
    on_error: Literal["stop", "skip"] = "stop"
    max_skipped: float = 0.01

    def __post_init__(self) -> None:
        if not 0 <= self.max_skipped <= 1:
            raise DataError(f"data.max_skipped={self.max_skipped}: must be 0 to 1, for it is a share")
        self.root = str(expand_home(self.root))
        self.excluded = excluded_files(self.exclude)

    def places_kept(self, *files: Sequence[str | Path]) -> NDArray[np.int64]:
        """The places at which no file of the lists, one beside the other, is excluded."""
        if not self.excluded:
            return np.arange(len(files[0]))
        rows = enumerate(zip(*files, strict=True))
        kept = np.array([i for i, row in rows if not is_excluded(self.excluded, *row)], int)
        if self.exclude:
            print(f"data.exclude={self.exclude}: left out {len(files[0]) - len(kept)} of {len(files[0])} samples")
        return kept

    def bad_files(self, samples: Samples) -> BadFiles:
        """Their samples are skipped where `on_error` says so."""
        return BadFiles(len(samples), self.on_error == "skip", self.max_skipped)

    def check(self, samples: Samples) -> None:
        """Read an even sample of the files."""
        super().check(samples)
        assert isinstance(samples, FileSamples)
        bad = self.bad_files(samples)
        looked_at = spread(len(samples), self.check_files)
        peculiar: Counter[Note] = Counter()
        counts = np.zeros(len(self.classes) + 1, np.int64)
        for index in looked_at:
            try:
                notes, target = samples.read(index)
            except BadFileError as error:
                if not bad.allowed:
                    raise
                bad.skip(error)
            else:
                peculiar.update(note for note in self.reported_notes if note in notes)
                counts += target_counts(target, len(self.classes))
        for note, count in peculiar.items():
            print(f"note: of {len(looked_at)} images that were looked at, {count} {self.describe(note)}")
        if looked_at:
            self.check_targets(counts, len(looked_at))

    def check_targets(self, counts: NDArray[np.int64], samples: int) -> None:
        """See what the targets of some samples are: `counts` of each class, and of what counts nowhere.

        Raises:
            DataError: if nothing counts.
        """

    @property
    def reported_notes(self) -> tuple[Note, ...]:
        """Notes that are printed for the images read before training."""
        return (
            Note.TRANSPARENT,
            Note.DEEP,
            Note.BAD_EXIF,
            *((Note.HALF_TURNED,) if self.task == "segmentation" else ()),
        )

    def describe(self, note: Note) -> str:
        """Describe how images with a note are handled."""
        return {
            Note.TRANSPARENT: f"are transparent somewhere; {self.reading.background} is shown there "
            "(data.reading.background)",
            Note.DEEP: "have more than 8 bits a channel, scaled to 8 (data.reading.white)",
            Note.BAD_EXIF: "have EXIF data that cannot be read, and are taken as they are stored",
            Note.HALF_TURNED: "are turned by their EXIF orientation to the same size; their masks are taken to be for "
            "the upright image (data.reading.upright)",
        }[note]


def spread(length: int, count: int) -> list[int]:
    """At most `count` indices, evenly spaced from the first to the last of `length`."""
    if count < 2 or length <= count:
        return list(range(min(length, max(count, 0))))
    return [round(i * (length - 1) / (count - 1)) for i in range(count)]
