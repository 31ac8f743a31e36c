"""The generic data set of classification: any folders of images, one a class."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from visual_transformers.data.classification.base import LabelledFiles, Split
from visual_transformers.data.classification.class_folders import ClassFolders, check_folders
from visual_transformers.data.classification.train_val_split import parted
from visual_transformers.data.io.files import folder
from visual_transformers.errors import DataError


@dataclass(kw_only=True)
class ImageFolder(ClassFolders):
    """Images of any format in one folder a class, `<root>/<split>/<class>/*`.

    Args:
        test: folder of the split that `mode=test` scores, below the root; null for the validation split.
        val_share: share of each class's training images that make the validation split, where it has no folder of
            its own; null to look for the folder.
        seed: picks these images; not the run's seed.
    """

    test: str | None = None
    val_share: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.val is not None and self.val_share is not None:
            raise DataError(
                f"data.val={self.val} and data.val_share={self.val_share}: the validation split is either a folder or "
                "a share of the training images; set one of them to null"
            )
        super().__post_init__()

    @property
    def has_test_split(self) -> bool:
        """If a folder is named."""
        return self.test is not None

    def layout(self) -> str:
        """The split folders that there should be."""
        val = [self.val or "val"] if self.val_share is None else []
        splits = [self.train, *val, *([self.test] if self.test else [])]
        return "\n".join(f"  {self.root}/{split}/<class>/*.jpg" for split in splits)

    def evaluation_folders(self, train: Path) -> dict[Split, Path]:
        """Folders of their own, or what `val_share` leaves of the training folder."""
        val = train if self.val_share is not None else super().evaluation_folders(train)["val"]
        if self.test is None:
            return {"val": val, "test": val}
        test = folder(self.home / self.test, self.layout())
        check_folders(test, self.folders, self.available)
        return {"val": val, "test": test}

    def labelled(self, split: Split) -> LabelledFiles:
        """Every image of a split; with `val_share` its part of the training folder."""
        files = super().labelled(split)
        if self.val_share is None or self.places[split] != self.places["train"]:
            return files
        train, val = parted(files, self.val_share, self.seed)
        return train if split == "train" else val

    def classes_in(self, place: Path) -> int:
        """None in the test split's folder, which is no other split's."""
        return 0 if self.test and place == self.home / self.test else super().classes_in(place)
