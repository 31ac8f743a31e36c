"""Look into Person: photographs of one person each, with masks of body parts and clothes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from visual_transformers.data.io.files import require_folder
from visual_transformers.data.segmentation.split_lists import ListedMasks


@dataclass(kw_only=True)
class Lip(ListedMasks):
    """LIP in its published layout: 30,462 training and 10,000 validation images, 20 classes."""

    NAMES = (
        "Background", "Hat", "Hair", "Glove", "Sunglasses", "Upper-clothes", "Dress", "Coat", "Socks", "Pants",
        "Jumpsuits", "Scarf", "Skirt", "Face", "Left-arm", "Right-arm", "Left-leg", "Right-leg", "Left-shoe",
        "Right-shoe",
    )  # fmt: skip
    mirrored_labels = ((14, 15), (16, 17), (18, 19))  # a mirrored left arm, leg or shoe is a right one

    def __post_init__(self) -> None:
        super().__post_init__()
        require_folder(Path(self.root), self.layout())

    def split_paths(self, split: str) -> tuple[Path, Path, Path]:
        """List, image folder and mask folder of `train` or `val`."""
        root = Path(self.root)
        masks = root / "TrainVal_parsing_annotations" / f"{split}_segmentations"
        return root / f"{split}_id.txt", root / "TrainVal_images" / f"{split}_images", masks
