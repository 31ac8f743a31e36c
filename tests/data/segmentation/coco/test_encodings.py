"""COCO-Stuff's four encodings: the same picture has the same mask in each of them."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as regions

from visual_transformers.data import CocoStuff
from visual_transformers.data.segmentation.coco.coco_stuff import LABEL_SETS
from visual_transformers.data.segmentation.coco.labels import (
    DROPPED,
    MERGED,
    OTHER,
    STUFF,
    THINGS,
    category_ids,
    category_names,
    class_indices,
)
from visual_transformers.data.segmentation.coco.stuff_json import draw_regions
from visual_transformers.errors import BadFileError, DataError, MissingMasksError

Official = NDArray[np.int64]
BLOCK = (5, 7)
"""Height and width of the rectangles in pictures, pixels."""
BANNER = {9: np.full((4, 6), 92)}
"""Image 9, with banner in all of its pixels."""


@pytest.fixture
def official() -> Official:
    """Picture of rectangles of all official ids: things, stuff and unlabeled."""
    kinds = np.random.default_rng(0).permutation([0] * 9 + THINGS + STUFF)
    return np.kron(kinds.reshape(12, 15), np.ones(BLOCK, int))


# Encoding of official ids


def png(official: Official, encoding: str) -> NDArray[np.uint8]:
    if encoding == "stuffthingmaps":
        return np.where(official == 0, 255, official - 1).astype(np.uint8)
    return group_things(official).astype(np.uint8)


def group_things(official: Official) -> Official:
    """Merge all things into one category."""
    return np.where(np.isin(official, THINGS), OTHER, official)


def merge_stuff(official: Official) -> Official:
    """Merge classes into the categories of the panoptic task, by their names."""
    numbers = {name: i for i, name in category_names().items()}
    picture = official.copy()
    for name, parts in {**MERGED, None: DROPPED}.items():
        picture[np.isin(official, [numbers[part] for part in parts])] = numbers[name] if name else 0
    return picture


def compress(region: NDArray[np.bool_]) -> Any:
    encoded = regions.encode(np.asfortranarray(region, np.uint8))
    return {"size": encoded["size"], "counts": encoded["counts"].decode()}


def count_runs(region: NDArray[np.bool_]) -> Any:
    column_by_column = np.concatenate([[False], region.ravel(order="F"), [False]])
    changes = np.flatnonzero(np.diff(column_by_column)).tolist()
    counts = np.diff([0, *changes, *([region.size] if not changes or changes[-1] != region.size else [])])
    return {"size": list(region.shape), "counts": counts.tolist()}


def polygons(region: NDArray[np.bool_]) -> Any:
    height, width = BLOCK
    tops_and_lefts = np.argwhere(region[::height, ::width]) * BLOCK
    return [[x, y, x + width, y, x + width, y + height, x, y + height] for y, x in tops_and_lefts.tolist()]


def images(pictures: dict[int, Official]) -> list[dict[str, Any]]:
    return [
        {"id": number, "file_name": f"{number:012}.jpg", "height": picture.shape[0], "width": picture.shape[1]}
        for number, picture in pictures.items()
    ]


def stuff_json(pictures: dict[int, Official], notation: Callable[..., Any] = compress) -> dict[str, Any]:
    annotations = [
        {
            "id": number * 1000 + i,
            "image_id": number,
            "category_id": i,
            "segmentation": notation(group_things(picture) == i),
        }
        for number, picture in pictures.items()
        for i in np.unique(group_things(picture)).tolist()
        if i
    ]
    return {"images": images(pictures), "annotations": annotations}


def panoptic(pictures: dict[int, Official]) -> tuple[dict[str, Any], dict[str, NDArray[np.uint8]]]:
    """Make the JSON file and the colours of the PNGs: two segments per category, with ids of up to 24 bits."""
    annotations, pngs = [], {}
    for number, picture in pictures.items():
        categories = merge_stuff(picture)
        segments = np.where(categories > 0, categories * 80_000 + np.arange(picture.shape[1]) % 2, 0)
        pngs[f"{number:012}.png"] = np.stack([segments >> shift & 255 for shift in (0, 8, 16)], axis=2).astype(np.uint8)
        info = [{"id": i, "category_id": i // 80_000} for i in np.unique(segments).tolist() if i]
        annotations.append({"image_id": number, "file_name": f"{number:012}.png", "segments_info": info})
    return {"images": images(pictures), "annotations": annotations}, pngs


Coco = Callable[..., CocoStuff]


@pytest.fixture
def coco(tmp_path: Path, write: Callable[..., Path]) -> Coco:
    """`coco({image id: official ids}, encoding)` writes the same pictures as both splits, as in COCO's archives."""

    def make(pictures: dict[int, Official], encoding: str, notation: Any = compress, **options: Any) -> CocoStuff:
        for split in ("train2017", "val2017"):
            for number, picture in pictures.items():
                write(tmp_path / "images" / split / f"{number:012}.jpg", np.zeros((*picture.shape, 3), np.uint8))
            write_masks(tmp_path / "annotations", split, pictures, encoding, notation)
        return CocoStuff(root=str(tmp_path), encoding=encoding, **options)

    def write_masks(
        place: Path, split: str, pictures: dict[int, Official], encoding: str, notation: Callable[..., Any]
    ) -> None:
        place.mkdir(exist_ok=True)
        if encoding == "stuff_json":
            (place / f"stuff_{split}.json").write_text(json.dumps(stuff_json(pictures, notation)))
        elif encoding == "panoptic":
            content, pngs = panoptic(pictures)
            (place / f"panoptic_{split}.json").write_text(json.dumps(content))
            for name, colours in pngs.items():
                write(place / f"panoptic_{split}" / name, colours)
        else:
            folder = {"stuffthingmaps": split, "pixelmaps": f"stuff_{split}_pixelmaps"}[encoding]
            for number, picture in pictures.items():
                write(place / folder / f"{number:012}.png", png(picture, encoding))

    return make


