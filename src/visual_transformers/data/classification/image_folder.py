"""Any data set of images in one folder per class."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from visual_transformers.data.classification.base import LabelledFiles, Split, train_val_split
from visual_transformers.data.classification.class_folders import ClassFolders
from visual_transformers.data.io.files import require_folder
from visual_transformers.errors import DataError


@dataclass(kw_only=True)
class ImageFolder(ClassFolders):
    """Images of any format in one folder per class, `<root>/<split>/<class>/*`."""

    test: str | None = None
    val_share: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.val is not None and self.val_share is not None:
            raise DataError(
                f"data.val={self.val} and data.val_share={self.val_share}: the validation split is either a folder or "
                "a share of the training images. Set one of them to null."
            )
        super().__post_init__()

    @property
    def has_test_split(self) -> bool:
        """True if `test` names a folder."""
        return self.test is not None

    def layout(self) -> str:
        """Expected folders, for messages."""
        val = [self.val or "val"] if self.val_share is None else []
        splits = [self.train, *val, *([self.test] if self.test else [])]
        return "\n".join(f"  {self.root}/{split}/<class>/*.jpg" for split in splits)

    def find_eval_folders(self, train: Path) -> dict[Split, Path]:
        """Find the split folders; with `val_share`, validation images lie in the training folder."""
        folders: dict[Split, Path] = {"val": train, "test": train}
        if self.val_share is None:
            folders = super().find_eval_folders(train)
        if self.test is not None:
            folders["test"] = require_folder(self.split_root / self.test, self.layout())
            self.check_class_folders(folders["test"])
        return folders

    def list_split(self, split: Split) -> LabelledFiles:
        """List the images of a split; with `val_share`, its part of the training folder."""
        files = super().list_split(split)
        if self.val_share is None or self.split_folders[split] != self.split_folders["train"]:
            return files
        train, val = train_val_split(files, self.val_share, self.seed)
        return train if split == "train" else val

    def count_classes(self, path: Path) -> int:
        """Count classes, but never take the test folder for the validation folder."""
        return 0 if self.test and path == self.split_root / self.test else super().count_classes(path)
