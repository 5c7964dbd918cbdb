import html
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from derp.http import pages

VOID = {"meta"}


class Balance(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self.links += [value or "" for name, value in attrs if name == "href"]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def links(page: bytes) -> list[str]:
    parser = Balance()
    parser.feed(page.decode())
    parser.close()
    assert parser.open == []
    return parser.links


@pytest.mark.parametrize("derp", [True, False])
@pytest.mark.parametrize("debug", [True, False])
def test_home(derp: bool, debug: bool) -> None:
    page = pages.home(derp=derp, debug=debug)
    assert ("/debug/" in links(page)) == debug
    assert (b"disabled" in page) == (not derp)


def test_home_says_what_guides_tell_people_to_look_for() -> None:
    page = pages.home(derp=True, debug=False).decode()
    assert "<h1>DERP</h1>" in page
    # With the link as it is, and without.
    assert 'This is a <a href="https://tailscale.com/">Tailscale</a> DERP server.' in page
    assert "This is a Tailscale DERP server." in re.sub("<[^>]*>", "", page)


def test_redirect_escapes() -> None:
    page = pages.redirect_body("/a\"><script>'&")
    assert links(page) == ["/a\"><script>'&"]
    assert b"<script>" not in page


@given(st.text(st.sampled_from("<>&\"'a;#\u00e9\U0001f600")))
def test_text_is_escaped_as_by_python(text: str) -> None:
    assert pages.escape(text) == html.escape(text)
