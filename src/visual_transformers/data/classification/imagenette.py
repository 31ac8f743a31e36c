"""Imagenette: ten classes of ImageNet that are easy to tell apart."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torchvision import datasets

from visual_transformers.data.classification.class_folders import ClassFolders
from visual_transformers.data.io.download import ensure_downloaded

FOLDERS = {"full": "imagenette2", "320px": "imagenette2-320", "160px": "imagenette2-160"}
URL = "https://s3.amazonaws.com/fast-ai-imageclas/{folder}.tgz"


@dataclass(kw_only=True)
class Imagenette(ClassFolders):
    """Ten class folders per split, in the layout of torchvision's `Imagenette`."""

    size: Literal["full", "320px", "160px"] = "160px"
    download: bool = False

    def find_split_root(self) -> Path:
        """Find the folder of the configured size, or the root itself if it has the splits."""
        root = super().find_split_root()
        if (root / self.train).is_dir():
            return root
        path = root / FOLDERS[self.size]
        ensure_downloaded(
            [path],
            urls=[URL.format(folder=path.name)],
            into=root,
            wanted=self.download,
            fetch=lambda: datasets.Imagenette(root, size=self.size, download=True),
        )
        return path

    def layout(self) -> str:
        """Expected folders, for messages."""
        return "\n".join(f"  {self.root}/{FOLDERS[self.size]}/{split}/<class>/*.JPEG" for split in ("train", "val"))