def masks(data: CocoStuff) -> Iterator[NDArray[np.uint8]]:
    samples = data.val_set()
    return (samples[i][1].numpy() for i in range(len(samples)))


# The same masks


@pytest.mark.parametrize(
    ("encoding", "notation"),
    [
        ("pixelmaps", None),
        ("stuff_json", compress),
        ("stuff_json", count_runs),
        ("stuff_json", polygons),
        ("panoptic", None),
    ],
)
def test_every_encoding_of_a_picture_gives_the_mask_of_its_stuffthingmap(
    coco: Coco, official: Official, encoding: str, notation: Any
) -> None:
    pictures = {9: official, 25: official[::-1], 30: official[5:10, :14]}
    for label_set in LABEL_SETS[encoding]:
        expected = list(masks(coco(pictures, "stuffthingmaps", label_set=label_set)))
        decoded = list(masks(coco(pictures, encoding, notation, label_set=label_set)))
        assert len(decoded) == 3
        assert all(np.array_equal(one, other) for one, other in zip(decoded, expected, strict=True))


def test_pixels_that_no_region_covers_count_nowhere(coco: Coco) -> None:
    nothing, sky = np.zeros((4, 6), int), np.full((4, 6), 157)
    without, with_sky = masks(coco({1: nothing, 2: sky}, "stuff_json"))
    assert (without == 255).all()
    assert (with_sky == 157 - 92).all()


def test_all_encodings_of_cocostuff_mini_give_the_same_masks(coco: Coco, shared_data: Path) -> None:
    files = sorted((shared_data / "cocostuff_mini/annotations/val2017").glob("*.png"))[:4]
    pictures = {int(file.stem): (np.array(Image.open(file)).astype(int) + 1) % 256 for file in files}
    expected = list(masks(coco(pictures, "stuffthingmaps", label_set="stuff_merged")))
    assert len(np.unique(expected[0])) > 3
    for encoding in ("pixelmaps", "stuff_json", "panoptic"):
        decoded = masks(coco(pictures, encoding, label_set="stuff_merged"))
        assert all(np.array_equal(one, other) for one, other in zip(decoded, expected, strict=True)), encoding


# The merged classes


