"""Files that are left out of a data set, and unusable files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from visual_transformers.config.validation import validate
from visual_transformers.data import ImageNet, MaskFolder
from visual_transformers.data.datamodule import FileData
from visual_transformers.errors import BadFileError, ConfigError, DataError

Make = Callable[..., FileData]


@pytest.fixture(params=["classes", "masks"])
def make(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    class_folders: Callable[..., Path],
    write: Callable[..., Path],
    noise: Callable[..., NDArray[np.uint8]],
) -> Make:
    """`make(**options)`: a data set of four training and four validation images of 16 pixels."""
    if request.param == "classes":
        root = class_folders({split: {"ant": 2, "cat": 2} for split in ("train", "val")}, size=16)
        return lambda **options: ImageNet(root=str(root), image_size=8, eval_resize=8, **options)
    for split in ("train", "val"):
        for number in range(4):
            write(tmp_path / split / "images" / f"{number}.jpg", noise(16, 16, 3))
            write(tmp_path / split / "masks" / f"{number}.png", noise(16, 16) % 2)
    return lambda **options: MaskFolder(root=str(tmp_path), class_names=["a", "b"], **options)


def excluding(tmp_path: Path, make: Make, *lines: str) -> Any:
    path = tmp_path / "lists" / "excluded.txt"
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return make(exclude=str(path))


def test_excluded_files_are_left_out_and_no_others(make: Make, tmp_path: Path) -> None:
    before: Any = make().train_set()
    files = [*before.images]
    data = excluding(tmp_path, make, "# truncated", str(files[1]), "", f"../{files[2].relative_to(tmp_path)}")
    after = data.train_set()
    assert [*after.images] == [files[0], files[3]]
    assert len(data.val_set()) == 4
    for place, earlier in enumerate((0, 3)):
        assert np.array_equal(after.target(place), before.target(earlier))
        assert after.origins(place) == before.origins(earlier)


def test_an_excluded_mask_leaves_its_image_out(make: Make, tmp_path: Path) -> None:
    samples: Any = make().train_set()
    last = samples.origins(2)[-1]  # the mask, or the image where there is none
    assert len(excluding(tmp_path, make, last).train_set()) == 3


def test_a_missing_exclude_list_is_refused_by_its_key(make: Make) -> None:
    with pytest.raises(DataError, match=r"data\.exclude=nowhere\.txt"):
        make(exclude="nowhere.txt")


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_max_skipped_is_0_to_1(composed, share: float) -> None:
    with pytest.raises(ConfigError, match=r"data\.max_skipped=\S+: must be at least 0 and at most 1"):
        validate(composed("data=image_folder", "data.root=x", f"data.max_skipped={share}"))


def test_the_check_before_training_stops_at_a_bad_file(make: Make) -> None:
    samples: Any = make().train_set()
    samples.images[3].write_bytes(b"")
    with pytest.raises(BadFileError, match=f"^{samples.images[3]}: is empty"):
        make().check(make().train_set())


def test_the_check_before_training_counts_skipped_samples(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    samples: Any = make().train_set()
    samples.images[3].write_bytes(b"")
    data = make(on_error="skip", max_skipped=0.25)
    data.check(data.train_set())
    assert f"skipped {samples.images[3]}: is empty" in capsys.readouterr().err
    few = make(on_error="skip", max_skipped=0.2)
    with pytest.raises(DataError, match="1 of 4 samples"):
        few.check(few.train_set())


@pytest.mark.parametrize("named", [False, True])
def test_a_test_split_differs_from_the_validation_split(make: Make, tmp_path: Path, named: bool) -> None:
    data = make()
    if isinstance(data, MaskFolder) and named:
        data = make(test_images="train/images", test_masks="train/masks")
    expected = named and isinstance(data, MaskFolder)
    assert data.has_test_split == expected
    assert ([*data.test_set().images] != [*data.val_set().images]) == expected  # type: ignore[attr-defined]


def test_a_tilde_stands_for_the_home_folder(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = make()
    monkeypatch.setenv("HOME", str(Path(data.root).parent))  # type: ignore[attr-defined]
    short = f"~/{Path(data.root).name}"  # type: ignore[attr-defined]
    names = {"class_names": ["a", "b"]} if isinstance(data, MaskFolder) else {}
    assert len(type(data)(root=short, **names).val_set()) == 4  # type: ignore[call-arg]
