"""How fast samples come: the suite's loaders against a plain pipeline of Pillow and torchvision's first transforms.

`python benchmarks/loading.py [FOLDER ...]` reads the JPEG files of each folder (without one, pictures made of
scikit-learn's two photographs) in one process with one thread, both pipelines in turn, and prints for each kind of work
the images per second, their ratio, and how far the pixels of the two are apart. Both decode, augment and collate; the
plain one also normalises, which the suite does on the device, and that is timed beside it.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_sample_images
from torch import Tensor
from torch.utils.data import DataLoader, default_collate
from torchvision import transforms as v1
from torchvision import tv_tensors

from visual_transformers.data.augmentation import CropAndFlip, ScaleCropFlip
from visual_transformers.data.classification.base import CentreCropTransform
from visual_transformers.data.io.files import list_images
from visual_transformers.data.io.images import EncodedImage
from visual_transformers.data.loader import SeededSamples
from visual_transformers.data.normalization import IMAGENET_MEAN, IMAGENET_STD, Normalise

BATCH, REPEATS, MOST_FILES = 20, 5, 200
NORMALISED = [v1.ToTensor(), v1.Normalize(IMAGENET_MEAN, IMAGENET_STD)]
Sample = tuple[Tensor, Any]


def plain(*transforms: Any) -> Callable[[Path], Sample]:
    """What most people use: Pillow decodes all of the image, transforms of Pillow images follow."""
    transform = v1.Compose([*transforms, *NORMALISED])

    def sample(path: Path) -> Sample:
        with path.open("rb") as file:
            return transform(Image.open(file).convert("RGB")), 0

    return sample


def plain_segmentation(crop: int) -> Callable[[Path], Sample]:
    """The same with a mask: scale the whole image and mask, then pad and crop both."""
    normalised = v1.Compose(NORMALISED)

    def sample(path: Path) -> Sample:
        with path.open("rb") as file:
            image = Image.open(file).convert("RGB")
        mask = Image.new("L", image.size)
        scale = float(torch.empty(()).uniform_(0.5, 2.0))
        size = [max(1, round(side * scale)) for side in (image.height, image.width)]
        image = v1.functional.resize(image, size)
        mask = v1.functional.resize(mask, size, v1.InterpolationMode.NEAREST)
        padding = [max(0, crop - image.width), max(0, crop - image.height)]
        image, mask = (v1.functional.pad(picture, padding) for picture in (image, mask))
        place = v1.RandomCrop.get_params(image, (crop, crop))
        image, mask = (v1.functional.crop(picture, *place) for picture in (image, mask))
        if torch.rand(()) < 0.5:
            image, mask = v1.functional.hflip(image), v1.functional.hflip(mask)
        return normalised(image), torch.from_numpy(np.array(mask, np.int64))

    return sample


def ours(view: Callable[[EncodedImage], Tensor]) -> Callable[[Path], Sample]:
    """The suite's way."""
    return lambda path: (view(EncodedImage(path)), 0)


def ours_segmentation(crop: int) -> Callable[[Path], Sample]:
    """The suite's way with a mask."""
    view = ScaleCropFlip(crop=crop).build_transform()

    def sample(path: Path) -> Sample:
        image = EncodedImage(path)
        return view(image, tv_tensors.Mask(torch.zeros(image.height, image.width, dtype=torch.uint8)))

    return sample


@dataclass
class Work:
    """One kind of work in both ways; `same_crops` says whether both draw the same crops from the same random state."""

    name: str
    plain: Callable[[Path], Sample]
    ours: Callable[[Path], Sample]
    same_crops: bool = True


def works() -> list[Work]:
    """Classification and segmentation in training, and classification's evaluation."""
    crops = [
        Work(
            f"training crops of {size}",
            plain(v1.RandomResizedCrop(size), v1.RandomHorizontalFlip()),
            ours(CropAndFlip().build_transform(size)),
        )
        for size in (64, 224, 512)
    ]
    evaluation = Work(
        "evaluation at 224",
        plain(v1.Resize(256), v1.CenterCrop(224)),
        ours(CentreCropTransform(resize=256, image_size=224)),
    )
    masks = Work("crops of 512 with masks", plain_segmentation(512), ours_segmentation(512), same_crops=False)
    return [*crops, evaluation, masks]


