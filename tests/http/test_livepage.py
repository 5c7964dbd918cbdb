"""The page at /debug/: for tools the lines that they look for, for browsers what our CSP allows."""

import html
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given

from derp.http import livepage
from derp.http.assets import ASSETS, PAGE
from derp.http.livepage import PageOptions, pieces
from derp.http.liveview import COLUMNS, SECTIONS, SORTS, StatusRow, View
from tests.http.lively import any_view, client, view

VOID = {"meta", "link", "input", "polygon", "polyline"}
OPTIONS = PageOptions(hostname="derp.example", sort="total")


class Parsed(HTMLParser):
    """The elements of a page; fails unless they are balanced."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append((self.open[-1] if self.open else "", data))

    def cells(self) -> list[str]:
        """The texts in the rows of the table, of the template too."""
        return [text for tag, text in self.texts if tag in {"span", "small"}]


def page(shown: View | None = None, options: PageOptions = OPTIONS) -> str:
    return "".join(pieces(shown or view(), options))


def test_tools_find_the_lines_of_the_status() -> None:
    rows = [StatusRow("Version", "0.1"), StatusRow("Mesh link to b", "none: <down>", "Mesh")]
    shown = page(view(status=rows))
    assert "<li><b>Version:</b> 0.1</li>\n" in shown
    assert "<li><b>Mesh link to b:</b> none: &lt;down&gt;</li>\n" in shown


def test_tools_find_the_other_pages() -> None:
    for name in ("vars", "varz", "check", "traffic"):
        assert f'<li><a href="/debug/{name}">/debug/{name}</a> (' in page()


def test_sections_without_a_line_are_hidden() -> None:
    shown = Parsed(page(view(status=[StatusRow("a", "b", "Mesh")])))
    hidden = {
        attrs["data-name"]: "hidden" in attrs
        for tag, attrs in shown.elements
        if tag == "section" and "data-name" in attrs
    }
    assert hidden == {name: name != "Mesh" for name in SECTIONS}


def test_a_row_has_a_cell_for_each_column() -> None:
    shown = Parsed(page(view([client("ada")])))
    rows = [attrs for tag, attrs in shown.elements if tag == "tr" and "data-id" in attrs]
    assert [row["data-id"] for row in rows] == ["id of ada", ""]
    cells = [attrs for tag, attrs in shown.elements if tag == "td"]
    titles = [*(column.title for column in COLUMNS), None]
    assert [cell.get("data-title") for cell in cells] == titles * 2


def test_each_text_and_line_has_its_element() -> None:
    """Those that the events change."""
    shown = view()
    found = {attrs["id"] for _, attrs in Parsed(page(shown)).elements if "id" in attrs}
    assert shown.texts.keys() | shown.points.keys() <= found


def test_pieces_are_small() -> None:
    many = [client(str(number)) for number in range(livepage.ROWS_PER_PIECE * 2 + 1)]
    made = list(pieces(view(many), OPTIONS))
    assert max(piece.count("data-id=") for piece in made) <= livepage.ROWS_PER_PIECE
    assert "".join(made).count("data-id=") == len(many) + 1


@given(any_view())
def test_nothing_in_a_text_is_taken_for_html(shown: View) -> None:
    parsed = Parsed(page(shown))
    allowed = {tag for tag, _ in Parsed(page(view([client("a")]))).elements}
    assert {tag for tag, _ in parsed.elements} <= allowed
    texts = "".join(text for _, text in parsed.texts)
    for rows in shown.status.values():
        for name, value in rows:
            for text in (name, value):
                assert re.sub(r"\s+|\0", "", text) in re.sub(r"\s+|\ufffd|\0", "", texts)


def test_hostname_and_query_are_escaped() -> None:
    options = PageOptions(hostname='"><b>', sort="name", query="debugkey=%22&x=<")
    shown = page(options=options)
    assert '"><b>' not in shown.replace('debugkey=%22&amp;x=&lt;"><', "")
    assert 'href="/debug/live.css?debugkey=%22&amp;x=&lt;"' in shown
    assert 'src="/debug/live.js?debugkey=%22&amp;x=&lt;"' in shown
    assert 'href="/debug/?sort=now&amp;debugkey=%22&amp;x=&lt;"' in shown
    assert 'href="/debug/varz?debugkey=%22&amp;x=&lt;"' in shown


def test_the_order_is_shown() -> None:
    for sort in SORTS:
        links = [
            (attrs["href"], attrs.get("aria-current"))
            for tag, attrs in Parsed(page(options=PageOptions(hostname="a", sort=sort))).elements
            if tag == "a" and "sort=" in str(attrs["href"])
        ]
        assert links == [
            (f"/debug/?sort={name}", "true" if name == sort else None) for name in SORTS
        ]


@pytest.mark.parametrize(("locked", "buttons"), [("", "yes"), ("no <token>", "no")])
def test_buttons(locked: str, buttons: str) -> None:
    shown = page(options=PageOptions(hostname="a", sort="total", locked=locked))
    assert f'data-buttons="{buttons}"' in shown
    assert f'<p class="locked">{locked.replace("<", "&lt;").replace(">", "&gt;")}</p>' in shown


def test_the_page_asks_for_nothing_elsewhere() -> None:
    parsed = Parsed(page(view([client("a")])))
    for tag, attrs in parsed.elements:
        for name in ("href", "src", "action"):
            assert str(attrs.get(name, "/debug/")).startswith("/debug/"), (tag, attrs)
        # Our CSP would not let them do anything.
        assert not [name for name in attrs if name.startswith("on") or name == "style"]
    assert not [text for tag, text in parsed.texts if tag in {"script", "style"}]
    assert "<script" not in html.unescape(PAGE.template.replace('<script src="/debug/live.js', ""))


@pytest.mark.parametrize("path", ASSETS)
def test_the_files_ask_for_nothing_elsewhere(path: str) -> None:
    text = ASSETS[path].content.decode()
    assert not re.search(r"url\(|@import|//\w", text.replace('"http://www.w3.org/2000/svg"', ""))


def test_the_script_takes_no_text_for_html_or_code() -> None:
    script = ASSETS["/debug/live.js"].content.decode()
    forbidden = (
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|srcdoc"
    )
    assert not re.search(forbidden, script)
