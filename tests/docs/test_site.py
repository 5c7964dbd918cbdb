"""The site has every page, in both languages, and fetches nothing from elsewhere."""

import re
from pathlib import Path

from release import site, sitehooks

CONFIG = (site.ROOT / "mkdocs.yml").read_text("utf-8")


def test_every_page_is_in_the_navigation() -> None:
    _, _, navigation = CONFIG.partition("\nnav:\n")
    listed = re.findall(r"(\S+\.md)$", navigation, re.MULTILINE)
    there = [str(path.relative_to(site.ROOT)) for path in site.markdown()]
    assert sorted(listed) == sorted(there)


def test_no_font_is_fetched_and_links_are_strict() -> None:
    assert "\n  font: false\n" in CONFIG
    assert "links: {not_found: warn, anchors: warn" in CONFIG


def test_what_is_linked_is_laid_out(tmp_path: Path) -> None:
    root, pages = tmp_path / "repo", tmp_path / "pages"
    (root / "docs").mkdir(parents=True)
    (root / "deploy").mkdir()
    (root / "deploy/a.conf").write_text("a")
    (root / "LICENSE").write_text("free")
    (root / "README.md").write_text("[more](docs/b.md#x) [all](deploy/) [one](LICENSE) `[c](d)`\n")
    (root / "docs/b.md").write_text(
        "[back](../README.md) [all](../deploy) [out](https://a.test/)\n"
    )
    site.lay_out(root, pages)
    assert "[all](deploy/index.md)" in (pages / "README.md").read_text()
    assert "[all](../deploy/index.md)" in (pages / "docs/b.md").read_text()
    assert "- [a.conf](a.conf)" in (pages / "deploy/index.md").read_text()
    assert (pages / "deploy/a.conf").read_text() == "a"
    assert (pages / "LICENSE").read_text() == "free"
    assert (pages / "site.css").exists()


def test_what_a_browser_would_fetch_elsewhere_is_found(tmp_path: Path) -> None:
    page = '<a href="https://a.test/"><script src="b.js"></script><link rel="x" href="//c.test/d">'
    (tmp_path / "index.html").write_text(page)
    assert site.foreign(tmp_path) == ["//c.test/d"]


def test_long_names_in_tables_break_between_words() -> None:
    page = "<p><code>A_B</code></p><td><code>DERP_KEY_FILE</code> or <code>-c</code> /x/y</td>"
    assert sitehooks.on_page_content(page) == (
        "<p><code>A_B</code></p>"
        "<td><code>DERP_<wbr>KEY_<wbr>FILE</code> or <code>-c</code> /x/y</td>"
    )


def test_a_translation_says_its_language() -> None:
    page = '<html lang="en" class="no-js">'
    assert sitehooks.in_language(page, "README.zh-CN.md") == '<html lang="zh-CN" class="no-js">'
    assert sitehooks.in_language(page, "docs/speed.md") == page
