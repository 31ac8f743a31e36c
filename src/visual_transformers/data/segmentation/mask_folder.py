"""Any data set with folders of images and of 8-bit masks: everything about it is a key."""

from __future__ import annotations

from dataclasses import dataclass, field

from visual_transformers.data.dataset import Masks
from visual_transformers.data.io.file_index import FileIndex
from visual_transformers.data.normalization import IGNORE
from visual_transformers.data.segmentation.base import LabelTable, MaskFiles, SplitFolders
from visual_transformers.data.segmentation.pairing import pair
from visual_transformers.errors import DataError


@dataclass(kw_only=True)
class MaskFolder(SplitFolders):
    """Any data set with a folder of images and a folder of 8-bit masks for each split.

    Args:
        root: the data set's folder.
        train_images, train_masks, val_images, val_masks: folders below it.
        test_images, test_masks: folders that `mode=test` scores; null for the validation ones.
        image_suffix: what the names of images end in, as `_leftImg8bit.png`; null for the ending of any image file.
        mask_suffix: what the names of masks end in, in its place.
        class_names: names of the classes; a pixel of a mask holds an index into them, unless there is a `label_map`.
        ignore_labels: values of a mask whose pixels count nowhere.
        label_map: index into `class_names` of each value that a mask has; null where they are the same.

    Raises:
        DataError: if the folder is missing, or a key does not fit the others.
    """

    train_images: str = "train/images"
    train_masks: str = "train/masks"
    val_images: str = "val/images"
    val_masks: str = "val/masks"
    test_images: str | None = None
    test_masks: str | None = None
    image_suffix: str | None = None
    mask_suffix: str = ".png"
    class_names: list[str] = field(default_factory=list)  # type: ignore[assignment]  # the method asks for this key
    ignore_labels: list[int] = field(default_factory=lambda: [IGNORE])
    label_map: dict[int, int] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= len(self.class_names) <= IGNORE:
            raise DataError(
                f"data.class_names has {len(self.class_names)} names; list 1 to {IGNORE} classes in the order of their "
                "labels in the masks"
            )
        if unnamed := [name for name in self.class_names if not isinstance(name, str)]:
            raise DataError(f"data.class_names: {unnamed} are no names; put them in quotes, as in ['null','on']")
        if wrong := [label for label in self.ignore_labels if not 0 <= label <= 255]:
            raise DataError(f"data.ignore_labels: {wrong} cannot occur in 8-bit masks; use values from 0 to 255")
        if not self.mask_suffix or self.image_suffix == "":
            raise DataError("data.mask_suffix and data.image_suffix must not be empty; null takes any image ending")
        if self.label_map is not None:  # whose keys are texts where it comes from JSON
            self.label_map = {int(value): int(index) for value, index in self.label_map.items()}
        self._check_labels()
        if (self.test_images is None) != (self.test_masks is None):
            raise DataError("data.test_images and data.test_masks go together; set both or neither")

    def _check_labels(self) -> None:
        """See that no value is ignored that is a class, and that each class has a value."""
        ignored, names = set(self.ignore_labels), list(self.class_names)
        if self.label_map is None:
            if lost := sorted(ignored & set(range(len(names)))):
                shift = ",".join(f"{i + 1}:{i}" for i in range(min(len(names), 3))) + (",..." if len(names) > 3 else "")
                raise DataError(
                    f"data.ignore_labels={self.ignore_labels}: {lost[0]} is the label of class {names[lost[0]]!r}. "
                    f"Remove it, or, if labels start at 1, add data.label_map={{{shift}}}"
                )
            return
        if wrong := [
            f"{value}:{i}" for value, i in self.label_map.items() if not (0 <= value <= 255 and 0 <= i < len(names))
        ]:
            raise DataError(
                f"data.label_map: {wrong[0]} is not the value of a pixel, 0 to 255, and the index of a class, 0 to "
                f"{len(names) - 1}"
            )
        if both := sorted(ignored & set(self.label_map)):
            raise DataError(f"data.label_map and data.ignore_labels both have {both[0]}; leave it out of one")
        if missing := sorted(set(range(len(names))) - set(self.label_map.values())):
            raise DataError(f"data.label_map: no value is {missing[0]}, the class {names[missing[0]]!r}; add it")

    @property
    def classes(self) -> list[str]:
        """The configured names."""
        return list(self.class_names)

    @property
    def has_test_split(self) -> bool:
        """If folders are named."""
        return self.test_images is not None

    def pairs(self, split: str) -> tuple[FileIndex, Masks]:
        """Image and mask files of a split; the test split is the validation one where none is configured."""
        files, mask_files = pair(
            *self.places(split),
            self.layout(),
            image_suffix=self.image_suffix,
            mask_suffix=self.mask_suffix,
            excluded=self.excluded,
        )
        return files, MaskFiles(mask_files, self.table())

    def table(self) -> LabelTable:
        """Labels stand for themselves, or for what `label_map` says."""
        labels = self.label_map or {i: i for i in range(len(self.class_names))}
        known = f"{min(labels)} to {max(labels)}" if self.label_map is None else ", ".join(map(str, sorted(labels)))
        return LabelTable.of(
            labels,
            self.ignore_labels,
            f"valid are {known} for {len(self.class_names)} classes, and data.ignore_labels={self.ignore_labels}. If "
            "they are classes, add them to data.class_names; if labels do not start at 0, map them with "
            "data.label_map={VALUE:INDEX,...}; if they are void, add them to data.ignore_labels",
        )

    def choices(self, split: str) -> tuple[list[str], list[str]]:
        """What the keys say."""
        if split == "test" and self.test_images and self.test_masks:
            return [self.test_images], [self.test_masks]
        return super().choices(split)

    def examples(self, images: str, masks: str) -> str:
        """Both have the same name."""
        return f"{self.root}/{images}/NAME{self.image_suffix or '.jpg'} with {self.root}/{masks}/NAME{self.mask_suffix}"
