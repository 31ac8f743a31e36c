"""Words for ImageNet's ids: each once, and in the order of the ids."""

from __future__ import annotations

import pytest
from torchvision.datasets import Imagenette

from visual_transformers.data.imagenet_classes import readable, words


def test_the_ids_are_a_thousand_in_the_order_of_torchvisions_outputs():
    assert len(words()) == 1000
    assert list(words()) == sorted(words())


def test_no_two_classes_have_the_same_words():
    assert len(set(words().values())) == 1000
    alike = [words()[wnid] for wnid in ("n02012849", "n03126707", "n03710637", "n03710721")]
    assert [word.split()[0] for word in alike] == ["crane", "crane", "maillot", "maillot"]


@pytest.mark.parametrize("wnid", Imagenette._WNID_TO_CLASS)
def test_the_words_are_those_of_imagenette(wnid):
    assert words()[wnid] == Imagenette._WNID_TO_CLASS[wnid][0]


def test_names_that_are_no_ids_stay():
    assert readable(["n01440764", "cat", "n99999999", "n03445777"]) == ["tench", "cat", "n99999999", "golf ball"]


def test_ids_stay_where_a_word_is_there_already():
    assert readable(["n01440764", "tench"]) == ["n01440764", "tench"]