class Files:
    """Samples of files; both ways get the seeds of the suite's loaders."""

    def __init__(self, paths: list[Path], sample: Callable[[Path], Sample]):
        self.paths, self.sample = paths, sample

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Sample:
        return self.sample(self.paths[index])


def batches(paths: list[Path], sample: Callable[[Path], Sample]) -> Iterator[Any]:
    """All files once, collated."""
    keys = [(0, index) for index in range(len(paths))]
    loader = DataLoader(
        SeededSamples(Files(paths, sample), seed=0), sampler=keys, batch_size=BATCH, collate_fn=default_collate
    )
    return iter(loader)


def seconds(paths: list[Path], sample: Callable[[Path], Sample]) -> float:
    """Time for all files once."""
    start = time.perf_counter()
    for _ in batches(paths, sample):
        pass
    return time.perf_counter() - start


def levels_apart(paths: list[Path], work: Work) -> NDArray[np.float32]:
    """Differences of all pixels of both ways, in levels of 255."""
    scale = 255 * torch.tensor(IMAGENET_STD).view(3, 1, 1)
    found = []
    for one, other in zip(batches(paths, work.plain), batches(paths, work.ours), strict=True):
        normalised = Normalise()(other[0])
        found.append(((normalised - one[0]).abs() * scale).flatten())
    return torch.cat(found).numpy()


def compare(paths: list[Path]) -> None:
    """Print a line for each kind of work."""
    for work in works():
        times: dict[str, list[float]] = {"plain": [], "ours": []}
        for _ in range(REPEATS):  # in turn, so that what else the machine does meets both alike
            times["plain"].append(seconds(paths, work.plain))
            times["ours"].append(seconds(paths, work.ours))
        rates = {name: len(paths) / statistics.median(found) for name, found in times.items()}
        line = f"{work.name:24s} plain {rates['plain']:6.1f}  ours {rates['ours']:6.1f} images/s  "
        line += f"{rates['ours'] / rates['plain']:.2f} times as fast"
        if work.same_crops:
            apart = levels_apart(paths[:40], work)
            line += f"; apart by {apart.mean():.2f} levels, 99.9 % by {np.quantile(apart, 0.999):.0f} at most"
        print(line, flush=True)


def normalising() -> None:
    """Print what normalising a batch of bytes costs on this device."""
    images, module = torch.randint(256, (BATCH, 3, 224, 224), dtype=torch.uint8), Normalise()
    times = []
    for _ in range(20):
        start = time.perf_counter()
        module(images)
        times.append(time.perf_counter() - start)
    print(f"normalising at 224 costs ours {statistics.median(times) / BATCH * 1e3:.2f} ms an image besides, on the CPU")


def photographs(folder: Path, count: int = 40) -> Path:
    """JPEG files of 640 x 427 pixels made of scikit-learn's photographs, for want of others."""
    for number in range(count):
        picture = Image.fromarray(load_sample_images().images[number % 2]).rotate(number // 2, Image.Resampling.BICUBIC)
        picture.save(folder / f"{number:02d}.jpg", quality=95)
    return folder


def main() -> None:
    """Compare both ways on the files of each folder that the command line names."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        for folder in map(Path, sys.argv[1:] or [photographs(Path(temporary))]):
            found = list_images(folder)
            paths = [found[i] for i in np.linspace(0, len(found) - 1, min(MOST_FILES, len(found))).astype(int)]
            sizes = statistics.median(path.stat().st_size for path in paths) / 1000
            print(f"{len(paths)} files of {folder.name}, {sizes:.0f} kB each in the median; one process, one thread")
            compare(paths)
    normalising()


if __name__ == "__main__":
    main()
