"""Look into Person: photographs of one person each, whose pixels are parts of the body and of the clothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from visual_transformers.data.segmentation.split_lists import ListedMasks, ListedSplit


@dataclass(kw_only=True)
class Lip(ListedMasks):
    """LIP in its published layout: 30,462 training and 10,000 validation images, 20 classes.

    Args:
        root: the folder with `TrainVal_images`, `TrainVal_parsing_annotations`, `train_id.txt` and `val_id.txt`.

    Raises:
        DataError: if the folder is missing.
    """

    NAMES = (
        "Background", "Hat", "Hair", "Glove", "Sunglasses", "Upper-clothes", "Dress", "Coat", "Socks", "Pants",
        "Jumpsuits", "Scarf", "Skirt", "Face", "Left-arm", "Right-arm", "Left-leg", "Right-leg", "Left-shoe",
        "Right-shoe",
    )  # fmt: skip
    mirrored_labels = ((14, 15), (16, 17), (18, 19))  # a mirrored left arm, leg or shoe is a right one

    def split(self, name: str) -> ListedSplit:
        """The files of `train` or `val`."""
        root = Path(self.root)
        return ListedSplit(
            root / f"{name}_id.txt",
            root / "TrainVal_images" / f"{name}_images",
            root / "TrainVal_parsing_annotations" / f"{name}_segmentations",
        )