def test_the_panoptic_stuff_classes_are_those_of_its_published_list() -> None:
    classes = CocoStuff.classes_from_settings({"label_set": "stuff_merged"})
    assert len(classes) == len(category_ids("stuff_merged")) == 54
    assert classes[:5] == ["things", "banner", "blanket", "bridge", "cardboard"]
    assert classes[36:39] == ["window-other", "tree-merged", "fence-merged"]
    assert classes[53] == "rug-merged"
    assert category_names()[200] == "rug-merged"


def test_every_stuff_class_is_kept_merged_or_dropped_once() -> None:
    merged = [part for parts in MERGED.values() for part in parts]
    assert len(merged) == len(set(merged)) == 43
    assert len(DROPPED) == len(set(DROPPED)) == 12
    assert {*merged, *DROPPED} < {category_names()[i] for i in STUFF}
    assert len(STUFF) - len(merged) - len(DROPPED) == 53 - len(MERGED)


@pytest.mark.parametrize(
    ("name", "into"),
    [
        ("person", "things"), ("banner", "banner"), ("leaves", "tree-merged"), ("fog", "sky-other-merged"),
        ("floor-stone", "pavement-merged"), ("floor-wood", "floor-wood"), ("carpet", "rug-merged"), ("wood", None),
        ("waterdrops", None),
    ],
)  # fmt: skip
def test_a_class_goes_where_the_panoptic_task_put_it(name: str, into: str | None) -> None:
    number = {name: i for i, name in category_names().items()}[name]
    index = class_indices("stuff_merged")[number]
    assert (None if index == 255 else CocoStuff.classes_from_settings({"label_set": "stuff_merged"})[index]) == into


def test_merging_keeps_what_the_panoptic_masks_behind_cocostuff_mini_tell_apart(shared_data: Path) -> None:
    """Its masks hold one part of each merged class, so none of them may be dropped, and no two merged."""
    files = (shared_data / "cocostuff_mini/annotations").glob("*/*.png")
    ids = np.unique(np.concatenate([np.unique(np.array(Image.open(file))) for file in files])).astype(int) + 1
    stuff = ids[np.isin(ids, STUFF)]
    classes = class_indices("stuff_merged")[stuff]
    assert len(stuff) > 40
    assert 255 not in classes
    assert len(set(classes.tolist())) == len(stuff)


# Paths


def test_class_names_need_no_folder() -> None:
    assert CocoStuff.classes_from_settings({"root": "nowhere"})[0] == "banner"
    assert len(CocoStuff.classes_from_settings({"label_set": "stuff_things"})) == 171


def test_images_may_lie_beside_the_annotations_and_in_nested_folders_under_older_names(
    tmp_path: Path, write: Callable[..., Path], coco: Coco
) -> None:
    pictures = {9: np.full((4, 6), 157), 25: np.full((4, 6), 92)}
    coco(pictures, "stuffthingmaps"), coco(pictures, "stuff_json")
    (tmp_path / "images").rename(tmp_path / "elsewhere")
    first = write(tmp_path / "val2017/a/COCO_val2014_000000000025.jpg", np.zeros((4, 6, 3), np.uint8))
    second = write(tmp_path / "val2017/b/000000000009.jpg", np.zeros((4, 6, 3), np.uint8))
    for encoding, order in (("stuffthingmaps", [first, second]), ("stuff_json", [second, first])):
        samples = CocoStuff(root=str(tmp_path), encoding=encoding).val_set()
        assert list(samples.images) == order
        assert {path: int(samples[i][1][0, 0]) for i, path in enumerate(samples.images)} == {first: 0, second: 65}


def test_panoptic_pngs_may_lie_where_detectron2_wants_them(tmp_path: Path, coco: Coco) -> None:
    data = coco(BANNER, "panoptic", label_set="stuff_merged")
    expected = list(masks(data))
    (tmp_path / "annotations/panoptic_val2017").rename(tmp_path / "panoptic_val2017")
    assert np.array_equal(list(masks(data)), expected)


