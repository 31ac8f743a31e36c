"""Names of ImageNet's classes by WordNet id."""

from __future__ import annotations

import pytest
from torchvision.datasets import Imagenette

from visual_transformers.data.imagenet_classes import load_class_names, replace_wordnet_ids


def test_the_ids_are_a_thousand_in_the_order_of_torchvisions_outputs():
    assert len(load_class_names()) == 1000
    assert list(load_class_names()) == sorted(load_class_names())


def test_no_two_classes_have_the_same_name():
    assert len(set(load_class_names().values())) == 1000
    alike = [load_class_names()[wnid] for wnid in ("n02012849", "n03126707", "n03710637", "n03710721")]
    assert [word.split()[0] for word in alike] == ["crane", "crane", "maillot", "maillot"]


@pytest.mark.parametrize("wnid", Imagenette._WNID_TO_CLASS)
def test_the_names_are_those_of_imagenette(wnid):
    assert load_class_names()[wnid] == Imagenette._WNID_TO_CLASS[wnid][0]


def test_names_that_are_not_ids_are_kept():
    assert replace_wordnet_ids(["n01440764", "cat", "n99999999", "n03445777"]) == [
        "tench",
        "cat",
        "n99999999",
        "golf ball",
    ]


def test_ids_are_kept_if_a_name_exists_already():
    assert replace_wordnet_ids(["n01440764", "tench"]) == ["n01440764", "tench"]
