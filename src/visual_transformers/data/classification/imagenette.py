"""Imagenette: ten classes of ImageNet that are easy to tell apart."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torchvision import datasets

from visual_transformers.data.classification.class_folders import ClassFolders
from visual_transformers.data.io.download import ensure

FOLDERS = {"full": "imagenette2", "320px": "imagenette2-320", "160px": "imagenette2-160"}
URL = "https://s3.amazonaws.com/fast-ai-imageclas/{folder}.tgz"


@dataclass(kw_only=True)
class Imagenette(ClassFolders):
    """The ten class folders of each split, from torchvision's `Imagenette`.

    Args:
        root: the folder that holds `imagenette2`, `imagenette2-320` or `imagenette2-160`, or one of these itself.
        size: the published size, `full`, or with a shorter side of `320px` or `160px`.
        download: fetch it into the root if it is not there.

    Raises:
        DataError: if it is not there, or not complete.
    """

    size: Literal["full", "320px", "160px"] = "160px"
    download: bool = False

    def located(self) -> Path:
        """The root itself if it has the splits, otherwise the folder in it of the size that is asked for."""
        root = super().located()
        if (root / self.train).is_dir():
            return root
        home = root / FOLDERS[self.size]
        ensure(
            [home],
            urls=[URL.format(folder=home.name)],
            into=root,
            wanted=self.download,
            fetch=lambda: datasets.Imagenette(root, size=self.size, download=True),
        )
        return home

    def layout(self) -> str:
        """The class folders of both splits."""
        return "\n".join(f"  {self.root}/{FOLDERS[self.size]}/{split}/<class>/*.JPEG" for split in ("train", "val"))
