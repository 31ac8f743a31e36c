"""Listings of folders: what is in them, and when they are made anew."""

import errno
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from visual_transformers.data.io import file_listing
from visual_transformers.data.io.file_listing import files_below
from visual_transformers.errors import DataError

SUFFIXES = (".jpg",)


@pytest.fixture(autouse=True)
def scans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Path]]:
    """The folders that were really listed, in turn; the cache is the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    scanned: list[Path] = []
    real = file_listing._scan

    def scan(root: Path, suffixes: tuple[str, ...]) -> file_listing.Listing:
        scanned.append(root)
        return real(root, suffixes)

    monkeypatch.setattr(file_listing, "_scan", scan)
    monkeypatch.setattr(file_listing, "UNSETTLED", 0.05)
    yield scanned


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """a.jpg, b/c.JPG, b/d/e.jpg, and what does not count; settled."""
    root = tmp_path / "root"
    (root / "b" / "d").mkdir(parents=True)
    (root / ".hidden").mkdir()
    for name in ("a.jpg", "b/c.JPG", "b/d/e.jpg", "b/notes.txt", ".f.jpg", ".hidden/g.jpg"):
        (root / name).touch()
    settle(root)
    return root


def settle(root: Path) -> None:
    """Wait until every folder's last change is long enough ago; the system's clock has a grain of some milliseconds."""
    time.sleep(0.1)


def test_files_of_all_folders_are_found_in_sorted_order(folder: Path) -> None:
    assert files_below(folder, SUFFIXES) == ["a.jpg", "b/c.JPG", "b/d/e.jpg"]


def test_an_unchanged_folder_is_listed_once(folder: Path, scans: list[Path]) -> None:
    first = files_below(folder, SUFFIXES)
    assert files_below(folder, SUFFIXES) == first
    assert scans == [folder]


@pytest.mark.parametrize("below", ["", "b", "b/d"])
@pytest.mark.parametrize("change", ["add", "remove", "rename"])
def test_a_change_in_any_folder_is_seen(folder: Path, below: str, change: str) -> None:
    victim = folder / below / "old.jpg"
    victim.touch()
    settle(folder)
    before = files_below(folder, SUFFIXES)
    if change == "add":
        (victim.parent / "new.jpg").touch()
    elif change == "remove":
        victim.unlink()
    else:
        victim.rename(victim.parent / "new.jpg")
    found = files_below(folder, SUFFIXES)
    assert found == sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*.[jJ]*") if "/." not in str(p))
    assert found != before


def test_a_change_is_seen_although_the_time_of_the_folder_is_set_back(folder: Path) -> None:
    before, times = files_below(folder, SUFFIXES), (folder / "b").stat()
    (folder / "b" / "new.jpg").touch()
    os.utime(folder / "b", ns=(times.st_atime_ns, times.st_mtime_ns))  # as rsync and tar do
    assert files_below(folder, SUFFIXES) == sorted([*before, "b/new.jpg"])


def test_a_folder_that_cannot_be_read_is_an_error_and_not_left_out(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scandir = os.scandir

    def failing(path: object) -> object:
        if str(path).endswith("/b"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    with monkeypatch.context() as patched:
        patched.setattr(os, "scandir", failing)
        with pytest.raises(DataError, match=f"^{folder}/b: cannot be listed"):
            files_below(folder, SUFFIXES)
    assert len(files_below(folder, SUFFIXES)) == 3


def test_a_folder_that_changed_just_now_is_not_remembered(
    folder: Path, scans: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_listing, "UNSETTLED", 60.0)
    (folder / "new.jpg").touch()
    files_below(folder, SUFFIXES)
    files_below(folder, SUFFIXES)
    assert len(scans) == 2


def test_other_suffixes_are_another_listing(folder: Path) -> None:
    files_below(folder, SUFFIXES)
    assert files_below(folder, (".txt",)) == ["b/notes.txt"]


def test_links_are_followed_and_circles_end(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "x.jpg").touch()
    (folder / "link").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (folder / "b" / "circle").symlink_to(folder, target_is_directory=True)
    assert files_below(folder, SUFFIXES) == ["a.jpg", "b/c.JPG", "b/d/e.jpg", "link/x.jpg"]


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"format": 1}', '{"format": 0, "files": ["z"], "folders": {}}'])
def test_a_damaged_cache_is_made_anew(folder: Path, tmp_path: Path, damage: str) -> None:
    expected = files_below(folder, SUFFIXES)
    (kept,) = (tmp_path / "cache").rglob("*.json")
    kept.write_text(damage)
    assert files_below(folder, SUFFIXES) == expected


def test_a_cache_that_cannot_be_written_costs_nothing_else(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert len(files_below(folder, SUFFIXES)) == 3
