"""`mode=check_data`: inspect every sample of every split before training, and list the files to exclude."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

from torch.utils.data import Dataset

from visual_transformers.config.instantiate import build
from visual_transformers.config.schema import CheckDataConfig
from visual_transformers.data.datamodule import DataModule, FileData, Samples
from visual_transformers.data.io.exclude_list import absolute_path, read_exclude_list, write_exclude_list
from visual_transformers.data.io.file_names import normalize_name
from visual_transformers.data.loader import LoaderOptions, fork_seeded_rng, resolve_workers
from visual_transformers.distributed.signals import interruptible
from visual_transformers.errors import DataError, MissingMasksError
from visual_transformers.loggers.progress import show_progress
from visual_transformers.modes.check_data import output
from visual_transformers.modes.check_data.inspection import MISSING_MASK, Fault, inspect_sample
from visual_transformers.modes.check_data.output import Split
from visual_transformers.modes.check_data.statistics import Statistics

CHUNK_SIZE = 32
"""Samples that a worker inspects before it reports; few, because Ctrl-C waits for them."""


def run(cfg: CheckDataConfig, directory: Path) -> None:
    """Inspect the whole data set; write a report and the list of bad files to `check_data/`.

    Raises:
        DataError: if the folders are not as expected or, after all is written, if some samples cannot be used.
    """
    data: DataModule = build(cfg.data, "data", trust=cfg.trust)
    workers = resolve_workers(cfg.check_data.workers)
    sets = {"train": data.train_set, "val": data.val_set} | ({"test": data.test_set} if data.has_test_split else {})
    opened = {name: open_split(data, open_set) for name, open_set in sets.items()}
    splits = [
        Split(name, samples, inspect_split(name, samples, len(data.classes), workers, cfg.seed), missing)
        for name, (samples, missing) in opened.items()
    ]
    directory = directory / "check_data"
    report = output.write_report(directory, cfg.data, data, splits)
    faults = [fault for split in splits for fault in split.faults]
    reasons = {fault.image: f"{fault.kind}: {fault.file}: {fault.problem}" for fault in faults}
    known = read_exclude_list(cfg.data.get("exclude"))
    write_exclude_list(directory / "excluded.txt", reasons | dict.fromkeys(sorted(known), "excluded before"))
    output.print_report(report, directory)
    if faults:
        raise DataError(
            f"samples that cannot be used: {len(reasons)}; {directory / 'report.md'} says why. Replace them, or train "
            f"without them: data.exclude={absolute_path(directory / 'excluded.txt')}"
        )


def open_split(data: DataModule, open_set: Callable[[], Samples]) -> tuple[Samples, list[Fault]]:
    """Open a split; exclude the images without masks, and return them as faults."""
    try:
        return open_set(), []
    except MissingMasksError as error:
        assert isinstance(data, FileData)
        data.excluded |= {normalize_name(absolute_path(image)) for image, _ in error.pairs}
        return open_set(), [
            Fault(MISSING_MASK, str(image), str(image), f"it needs {mask}") for image, mask in error.pairs
        ]


def inspect_split(name: str, samples: Samples, classes: int, workers: int, seed: int) -> Statistics:
    """Inspect all samples of a split with `workers` processes; 0 inspects them in this process."""
    statistics, chunks = Statistics(len(samples), classes), InspectedChunks(samples, classes, seed)
    loader = LoaderOptions(min(workers, len(chunks))).build_loader(chunks, batch_size=None)
    with show_progress(f"checking {name}", len(samples)) as advance:
        for chunk in interruptible(loader):
            statistics.merge(chunk)
            advance(len(chunk))
    return statistics


class InspectedChunks(Dataset[Statistics]):
    """Statistics of the chunks of a split, so that workers send sums instead of samples.

    Generated samples are those of the first epoch with this `seed`.
    """

    def __init__(self, samples: Samples, classes: int, seed: int):
        self.samples, self.classes, self.seed = samples, classes, seed

    def __len__(self) -> int:
        return -(-len(self.samples) // CHUNK_SIZE)

    def __getitem__(self, number: int) -> Statistics:
        indices = range(len(self.samples))[number * CHUNK_SIZE : (number + 1) * CHUNK_SIZE]
        statistics = Statistics(len(indices), self.classes)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the report has what matters of Pillow's warnings
            for index in indices:
                with fork_seeded_rng(self.seed, 0, index):
                    statistics.add_sample(inspect_sample(self.samples, index))
        return statistics
