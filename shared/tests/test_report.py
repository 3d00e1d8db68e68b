import base64
import dataclasses
import re
from html.parser import HTMLParser

import pytest

from tenfold.shared.report import DemoResult, Report, as_cells, as_text, is_number

DOT = base64.b64decode("R0lGODlhAQABAAAAACwAAAAAAQABAAACAkQBADs=")
EVIL = '<script>alert("x")</script>'


@dataclasses.dataclass(frozen=True)
class Config:
    dataset: str = EVIL
    hops: int | None = None
    rate: float = 1e-3


class Outline(HTMLParser):
    """Notes the tags and what they load, and that they are closed in order."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.loaded, self.open = [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.loaded += [value for name, value in attrs if name == "src"]
        if tag not in ("meta", "img", "br", "hr"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_a_page_is_whole_and_loads_nothing(tmp_path):
    picture = tmp_path / "dot.gif"
    picture.write_bytes(DOT)
    report = Report(f"Title {EVIL}", "Subtitle")
    report.text(f"Some **bold** text.\n\n{EVIL}\n\n![x](http://example.org/x.png)")
    report.table([{"metric": EVIL, "paper": 73.88, "here": None}], caption="Cora")
    report.picture(picture, "first", EVIL)
    report.picture(picture, "second")
    report.config(Config())
    path = report.write(tmp_path / "out" / "report.html")
    page = path.read_text(encoding="utf-8")
    outline = Outline(page)
    assert outline.open == []
    assert "script" not in outline.tags
    assert outline.tags.count("img") == 2
    data = f"data:image/gif;base64,{base64.b64encode(DOT).decode()}"
    assert outline.loaded == [data, data]
    assert "<strong>bold</strong>" in page
    assert "73.88" in page
    assert "hops" not in page  # None says nothing
    assert (tmp_path / "out" / "first.gif").read_bytes() == DOT
    assert sorted(item.name for item in path.parent.iterdir()) == [
        "first.gif",
        "report.html",
        "second.gif",
    ]


def test_a_figure_is_saved_as_png(tmp_path):
    class Figure:
        def savefig(self, target, format, **_):
            target.write(f"a {format}".encode())

    report = Report("Title")
    report.picture(Figure(), "map", "a map")
    report.write(tmp_path / "report.html")
    assert (tmp_path / "map.png").read_bytes() == b"a png"


def test_cells():
    @dataclasses.dataclass
    class Row:
        a: bool

    assert as_cells([]) == ([], [])
    assert as_cells([{"a": 1, "b": None}, {"b": 2.5}]) == (["a", "b"], [["1", ""], ["", "2.5"]])
    assert as_cells([Row(True)]) == (["a"], [["yes"]])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        (True, "yes"),
        (73.884, "73.88"),
        (0.001234, "0.001234"),
        (169343, "169,343"),
        (12345.6, "12,346"),
        (float("nan"), "nan"),
        ([1, 2.0], "1, 2"),
        ("x", "x"),
    ],
)
def test_values_as_text(value, text):
    assert as_text(value) == text


def test_numbers_are_known():
    assert all(map(is_number, ["1", "-1.5", "73.88 ± 1.2", "1e-05", "169,343", "+0.3", "12 %"]))
    assert not any(map(is_number, ["", "cora", "1 of 2", "-", "v1"]))


def test_a_demo_row_shows_the_papers_value_only_where_comparable():
    result = DemoResult(
        paper="P", task="t", data="d", metric="ACC", value=1.0, seconds=2.04, paper_value=3.0
    )
    assert result.row()["paper's value"] is None
    assert dataclasses.replace(result, comparable=True).row()["paper's value"] == 3.0
    assert result.row()["seconds"] == 2.0


def test_the_page_is_for_phones_paper_and_the_dark(tmp_path):
    page = Report("Title").write(tmp_path / "x.html").read_text()
    assert 'name="viewport"' in page
    assert re.search(r"@media print", page)
    assert "prefers-color-scheme: dark" in page
