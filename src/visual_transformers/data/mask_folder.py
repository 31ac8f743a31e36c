"""Any data set with folders of images and of 8-bit masks: everything about it is a key."""

from __future__ import annotations

from dataclasses import dataclass, field

from visual_transformers.data.index import FileIndex
from visual_transformers.data.masks import LabelTable, MaskFiles, SplitFolders
from visual_transformers.data.pairing import pair
from visual_transformers.data.samples import Masks
from visual_transformers.data.transforms import IGNORE
from visual_transformers.errors import DataError


@dataclass(kw_only=True)
class MaskFolder(SplitFolders):
    """Any data set with a folder of images and a folder of 8-bit masks for each split.

    Args:
        root: the data set's folder.
        train_images, train_masks, val_images, val_masks: folders below it.
        test_images, test_masks: folders that `mode=test` scores; null for the validation ones.
        mask_suffix: what follows an image's stem in its mask's name.
        class_names: names of the classes; a pixel of a mask holds an index into them.
        ignore_labels: values of a mask whose pixels count nowhere.

    Raises:
        DataError: if the folder is missing, or a key does not fit the others.
    """

    train_images: str = "train/images"
    train_masks: str = "train/masks"
    val_images: str = "val/images"
    val_masks: str = "val/masks"
    test_images: str | None = None
    test_masks: str | None = None
    mask_suffix: str = ".png"
    class_names: list[str] = field(default_factory=list)  # type: ignore[assignment]  # the method asks for this key
    ignore_labels: list[int] = field(default_factory=lambda: [IGNORE])

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
        if (self.test_images is None) != (self.test_masks is None):
            raise DataError("data.test_images and data.test_masks go together; set both or neither")

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
        files, mask_files = pair(*self.places(split), self.layout(), self.mask_suffix, self.excluded)
        return files, MaskFiles(mask_files, self.table())

    def table(self) -> LabelTable:
        """Labels stand for themselves."""
        return LabelTable.plain(
            len(self.class_names),
            self.ignore_labels,
            f"with {len(self.class_names)} classes they may be 0 to {len(self.class_names) - 1}, or one of "
            f"data.ignore_labels={self.ignore_labels}; add them to data.ignore_labels, or name their classes "
            "in data.class_names",
        )

    def choices(self, split: str) -> tuple[list[str], list[str]]:
        """What the keys say."""
        if split == "test" and self.test_images and self.test_masks:
            return [self.test_images], [self.test_masks]
        return super().choices(split)

    def examples(self, images: str, masks: str) -> str:
        """Both have the same name."""
        return f"{self.root}/{images}/NAME.jpg with {self.root}/{masks}/NAME{self.mask_suffix}"