def test_the_json_file_says_which_images_belong_to_the_split(tmp_path: Path, coco: Coco) -> None:
    data = coco({9: np.full((4, 6), 92), 25: np.full((4, 6), 93)}, "stuff_json")
    path = tmp_path / "annotations/stuff_val2017.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({key: entries[1:] for key, entries in content.items()}))
    assert [path.stem for path in data.val_set().images] == ["000000000025"]


@pytest.mark.parametrize("encoding", ["stuff_json", "panoptic"])
def test_images_are_left_out_by_themselves_or_by_their_masks(tmp_path: Path, coco: Coco, encoding: str) -> None:
    pictures = {number: np.full((4, 6), number) for number in (92, 93, 95, 100)}
    origins = {"stuff_json": "stuff_val2017.json#95", "panoptic": "panoptic_val2017/000000000095.png"}
    listed = tmp_path / "exclude.txt"
    listed.write_text(f"images/val2017/{92:012}.jpg\nannotations/{origins[encoding]}\n")
    data = coco(pictures, encoding, label_set="stuff_merged", exclude=str(listed))
    classes = [category_names()[i] for i in category_ids("stuff_merged")]
    assert [classes[mask[0, 0]] for mask in masks(data)] == ["blanket", "cardboard"]


# Invalid data


@pytest.mark.parametrize(
    ("encoding", "label_set"),
    [
        ("pixelmaps", "stuff_things"),
        ("stuff_json", "stuff_things"),
        ("panoptic", "stuff"),
        ("panoptic", "stuff_things"),
    ],
)
def test_a_label_set_that_an_encoding_does_not_hold_is_refused_with_those_that_it_does(
    coco: Coco, official: Official, encoding: str, label_set: str
) -> None:
    with pytest.raises(DataError, match=f"data.encoding={encoding} .*data.label_set={label_set} .*stuff_merged"):
        coco({9: official}, encoding, label_set=label_set)


Change = Callable[[dict[str, Any]], None]


def edit_json(path: Path, change: Change) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["annotations"][0].update(category_id=44), r"categories \[44\].*stuff_train2017.json.*92 to 183"),
        (lambda c: c["annotations"][0].pop("segmentation"), "entries without segmentation"),
        (lambda c: c["annotations"][0].update(image_id=7), "annotation 9092 of image 7 is no region"),
        (lambda c: c["annotations"][0].update(segmentation=[]), "annotation 9092 of image 9 is no region"),
        (lambda c: c["annotations"][0].update(segmentation="x"), "annotation 9092 of image 9 is no region"),
        (lambda c: c["annotations"][0]["segmentation"].update(size=[4, 5]), r"annotation 9092 .*\[4, 5\].*\[4, 6\]"),
        (lambda c: c["annotations"][0]["segmentation"].update(counts=""), "annotation 9092 .*0 characters"),
        (lambda c: c["images"][0].pop("height"), "entries without height"),
        (lambda c: c["images"].clear(), "lists no images"),
        (lambda c: c.pop("annotations"), r"no annotation file of COCO \(KeyError\('annotations'\)\)"),
    ],
)
def test_a_faulty_json_file_is_named_with_what_is_wrong_in_it(
    tmp_path: Path, coco: Coco, change: Change, message: str
) -> None:
    data = coco(BANNER, "stuff_json")
    path = tmp_path / "annotations/stuff_val2017.json"
    edit_json(path, change)
    with pytest.raises(DataError, match=f"^{path}: .*{message}"):
        data.val_set()


def test_a_file_that_is_no_json_is_named(tmp_path: Path, coco: Coco, cut_short: Callable[[Path], None]) -> None:
    data = coco(BANNER, "stuff_json")
    cut_short(tmp_path / "annotations/stuff_val2017.json")
    with pytest.raises(DataError, match=r"stuff_val2017.json: is no annotation file of COCO \(JSONDecodeError"):
        data.val_set()


@pytest.mark.parametrize(
    ("there", "file", "asked"),
    [("panoptic", "panoptic_val2017.json", "stuff_json"), ("stuff_json", "stuff_val2017.json", "panoptic")],
)
def test_the_json_file_of_the_other_encoding_is_refused(
    tmp_path: Path, coco: Coco, there: str, file: str, asked: str
) -> None:
    coco(BANNER, there, label_set="stuff_merged")
    place = f"annotations/{file}"
    data = CocoStuff(root=str(tmp_path), encoding=asked, label_set="stuff_merged", val_masks=place)
    with pytest.raises(DataError, match=f"entries without .*data.encoding={asked} needs"):
        data.val_set()


