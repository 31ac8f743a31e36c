"""PASCAL VOC 2012's segmentation task, in the layout of its archive and of torchvision."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torchvision.datasets import VOCSegmentation
from torchvision.datasets.voc import DATASET_YEAR_DICT

from visual_transformers.data.io.download import ensure_downloaded
from visual_transformers.data.segmentation.split_lists import ListedMasks


@dataclass(kw_only=True)
class Voc(ListedMasks):
    """VOC 2012: 1,464 training and 1,449 validation images, 20 classes and the background; borders are ignored."""

    NAMES = (
        "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
        "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
    )  # fmt: skip

    download: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self.home = Path(self.root) / "VOCdevkit" / "VOC2012"
        ensure_downloaded(
            [self.home],
            urls=[DATASET_YEAR_DICT["2012"]["url"]],
            into=Path(self.root),
            wanted=self.download,
            fetch=lambda: VOCSegmentation(self.root, year="2012", image_set="train", download=True),
        )

    def split_paths(self, split: str) -> tuple[Path, Path, Path]:
        """List, image folder and mask folder of `train` or `val`."""
        names = self.home / "ImageSets" / "Segmentation" / f"{split}.txt"
        return names, self.home / "JPEGImages", self.home / "SegmentationClass"
