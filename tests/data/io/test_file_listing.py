"""Listings of folders, and when their cache is renewed."""

import errno
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from visual_transformers.data.io import file_listing
from visual_transformers.data.io.file_listing import list_files
from visual_transformers.errors import DataError

SUFFIXES = (".jpg",)


@pytest.fixture(autouse=True)
def scans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Path]]:
    """Record the folders that are really listed; each test has its own cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    scanned: list[Path] = []
    real = file_listing._scan

    def scan(root: Path, suffixes: tuple[str, ...]) -> file_listing.Listing:
        scanned.append(root)
        return real(root, suffixes)

    monkeypatch.setattr(file_listing, "_scan", scan)
    monkeypatch.setattr(file_listing, "SETTLE_SECONDS", 0.05)
    yield scanned


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Create a.jpg, b/c.JPG, b/d/e.jpg, and files that are left out."""
    root = tmp_path / "root"
    (root / "b" / "d").mkdir(parents=True)
    (root / ".hidden").mkdir()
    for name in ("a.jpg", "b/c.JPG", "b/d/e.jpg", "b/notes.txt", ".f.jpg", ".hidden/g.jpg"):
        (root / name).touch()
    settle(root)
    return root


def settle(root: Path) -> None:
    """Wait until every folder's last change is old enough; the system's clock has a resolution of some milliseconds."""
    time.sleep(0.1)


def test_files_of_all_folders_are_found_in_sorted_order(folder: Path) -> None:
    assert list_files(folder, SUFFIXES) == ["a.jpg", "b/c.JPG", "b/d/e.jpg"]


def test_an_unchanged_folder_is_listed_once(folder: Path, scans: list[Path]) -> None:
    first = list_files(folder, SUFFIXES)
    assert list_files(folder, SUFFIXES) == first
    assert scans == [folder]


@pytest.mark.parametrize("below", ["", "b", "b/d"])
@pytest.mark.parametrize("change", ["add", "remove", "rename"])
def test_a_change_in_any_folder_is_detected(folder: Path, below: str, change: str) -> None:
    victim = folder / below / "old.jpg"
    victim.touch()
    settle(folder)
    before = list_files(folder, SUFFIXES)
    if change == "add":
        (victim.parent / "new.jpg").touch()
    elif change == "remove":
        victim.unlink()
    else:
        victim.rename(victim.parent / "new.jpg")
    found = list_files(folder, SUFFIXES)
    assert found == sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*.[jJ]*") if "/." not in str(p))
    assert found != before


def test_a_change_is_detected_even_if_the_time_of_the_folder_is_reset(folder: Path) -> None:
    before, times = list_files(folder, SUFFIXES), (folder / "b").stat()
    (folder / "b" / "new.jpg").touch()
    os.utime(folder / "b", ns=(times.st_atime_ns, times.st_mtime_ns))  # as rsync and tar do
    assert list_files(folder, SUFFIXES) == sorted([*before, "b/new.jpg"])


def test_an_unreadable_folder_is_an_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scandir = os.scandir

    def failing(path: object) -> object:
        if str(path).endswith("/b"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    with monkeypatch.context() as patched:
        patched.setattr(os, "scandir", failing)
        with pytest.raises(DataError, match=f"^{folder}/b: cannot be listed"):
            list_files(folder, SUFFIXES)
    assert len(list_files(folder, SUFFIXES)) == 3


def test_a_folder_that_just_changed_is_not_cached(
    folder: Path, scans: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_listing, "SETTLE_SECONDS", 60.0)
    (folder / "new.jpg").touch()
    list_files(folder, SUFFIXES)
    list_files(folder, SUFFIXES)
    assert len(scans) == 2


def test_other_suffixes_have_their_own_listing(folder: Path) -> None:
    list_files(folder, SUFFIXES)
    assert list_files(folder, (".txt",)) == ["b/notes.txt"]


def test_links_are_followed_and_circles_end(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "x.jpg").touch()
    (folder / "link").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (folder / "b" / "circle").symlink_to(folder, target_is_directory=True)
    assert list_files(folder, SUFFIXES) == ["a.jpg", "b/c.JPG", "b/d/e.jpg", "link/x.jpg"]


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"format": 1}', '{"format": 0, "files": ["z"], "folders": {}}'])
def test_a_damaged_cache_is_renewed(folder: Path, tmp_path: Path, damage: str) -> None:
    expected = list_files(folder, SUFFIXES)
    (kept,) = (tmp_path / "cache").rglob("*.json")
    kept.write_text(damage)
    assert list_files(folder, SUFFIXES) == expected


def test_a_cache_that_cannot_be_written_is_skipped(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert len(list_files(folder, SUFFIXES)) == 3