@pytest.mark.parametrize("encoding", ["stuffthingmaps", "pixelmaps", "stuff_json", "panoptic"])
def test_missing_masks_are_named_with_the_expected_layout(tmp_path: Path, coco: Coco, encoding: str) -> None:
    (tmp_path / "images").mkdir()
    data = CocoStuff(root=str(tmp_path), encoding=encoding, label_set="stuff_merged")
    with pytest.raises(DataError, match="no such folder or file; expected the layout") as caught:
        data.val_set()
    assert "data.train_images" in str(caught.value)


@pytest.mark.parametrize("encoding", ["stuffthingmaps", "stuff_json", "panoptic"])
def test_a_missing_image_or_mask_is_named(tmp_path: Path, coco: Coco, encoding: str) -> None:
    data = coco({9: np.full((4, 6), 92), 25: np.full((4, 6), 92)}, encoding, label_set="stuff_merged")
    place = {"stuffthingmaps": "annotations/val2017/{}.png", "panoptic": "annotations/panoptic_val2017/{}.png"}
    missing = tmp_path / place.get(encoding, "images/val2017/{}.jpg").format(f"{25:012}")
    missing.unlink()
    with pytest.raises(DataError, match=rf"1 of (the )?2 .*{missing.name}"):
        data.val_set()


def test_two_images_of_one_number_are_refused(coco: Coco, tmp_path: Path, write: Callable[..., Path]) -> None:
    data = coco(BANNER, "stuff_json")
    write(tmp_path / "images/val2017/again/9.jpg", np.zeros((4, 6, 3), np.uint8))
    with pytest.raises(DataError, match=r"000000000009.jpg and again/9.jpg are both image 9"):
        data.val_set()


def test_an_image_without_a_panoptic_annotation_is_named(tmp_path: Path, coco: Coco) -> None:
    data = coco({9: np.full((4, 6), 92), 25: np.full((4, 6), 92)}, "panoptic", label_set="stuff_merged")
    edit_json(tmp_path / "annotations/panoptic_val2017.json", lambda content: content["annotations"].pop())
    with pytest.raises(DataError, match="1 of its images have no annotation; the first has the id 25"):
        data.val_set()


def test_faulty_segments_are_named_with_their_image(tmp_path: Path, coco: Coco) -> None:
    data = coco(BANNER, "panoptic", label_set="stuff_merged")
    edit_json(
        tmp_path / "annotations/panoptic_val2017.json", lambda c: c["annotations"][0]["segments_info"][0].pop("id")
    )
    with pytest.raises(DataError, match=r"segments_info of image 9 is no list of segments .*KeyError\('id'\)"):
        data.val_set()


def test_panoptic_pngs_without_their_folder_are_named(tmp_path: Path, coco: Coco) -> None:
    data = coco(BANNER, "panoptic", label_set="stuff_merged")
    (tmp_path / "annotations/panoptic_val2017").rename(tmp_path / "gone")
    with pytest.raises(DataError, match="annotations/panoptic_val2017: no such folder, with the PNGs"):
        data.val_set()


def test_images_without_their_panoptic_png_are_listed_and_may_be_excluded(tmp_path: Path, coco: Coco) -> None:
    data = coco({9: np.full((4, 6), 92), 25: np.full((4, 6), 93)}, "panoptic", label_set="stuff_merged")
    image = data.val_set().images[1]
    (tmp_path / f"annotations/panoptic_val2017/{25:012}.png").unlink()
    with pytest.raises(MissingMasksError) as caught:
        data.val_set()
    assert [pair[0] for pair in caught.value.pairs] == [image]
    data.excluded = {str(image)}
    assert len(data.val_set()) == 1


# Unusable masks of single samples


