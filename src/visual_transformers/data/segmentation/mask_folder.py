"""Any data set with a folder of images and a folder of 8-bit masks for each split."""

from __future__ import annotations

from dataclasses import dataclass, field

from visual_transformers.data.dataset import Masks
from visual_transformers.data.io.file_index import FileIndex
from visual_transformers.data.labels import IGNORE_INDEX
from visual_transformers.data.segmentation.base import LabelTable, MaskFiles, SplitFolders
from visual_transformers.data.segmentation.pairing import pair_by_path
from visual_transformers.errors import DataError


@dataclass(kw_only=True)
class MaskFolder(SplitFolders):
    """Data set whose masks hold indices into `class_names`, or values that `label_map` maps to such indices.

    Raises:
        DataError: if the folder is missing, or keys do not fit together.
    """

    train_images: str = "train/images"
    train_masks: str = "train/masks"
    val_images: str = "val/images"
    val_masks: str = "val/masks"
    test_images: str | None = None
    test_masks: str | None = None
    image_suffix: str | None = None
    mask_suffix: str = ".png"
    class_names: list[str] = field(default_factory=list)
    ignore_labels: list[int] = field(default_factory=lambda: [IGNORE_INDEX])
    label_map: dict[int, int] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= len(self.class_names) <= IGNORE_INDEX:
            raise DataError(
                f"data.class_names has {len(self.class_names)} names. List 1 to {IGNORE_INDEX} classes in the order of "
                "their labels in the masks."
            )
        if unnamed := [name for name in self.class_names if not isinstance(name, str)]:
            raise DataError(f"data.class_names: {unnamed} are no names. Put them in quotes, e.g. ['null','on'].")
        if wrong := [label for label in self.ignore_labels if not 0 <= label <= 255]:
            raise DataError(f"data.ignore_labels: {wrong} cannot occur in 8-bit masks. Use values from 0 to 255.")
        if not self.mask_suffix or self.image_suffix == "":
            raise DataError("data.mask_suffix or data.image_suffix is empty. Set a suffix, or image_suffix to null.")
        if self.label_map is not None:  # JSON turns its keys into text
            self.label_map = {int(value): int(index) for value, index in self.label_map.items()}
            self._check_label_map(self.label_map)
        elif lost := [label for label in range(len(self.class_names)) if label in self.ignore_labels]:
            count = len(self.class_names)
            shift = ",".join(f"{i + 1}:{i}" for i in range(min(count, 3))) + (",..." if count > 3 else "")
            raise DataError(
                f"data.ignore_labels={self.ignore_labels}: {lost[0]} is the label of class "
                f"{self.class_names[lost[0]]!r}. Remove it, or, if labels start at 1, add data.label_map={{{shift}}}."
            )
        if (self.test_images is None) != (self.test_masks is None):
            raise DataError("data.test_images and data.test_masks belong together. Set both or neither.")

    def _check_label_map(self, label_map: dict[int, int]) -> None:
        """Check that it maps mask values that are not ignored, and maps at least one to each class."""
        count = len(self.class_names)
        if wrong := [f"{value}:{i}" for value, i in label_map.items() if not (0 <= value <= 255 and 0 <= i < count)]:
            raise DataError(
                f"data.label_map: {wrong[0]} is not the value of a pixel, 0 to 255, and the index of a class, 0 to "
                f"{count - 1}."
            )
        if both := sorted(label_map.keys() & self.ignore_labels):
            raise DataError(f"data.label_map and data.ignore_labels both have {both[0]}. Remove it from one of them.")
        if missing := sorted(set(range(count)) - set(label_map.values())):
            raise DataError(
                f"data.label_map: no value is {missing[0]}, the class {self.class_names[missing[0]]!r}. Add one."
            )

    @property
    def classes(self) -> list[str]:
        """Configured class names."""
        return list(self.class_names)

    @property
    def has_test_split(self) -> bool:
        """True if test folders are configured."""
        return self.test_images is not None

    def find_pairs(self, split: str) -> tuple[FileIndex, Masks]:
        """Pair the images and masks of a split; without test folders, the test split is the validation split."""
        images, masks = pair_by_path(
            *self.find_split(split),
            self.layout(),
            image_suffix=self.image_suffix,
            mask_suffix=self.mask_suffix,
            excluded=self.excluded,
        )
        labels = self.label_map or {i: i for i in range(len(self.class_names))}
        valid = f"{min(labels)} to {max(labels)}" if self.label_map is None else ", ".join(map(str, sorted(labels)))
        remedy = (
            f"valid are {valid} for {len(self.class_names)} classes, and data.ignore_labels={self.ignore_labels}. If "
            "they are classes, add them to data.class_names; if labels do not start at 0, map them with "
            "data.label_map={VALUE:INDEX,...}; if they are void, add them to data.ignore_labels"
        )
        return images, MaskFiles(masks, LabelTable.from_labels(labels, self.ignore_labels, remedy))

    def candidate_paths(self, split: str) -> tuple[list[str], list[str]]:
        """Configured paths of a split's images and masks, below the root."""
        if split == "test" and self.test_images and self.test_masks:
            return [self.test_images], [self.test_masks]
        train = split == "train"
        return [self.train_images if train else self.val_images], [self.train_masks if train else self.val_masks]

    def example_pair(self, images: str, masks: str) -> str:
        """Example of an image and its mask below these paths, for messages."""
        return f"{self.root}/{images}/NAME{self.image_suffix or '.jpg'} with {self.root}/{masks}/NAME{self.mask_suffix}"
