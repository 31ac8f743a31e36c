"""PASCAL VOC 2012's segmentation task, in the layout of its archive and of torchvision."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torchvision.datasets import VOCSegmentation
from torchvision.datasets.voc import DATASET_YEAR_DICT

from visual_transformers.data.io.download import FAILURES
from visual_transformers.data.segmentation.split_lists import ListedMasks, ListedSplit
from visual_transformers.errors import DataError

ARCHIVE = DATASET_YEAR_DICT["2012"]["url"]


@dataclass(kw_only=True)
class Voc(ListedMasks):
    """VOC 2012: 1,464 training and 1,449 validation images, 20 classes and the background; borders are ignored.

    Args:
        root: the folder with `VOCdevkit/VOC2012`.
        download: whether to fetch the archive (2 GB) into the root if the data set is not there.

    Raises:
        DataError: if the data set is not there, or cannot be fetched.
    """

    NAMES = (
        "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
        "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
    )  # fmt: skip

    download: bool = False

    def home(self) -> Path:
        """The folder that must be there."""
        return Path(self.root) / "VOCdevkit" / "VOC2012"

    def split(self, name: str) -> ListedSplit:
        """The files of `train` or `val`."""
        home = self.home()
        return ListedSplit(
            home / "ImageSets" / "Segmentation" / f"{name}.txt", home / "JPEGImages", home / "SegmentationClass"
        )

    def layout(self) -> str:
        """What the folder should look like, and where it comes from."""
        return f"{super().layout()}\n  as {ARCHIVE} unpacks in {self.root}; data.download=true fetches it"

    def fetch(self) -> None:
        """Torchvision's download, if the folder is not there.

        Raises:
            DataError: if it cannot be fetched.
        """
        if not self.download or self.home().is_dir():
            return
        try:
            VOCSegmentation(self.root, year="2012", image_set="train", download=True)
        except FAILURES as error:
            raise DataError(
                f"data.download=true: {ARCHIVE} could not be fetched to {self.root} ({error}); fetch it where there is "
                f"a network, unpack it in {self.root} with tar, and set data.download=false. Expected the layout\n"
                f"{super().layout()}"
            ) from error
