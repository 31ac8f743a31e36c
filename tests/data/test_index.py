"""Byte strings and file names in one buffer."""

from pathlib import Path

import numpy as np
import pytest
import torch

from visual_transformers.data.index import FileIndex, Packed

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
