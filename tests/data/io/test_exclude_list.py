"""Lists of files to leave out, with file names of any characters."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from visual_transformers.data import ImageNet
from visual_transformers.data.io.exclude_list import read_exclude_list, write_exclude_list
from visual_transformers.errors import DataError

NAMES = [
    "plain.JPEG",
    "two words.JPEG",
    " begins with a blank.JPEG",
    "#1.JPEG",
    "a # b.JPEG",
    "größe-東京.JPEG",
    "a\u2028b\x85c.JPEG",
    os.fsdecode(b"latin-\xe9.JPEG"),
    "quote's, [brackets] and {braces}.JPEG",
]


@pytest.fixture
def root(tmp_path: Path, write: Callable[..., Path]) -> Path:
    for split in ("train", "val"):
        for name in NAMES:
            write(tmp_path / split / "class" / name, np.zeros((4, 4, 3), np.uint8))
    return tmp_path


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_written_list_leaves_out_exactly_its_file(root: Path, name: str) -> None:
    bad = root / "train" / "class" / name
    write_exclude_list(root / "lists" / "excluded.txt", {str(bad): "is empty"})
    data = ImageNet(root=str(root), exclude=str(root / "lists" / "excluded.txt"), image_size=4, eval_resize=4)
    assert {path.name for path in data.train_set().images} == {*NAMES} - {name}
    assert {path.name for path in data.val_set().images} == {*NAMES}


def test_reasons_of_several_lines_stay_comments(tmp_path: Path) -> None:
    write_exclude_list(tmp_path / "list", {"/a": "one\nreason", "/b": ""})
    assert read_exclude_list(str(tmp_path / "list")) == {"/a", "/b"}


def test_lines_written_by_hand_are_relative_to_the_lists_folder(tmp_path: Path) -> None:
    (tmp_path / "list").write_text("# by hand\n\n  train/a.jpg  \r\n../b.jpg\n", encoding="utf-8")
    assert read_exclude_list(str(tmp_path / "list")) == {f"{tmp_path}/train/a.jpg", f"{tmp_path.parent}/b.jpg"}


def test_a_missing_list_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.exclude=.*no such file"):
        read_exclude_list(str(tmp_path / "none"))
