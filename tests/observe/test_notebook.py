from __future__ import annotations

import html.parser
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeldeploy.observe import notebook

NASTY = "<script>alert('x')</script> \" onmouseover='y' &"


class Outline(html.parser.HTMLParser):
    """Reads HTML into tags, attributes and text, and sees whether it is well nested."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes.extend(attrs)
        self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.text += data


DRAWINGS = {
    "table": lambda text: notebook.table(
        text, [[text, 1, notebook.badge(text, "bad")]], [text, "n", "state"], note=text
    ),
    "definition": lambda text: notebook.definition(text, [(text, text)], note=text),
    "bar": lambda text: notebook.bar(12.5, text=text),
    "evidence": lambda text: notebook.evidence(7.5, 20, text, "bad"),
    "badge": notebook.badge,
    "spaced": lambda text: notebook.spaced(text, notebook.badge(text)),
    "code": notebook.code,
    "line": lambda text: notebook.line(text, notebook.bar(50)),
}


@pytest.mark.parametrize("draw", DRAWINGS.values(), ids=DRAWINGS)
@given(text=st.text(max_size=30) | st.just(NASTY))
def test_whatever_is_drawn_stays_text(draw, text):
    outline = Outline(draw(text))
    assert set(outline.tags) <= {"div", "table", "thead", "tbody", "tr", "th", "td", "span", "code"}
    assert {name for name, _ in outline.attributes} <= {"style"}
    # Parsers drop what no screen shows (lone surrogates, form feeds); what is left must be there.
    assert re.sub(r"[^\w<>&'\"]", "", text) in re.sub(r"[^\w<>&'\"]", "", outline.text)


@pytest.mark.parametrize("draw", DRAWINGS.values(), ids=DRAWINGS)
def test_nothing_is_loaded_from_elsewhere_and_no_colour_suits_one_theme_only(draw):
    drawn = draw("iris")
    assert not re.search(r"http|url\(|@import|<script|<link|<img", drawn)
    assert not re.search(r"#fff|#000|\bwhite;|\bblack|background:\s*#f", drawn)


def test_numbers_stand_right_and_words_left():
    drawn = notebook.table("", [["a", 12_345, 0.5], ["b", None, None]], ["name", "requests", "p95"])
    cells = re.findall(r"<td style='([^']*)'>([^<]*)<", drawn)
    assert [text for _, text in cells] == ["a", "12,345", "0.5", "b", notebook.NOTHING, notebook.NOTHING]
    assert ["text-align:right" in style for style, _ in cells] == [False, True, True, False, True, True]


def test_a_row_of_the_wrong_length_is_refused():
    with pytest.raises(ValueError, match="zip"):
        notebook.table("", [["a", "b"]], ["one"])


def test_an_empty_table_says_so():
    assert "nothing here yet" in notebook.table("revisions", [], ["id"])


@pytest.mark.parametrize(("percent", "width"), [(0, "0%"), (37.5, "37.5%"), (140, "100%"), (-3, "0%")])
def test_a_bar_never_leaves_its_box(percent, width):
    assert f"width:{width};height:100%" in notebook.bar(percent)


def test_a_bar_of_nothing_is_a_dash():
    assert notebook.bar(None) == notebook.NOTHING


@pytest.mark.parametrize(("value", "width"), [(0.001, "0%"), (20**0.5, "50%"), (20, "100%"), (1e9, "100%")])
def test_evidence_fills_its_bar_where_it_decides(value, width):
    drawn = notebook.evidence(value, 20, "x", "bad")
    assert f"width:{width};height:100%" in drawn
    assert ("#d9534f" in drawn) == (width == "100%")


def test_no_evidence_is_a_dash():
    assert notebook.evidence(None, 20, "x", "good") == notebook.NOTHING


def test_flags_and_figures_are_written_for_readers():
    drawn = Outline(
        notebook.definition("", [("warm", True), ("cold", False), ("rate", 0.123456), ("rows", 1_234_567)])
    ).text
    assert drawn == "warmyescoldnorate0.1235rows1,234,567"


def test_drawings_can_be_put_below_each_other():
    both = notebook.join(notebook.badge("a"), notebook.badge("b", "good"))
    assert isinstance(both, notebook.Html)
    assert Outline(both).text == "ab"