@pytest.mark.parametrize(
    ("counts", "message"),
    [("n0J", "do not add up to 6 x 4 pixels"), ("0", "do not add up to 6 x 4 pixels"), ("P", "are cut off")],
)
def test_damaged_runs_are_named_with_their_image(tmp_path: Path, coco: Coco, counts: str, message: str) -> None:
    data = coco(BANNER, "stuff_json")
    path = tmp_path / "annotations/stuff_val2017.json"
    edit_json(path, lambda content: content["annotations"][0]["segmentation"].update(counts=counts))
    with pytest.raises(BadFileError, match=f"^{path}#9: .*({message})"):
        data.val_set()[0]


def test_regions_that_overlap_are_refused(tmp_path: Path, coco: Coco) -> None:
    data = coco(BANNER, "stuff_json")
    path = tmp_path / "annotations/stuff_val2017.json"
    edit_json(path, lambda content: content["annotations"].append(content["annotations"][0] | {"category_id": 93}))
    with pytest.raises(BadFileError, match=f"^{path}#9: .*regions overlap"):
        data.val_set()[0]


@pytest.mark.parametrize("kinds", [1, 2, 9])
@pytest.mark.parametrize("shape", [(1, 1), (40, 30), (300, 200)])
def test_regions_are_drawn_as_pycocotools_encoded_them(shape: tuple[int, int], kinds: int) -> None:
    picture = np.random.default_rng(0).choice([*range(kinds), 255], shape).astype(np.uint8)
    runs = [regions.encode(np.asfortranarray(picture == kind, np.uint8))["counts"] for kind in range(kinds)]
    assert np.array_equal(draw_regions(runs, list(range(kinds)), *shape), picture)
    with pytest.raises(ValueError, match="run lengths"):
        draw_regions([runs[0][:-1], *runs[1:]], list(range(kinds)), *shape)


@pytest.mark.parametrize("mode", ["L", "P"])
def test_a_panoptic_png_that_is_not_rgb_is_named(tmp_path: Path, coco: Coco, mode: str) -> None:
    data = coco(BANNER, "panoptic", label_set="stuff_merged")
    path = tmp_path / f"annotations/panoptic_val2017/{9:012}.png"
    Image.new(mode, (6, 4)).save(path)
    with pytest.raises(BadFileError, match=f"^{path}: a panoptic PNG must be RGB.*'{mode}'"):
        data.val_set()[0]


def test_segments_that_the_json_file_does_not_name_are_named(tmp_path: Path, coco: Coco) -> None:
    data = coco(BANNER, "panoptic", label_set="stuff_merged")
    path = tmp_path / f"annotations/panoptic_val2017/{9:012}.png"
    Image.new("RGB", (6, 4), (1, 2, 3)).save(path)  # 1 + 2 * 256 + 3 * 65536 is 197121
    with pytest.raises(BadFileError, match=rf"^{path}: segments \[197121\] are not in the JSON file"):
        data.val_set()[0]


@pytest.mark.parametrize("encoding", ["stuff_json", "panoptic"])
def test_a_mask_of_another_size_than_its_image_is_named(
    tmp_path: Path, coco: Coco, write: Callable[..., Path], encoding: str
) -> None:
    data = coco(BANNER, encoding, label_set="stuff_merged")
    write(tmp_path / "images/val2017" / f"{9:012}.jpg", np.zeros((8, 6, 3), np.uint8))
    with pytest.raises(BadFileError, match=r"6 x 4 pixels and its image .* 6 x 8"):
        data.val_set()[0]


def test_each_bad_annotation_is_skipped_and_counted_by_itself(tmp_path: Path, coco: Coco) -> None:
    pictures = {number: np.full((4, 6), 92) for number in (1, 2, 3)}
    data = coco(pictures, "stuff_json", on_error="skip", max_skipped=0.7)
    path = tmp_path / "annotations/stuff_val2017.json"
    for place in (0, 2):
        edit_json(path, lambda c, place=place: c["annotations"][place]["segmentation"].update(counts="0"))
    samples = data.val_set()
    bad = data.bad_files(samples)
    for index in range(3):
        try:
            samples[index]
        except BadFileError as error:
            bad.skip(error)
    assert bad.paths == [f"{path}#1", f"{path}#3"]
