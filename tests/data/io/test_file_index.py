"""Byte strings and file names in one buffer that processes share."""

import pickle
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import numpy as np
import pytest
import torch.multiprocessing  # teaches the pickler of processes to share tensors

from visual_transformers.data.io.file_index import FileIndex, PackedBytes

ROWS = [b"92 abc", b"", b"\x00\xff", b"x" * 1000]


def test_rows_are_stored_unchanged() -> None:
    assert list(PackedBytes(ROWS)) == ROWS
    assert PackedBytes(ROWS)[-1] == ROWS[-1]
    assert list(PackedBytes([])) == []


@pytest.mark.parametrize("index", [4, -5])
def test_a_missing_row_is_an_index_error(index: int) -> None:
    with pytest.raises(IndexError):
        PackedBytes(ROWS)[index]


def test_a_subset_has_the_rows_at_its_indices_in_their_order() -> None:
    assert list(PackedBytes(ROWS).subset(np.array([3, 0]))) == [ROWS[3], ROWS[0]]


def test_any_number_of_rows_is_stored_in_tensors_that_processes_share() -> None:
    assert all(isinstance(value, torch.Tensor) for value in vars(PackedBytes(ROWS * 100)).values())


NAMES = ["train/n01440764/a.JPEG", "b", "ä/ö ü.jpg", "with, comma/#1.png", "\udcff.jpg"]
"""The last one is Python's form of a name that is not UTF-8."""


def test_files_are_stored_unchanged() -> None:
    index = FileIndex("/data", NAMES)
    assert [*index] == [Path("/data") / name for name in NAMES]
    assert [*index.names()] == NAMES
    assert index[-1] == Path("/data") / NAMES[-1]
    assert index.name(4) == NAMES[4]


def test_an_empty_index_has_no_files() -> None:
    assert [*FileIndex("/data", [])] == []


@pytest.mark.parametrize("index", [len(NAMES), -len(NAMES) - 1])
def test_an_index_beyond_the_end_is_an_index_error(index: int) -> None:
    with pytest.raises(IndexError):
        FileIndex("/data", NAMES)[index]


def test_a_subset_has_the_files_at_its_indices_in_their_order() -> None:
    assert [*FileIndex("/data", NAMES).subset(np.array([3, 0])).names()] == [NAMES[3], NAMES[0]]


def test_another_process_is_sent_a_handle_and_not_the_names() -> None:
    index = FileIndex("/data", [f"train/n{i:08d}.JPEG" for i in range(100_000)])
    assert len(ForkingPickler.dumps(index)) < 10_000 < len(pickle.dumps(index))
