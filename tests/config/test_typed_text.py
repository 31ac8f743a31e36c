"""What was typed is what the run gets: names of any letters, numbers that are names, Hydra's own syntax as it was."""

from __future__ import annotations

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given, settings
from hypothesis import strategies as st

from visual_transformers.config.typed_text import as_hydra_reads, bare, elements_as_typed, in_quotes, split_at_commas
from visual_transformers.config.validation import validate
from visual_transformers.errors import ConfigError

PARSER = OverridesParser.create()
TEXT = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), min_size=1)


def read(override: str) -> object:
    """What Hydra makes of an override's value."""
    found = PARSER.parse_override(override)
    value = found.value()
    return getattr(value, "text", value)


@settings(deadline=None)
@given(TEXT)
def test_a_quoted_text_is_read_as_it_is(text):
    assert read(f"key={in_quotes(text)}") == text
    assert bare(in_quotes(text)) == text


@pytest.mark.parametrize(
    ("key", "typed"),
    [
        ("data.root", "café"),
        ("name", "实验一"),
        ("data.train", "images (train)"),
        ("data.val", "val=1"),
        ("data.root", "~/photos"),
        ("data.root", "base~1"),
        ("name", "2024_01_05"),
        ("name", "1e2"),
        ("name", "007"),
        ("name", "true"),
        ("name", "a$b"),
        ("name", "$HOME"),
        ("data.root", "it's"),
        ("data.root", 'a "b"'),
        ("data.root", "C:\\data"),
        ("data.root", "a#b;c&d!e^f"),
        ("data.root", "new\nline"),
        ("input", "shots/img[0-9].png"),
        ("data.exclude", "{a}.txt"),
        ("weights.file", "run (2)/best.safetensors"),
        ("sweep.name", "3_0"),
        ("data.root", "trailing\\"),
    ],
)
def test_a_text_that_hydra_would_not_read_reaches_the_configuration(key, typed):
    assert read(as_hydra_reads(f"{key}={typed}", sweeps=False)) == typed


@pytest.mark.parametrize(
    "override",
    [
        "seed=0,1", "seed=choice(0,1)", "optimizer.lr=1e-3", "data.classes=[cat,dog]",
        "parameters.lr_factors={backbone:0.1}",
        "name='quoted, text'", 'name="a b"', "name=x-${seed}", "~model.dropout", "+model.dropout=0.1", "logger=[files]",
        "weights.file=null", "training.epochs=range(1,3)", "--cfg", "-m", "name=plain/path_1.2-3",
    ],
)  # fmt: skip
def test_hydra_s_own_syntax_keeps_its_meaning(override):
    assert as_hydra_reads(override, sweeps=False) == override
    assert as_hydra_reads(override, sweeps=True) == override


@pytest.mark.parametrize(
    ("typed", "jobs"),
    [
        ("base,b (1)", ["base", "b (1)"]),
        ("base,'b (1)'", ["base", "b (1)"]),
        ("it's,b", ["it's", "b"]),
        ("a (1),b (2),c", ["a (1)", "b (2)", "c"]),
        ("café,naïve", ["café", "naïve"]),
        ("'x,y',z é", ["x,y", "z é"]),
        ("1e2,001", ["1e2", "001"]),
    ],
)
def test_of_a_sweep_only_what_needs_them_gets_quotes(typed, jobs):
    found = PARSER.parse_override(as_hydra_reads(f"data.root={typed}", sweeps=True))
    assert found.is_sweep_override()
    assert [getattr(value, "text", value) for value in found.value().list] == jobs


@pytest.mark.parametrize("typed", ["resnet18.yaml", "resnet18.yml"])
def test_the_ending_of_an_option_s_file_is_taken_off(typed):
    assert as_hydra_reads(f"model={typed}", sweeps=False) == "model=resnet18"
    assert as_hydra_reads(f"model={typed},vt_{typed}", sweeps=True) == "model=resnet18,vt_resnet18"
    assert as_hydra_reads("logger=[files.yaml,console]", sweeps=False) == "logger=[files,console]"


@pytest.mark.parametrize(
    ("value", "parts"),
    [
        ("a,b", ["a", "b"]),
        ("f(a,b),[c,d]", ["f(a,b)", "[c,d]"]),
        ("'a,b',c", ["'a,b'", "c"]),
        ("a\\,b,c", ["a\\,b", "c"]),
    ],
)
def test_commas_in_quotes_and_brackets_part_nothing(value, parts):
    assert split_at_commas(value) == parts


# In the groups, where the key's type decides

FOLDERS = ("data=image_folder", "data.root=x")


def of_data(composed, *typed: str) -> dict:
    overrides = [as_hydra_reads(each, sweeps=False) for each in (*FOLDERS, *typed)]
    return validate(composed(*overrides), {}, overrides).data


@pytest.mark.parametrize("typed", ["2024_01_05", "1e2", "007", "true", "null_", "1.0", "-5", "0x10", "[ab]", "nan"])
def test_a_text_key_of_a_group_takes_what_was_typed(composed, typed):
    assert of_data(composed, f"data.train={typed}")["train"] == typed
    assert of_data(composed, f"data.val={typed}")["val"] == typed


def test_null_leaves_an_optional_text_out(composed):
    assert of_data(composed, "data.val=null")["val"] is None


@pytest.mark.parametrize(
    ("typed", "names"),
    [
        ("[001,1e2,1_1]", ["001", "1e2", "1_1"]),
        ("[cat,'7']", ["cat", "7"]),
        ("[a b,c]", ["a b", "c"]),
        ("[true,2]", ["true", "2"]),
    ],
)
def test_a_list_of_names_has_them_as_they_were_typed(composed, typed, names):
    assert of_data(composed, f"data.classes={typed}")["classes"] == names


def test_a_number_of_classes_stays_a_number(composed):
    assert of_data(composed, "data.classes=12")["classes"] == 12


@pytest.mark.parametrize(("typed", "value"), [("1e-3", 1e-3), ("1_0", 10.0), ("3", 3.0)])
def test_numbers_stay_numbers(composed, typed, value):
    overrides = [as_hydra_reads(f"optimizer.lr={typed}", sweeps=False)]
    assert validate(composed(*overrides), {}, overrides).optimizer["lr"] == value


def test_what_is_no_number_is_said_as_it_was_typed(composed):
    overrides = [as_hydra_reads("training.epochs=[1,2", sweeps=False)]
    with pytest.raises(ConfigError, match=r"^training\.epochs=\[1,2: expected int"):
        validate(composed(*overrides), {}, overrides)


def test_elements_of_another_list_are_not_mistaken_for_those_that_were_typed():
    assert elements_as_typed([1, 2], "[001]") == ["1", "2"]
    assert elements_as_typed(["a", 1], None) == ["a", "1"]


def test_a_variable_that_is_not_set_is_said_with_its_key(composed):
    with pytest.raises(ConfigError, match=r"^data\.root: .*VT_NOT_SET"):
        validate(composed("data=image_folder", "data.root=${oc.env:VT_NOT_SET}"))


def test_a_seed_that_no_generator_takes_is_refused(composed):
    with pytest.raises(ConfigError, match=r"seed=18446744073709551616: must be at least 0 and at most"):
        validate(composed("seed=18446744073709551616"))
