"""Page of a report: it needs no other file, and escapes all texts."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser

import pytest
from PIL import Image

from visual_transformers.modes import report
from visual_transformers.modes.report.contents import Picture, Section

ODD = "<b>a & \"b\" 'c' </td><script>alert(1)</script>"


class Parsed(HTMLParser):
    """Tags of a page with their attributes, and texts of its cells."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.cells: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "td":
            self.cells.append("")

    def handle_data(self, data):
        if self.tags and self.tags[-1][0] == "td":
            self.cells[-1] += data.rstrip("\n")


@pytest.fixture
def written(tmp_path):
    Image.new("RGB", (7, 5)).save(tmp_path / "curves-0.png")
    picture = Picture("curves-0.png", ODD)
    sections = [Section(ODD, [ODD], [{ODD: ODD, "n": "1"}]), Section("Pictures", [], [{"a": "b"}], [picture])]
    report.write_page(tmp_path, ODD, sections)
    return (tmp_path / "report.html").read_text()


def test_odd_names_are_shown_as_they_are(written):
    parsed = Parsed(written)
    assert parsed.cells == [ODD, "1", "b"]
    assert [tag for tag, _ in parsed.tags].count("script") == 1
    assert [attributes["alt"] for tag, attributes in parsed.tags if tag == "img"] == [ODD]


def test_nothing_is_loaded_from_anywhere(written):
    addresses = [value for _, attributes in Parsed(written).tags for name, value in attributes.items()
                 if name in ("src", "href")]  # fmt: skip
    assert addresses
    assert all(address.startswith(("data:", "#")) for address in addresses)
    assert not re.search(r"https?:|url\(|@import", written)


def test_a_picture_is_in_the_page_byte_for_byte(written, tmp_path):
    (source,) = [attributes["src"] for tag, attributes in Parsed(written).tags if tag == "img"]
    assert base64.b64decode(source.removeprefix("data:image/png;base64,")) == (tmp_path / "curves-0.png").read_bytes()
