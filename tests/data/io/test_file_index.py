"""Byte strings and file names in one buffer: what was put in comes out, and processes share it."""

import pickle
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import numpy as np
import pytest
import torch.multiprocessing  # teaches the pickler of processes to share tensors

from visual_transformers.data.io.file_index import FileIndex, Packed

ROWS = [b"92 abc", b"", b"\x00\xff", b"x" * 1000]


def test_rows_come_out_as_they_went_in() -> None:
    assert list(Packed(ROWS)) == ROWS
    assert Packed(ROWS)[-1] == ROWS[-1]
    assert list(Packed([])) == []


@pytest.mark.parametrize("index", [4, -5])
def test_a_row_that_is_not_there_is_an_index_error(index: int) -> None:
    with pytest.raises(IndexError):
        Packed(ROWS)[index]


def test_a_subset_has_the_rows_at_its_places_in_their_order() -> None:
    assert list(Packed(ROWS).subset(np.array([3, 0]))) == [ROWS[3], ROWS[0]]
    assert list(FileIndex("root", ["a/1.jpg", "b.jpg"]).subset(np.array([1]))) == [Path("root/b.jpg")]


def test_however_many_rows_there_are_they_are_two_tensors_that_processes_share() -> None:
    assert all(isinstance(part, torch.Tensor) for part in vars(Packed(ROWS * 100)).values())


def test_names_may_hold_bytes_that_are_no_text() -> None:
    assert FileIndex("root", ["caf\udce9.jpg"]).name(0) == "caf\udce9.jpg"


NAMES = ["train/n01440764/a.JPEG", "b", "ä/ö ü.jpg", "with, comma/#1.png", "\udcff.jpg"]
"""The last one is how Python holds a name that is not UTF-8."""


def test_files_come_out_as_they_went_in() -> None:
    index = FileIndex("/data", NAMES)
    assert [*index] == [Path("/data") / name for name in NAMES]
    assert [*index.names()] == NAMES
    assert index[-1] == Path("/data") / NAMES[-1]


def test_an_empty_index_has_no_files() -> None:
    assert [*FileIndex("/data", [])] == []


@pytest.mark.parametrize("place", [len(NAMES), -len(NAMES) - 1])
def test_a_place_beyond_the_end_is_an_index_error(place: int) -> None:
    with pytest.raises(IndexError):
        FileIndex("/data", NAMES)[place]


def test_a_subset_has_the_files_at_its_places_in_their_order() -> None:
    assert [*FileIndex("/data", NAMES).subset(np.array([3, 0])).names()] == [NAMES[3], NAMES[0]]


def test_another_process_is_sent_a_handle_and_not_the_names() -> None:
    index = FileIndex("/data", [f"train/n{i:08d}.JPEG" for i in range(100_000)])
    assert len(ForkingPickler.dumps(index)) < 10_000 < len(pickle.dumps(index))
