"""`mode=check_data`: every sample of every split looked at before training, and a list of the files to leave out."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

from torch.utils.data import Dataset

from visual_transformers.config.instantiate import build
from visual_transformers.config.schema import Config
from visual_transformers.data.datamodule import DataModule, FileData, Samples
from visual_transformers.data.io.exclude_list import absolute, excluded_files, write_exclusions
from visual_transformers.data.io.file_names import same
from visual_transformers.data.loader import Loading, processes, seeded
from visual_transformers.distributed.stop_at_once import interruptible
from visual_transformers.errors import DataError, MissingMasksError
from visual_transformers.modes.check_data import output
from visual_transformers.modes.check_data.inspection import MISSING_MASK, Fault, inspect
from visual_transformers.modes.check_data.output import Split
from visual_transformers.modes.check_data.statistics import Findings
from visual_transformers.progress import progress

PORTION = 32
"""Samples that a process looks at before it reports: few enough to be waited for after Ctrl-C."""


def run(cfg: Config, directory: Path) -> None:
    """Look at the whole data set, and leave a report and the list of bad files in `check_data/`.

    Raises:
        DataError: if the folders are not as expected or, when all is written, if there are samples that cannot be used.
    """
    data: DataModule = build(cfg.data, "data", trust=cfg.trust)
    workers = processes(cfg.check_data.workers)
    splits = [
        Split(name, samples, walk(name, samples, len(data.classes), workers, cfg.seed), missing)
        for name, (samples, missing) in opened(data).items()
    ]
    directory = directory / "check_data"
    report = output.write(directory, cfg.data, data, splits)
    faults = [fault for split in splits for fault in split.faults]
    reasons = {fault.image: f"{fault.kind}: {fault.file}: {fault.problem}" for fault in faults}
    known = excluded_files(cfg.data.get("exclude"))
    write_exclusions(directory / "excluded.txt", reasons | dict.fromkeys(sorted(known), "excluded before"))
    output.show(report, directory)
    if faults:
        raise DataError(
            f"samples that cannot be used: {len(reasons)}; {directory / 'report.md'} says why. Replace them, or train "
            f"without them: data.exclude={absolute(directory / 'excluded.txt')}"
        )


def opened(data: DataModule) -> dict[str, tuple[Samples, list[Fault]]]:
    """The samples of each split with what is missing among them; `test` only where it is another split than `val`."""
    splits = {"train": with_masks(data, data.train_set), "val": with_masks(data, data.val_set)}
    if data.has_test_split:
        splits["test"] = with_masks(data, data.test_set)
    return splits


def with_masks(data: DataModule, open_set: Callable[[], Samples]) -> tuple[Samples, list[Fault]]:
    """A split without the images that lack a mask, as if they were excluded, and those images."""
    try:
        return open_set(), []
    except MissingMasksError as error:
        assert isinstance(data, FileData)
        data.excluded |= {same(absolute(image)) for image, _ in error.pairs}
        return open_set(), [
            Fault(MISSING_MASK, str(image), str(image), f"it needs {mask}") for image, mask in error.pairs
        ]


def walk(name: str, samples: Samples, classes: int, workers: int, seed: int) -> Findings:
    """What is found of all samples of a split; `workers` processes share the work, 0 for this one alone."""
    found, portions = Findings(len(samples), classes), Portions(samples, classes, seed)
    loader = Loading(min(workers, len(portions))).loader(portions, batch_size=None)
    with progress(f"checking {name}", len(samples)) as advance:
        for portion in interruptible(loader):
            found.add(portion)
            advance(len(portion))
    return found


class Portions(Dataset[Findings]):
    """A split cut into portions, each of which is looked at as a whole, so that processes hand on sums.

    Samples that are drawn, not read, are those of the first epoch with this `seed`.
    """

    def __init__(self, samples: Samples, classes: int, seed: int):
        self.samples, self.classes, self.seed = samples, classes, seed

    def __len__(self) -> int:
        return -(-len(self.samples) // PORTION)

    def __getitem__(self, number: int) -> Findings:
        places = range(len(self.samples))[number * PORTION : (number + 1) * PORTION]
        found = Findings(len(places), self.classes)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, of which the report says what matters
            for place in places:
                with seeded(self.seed, 0, place):
                    found.take(inspect(self.samples, place))
        return found
