"""ImageNet: in class folders, or as it is published, with a flat validation folder and its labels in a file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from visual_transformers.data.classification import ilsvrc
from visual_transformers.data.classification.base import LabelledFiles, Split
from visual_transformers.data.classification.class_folders import ClassFolders, check_folders, class_names


@dataclass(kw_only=True)
class ImageNet(ClassFolders):
    """Class folders of each split, or ILSVRC's own layout, whose `val` has all images in one folder.

    The root may be any folder of ILSVRC's from the one that Kaggle's archive unpacks to down to `CLS-LOC`. The labels
    of a flat folder are in `LOC_val_solution.csv` or in the devkit, beside that folder or above.

    Raises:
        DataError: naming what is missing and the layouts that are expected.
    """

    def __post_init__(self) -> None:
        self.takes_all_classes = self.classes is None
        super().__post_init__()

    def located(self) -> Path:
        """The root, or ILSVRC's folder of the splits below it."""
        return ilsvrc.home(super().located(), self.train)

    def layout(self) -> str:
        """The class folders, or the flat folder with either file of labels."""
        return f"{super().layout()}\nor, as it is published,\n{ilsvrc.LAYOUT.format(root=self.root)}"

    def evaluation_folders(self, train: Path) -> dict[Split, Path]:
        """The validation folder, flat or of class folders."""
        val = self.validation_folder(train)
        if class_names(val):
            check_folders(val, self.folders, self.available)
        return {"val": val, "test": val}

    def classes_in(self, place: Path) -> int:
        """All of them in ILSVRC's flat folder of validation images."""
        return len(self.folders) if ilsvrc.is_flat_validation(place) else super().classes_in(place)

    def labelled(self, split: Split) -> LabelledFiles:
        """Every image of a split."""
        place = self.places[split]
        if class_names(place):
            return super().labelled(split)
        truth = ilsvrc.truth_near(place)
        if self.takes_all_classes:
            truth.check_classes_are(self.available)
        return truth.labelled(place, self.folders, self.excluded)
