"""docs/configuration.md, the reference of all keys."""

from __future__ import annotations

import pytest
from tests.support import configuration_page as page


def test_the_page_is_current():
    """If this fails, run `make docs`."""
    assert page.PAGE.read_text() == page.render()


@pytest.mark.parametrize(
    ("file", "key", "words"),
    [
        ("config.yaml", "training.epochs", "int, at least 1"),
        ("config.yaml", "training.clip_norm", "float, above 0, or null"),
        ("mode/export.yaml", "export.formats", "list of `safetensors`, `torch_export`, `onnx`"),
        ("data/digits.yaml", "batch_size", "int, at least 1"),
        ("hardware/cpu.yaml", "precision", "`fp32`, `tf32`, `bf16`, `fp16`, `fp64`"),
        ("logger/wandb.yaml", "timeout", "float, above 0"),
    ],
)
def test_a_key_has_the_type_and_range_of_the_signature_that_checks_it(file, key, words):
    path = page.ROOT / "conf" / file
    assert page.describe_type(page.hints_of(path)(key)) == words


def test_every_key_has_a_note_and_a_type():
    bare = []
    for group in page.GROUPS:
        for path in sorted((page.ROOT / "conf" / group).glob("*.yaml")):
            bare += [f"{group}/{path.name}: {row.path}" for row in page.read_rows(path) if not row.note]
    assert not bare
