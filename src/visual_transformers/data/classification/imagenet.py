"""ImageNet in class folders, or as published, with a flat validation folder and a file of its labels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from visual_transformers.data.classification import ilsvrc
from visual_transformers.data.classification.base import LabelledFiles, Split
from visual_transformers.data.classification.class_folders import ClassFolders, list_class_folders


@dataclass(kw_only=True)
class ImageNet(ClassFolders):
    """Class folders for each split, or ILSVRC's published layout, whose `val` has all images in one folder.

    The root may be any of ILSVRC's folders from the one that Kaggle's archive unpacks to down to `CLS-LOC`. The labels
    of a flat folder are in `LOC_val_solution.csv` or in the devkit, next to that folder or above.
    """

    def __post_init__(self) -> None:
        self.takes_all_classes = self.classes is None
        super().__post_init__()

    def find_split_root(self) -> Path:
        """Find ILSVRC's folder of the splits below the root, or else the root itself."""
        return ilsvrc.find_split_root(super().find_split_root(), self.train)

    def layout(self) -> str:
        """Expected folders and files of labels, for messages."""
        return f"{super().layout()}\nor, as published,\n{ilsvrc.LAYOUT.format(root=self.root)}"

    def check_class_folders(self, path: Path) -> None:
        """Check class folders, if the folder is not flat."""
        if list_class_folders(path):
            super().check_class_folders(path)

    def count_classes(self, path: Path) -> int:
        """Count classes; ILSVRC's flat folder of validation images has all of them."""
        return len(self.folders) if ilsvrc.is_flat_val_folder(path) else super().count_classes(path)

    def list_split(self, split: Split) -> LabelledFiles:
        """List the images of a split; those of a flat folder get the labels of the nearest file."""
        path = self.split_folders[split]
        if list_class_folders(path):
            return super().list_split(split)
        labels = ilsvrc.find_labels(path)
        if self.takes_all_classes:
            labels.check_classes(self.available)
        return labels.label_files(path, self.folders, self.excluded)
