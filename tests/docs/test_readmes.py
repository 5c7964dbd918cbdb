"""What the pages for operators say, held against each other and against the program.

The two READMEs say the same: headings, code blocks, tables, links and figures are in step. Their
prose may differ for a while: a warning says where (translation.py). What any page
names is there: flags, variables, defaults, files, sections, and the words of the log. Commands are
such as the program takes.
"""

import ast
import re
import shlex
import warnings
from collections import Counter
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from unittest.mock import ANY
from urllib.parse import unquote

import attrs
import pytest

from derp.cli import accounts, clients, command_flags, derpmap, keys, steer, top
from derp.cli.command_flags import OF
from derp.config import Config, environment, flag_table, goflags
from derp.config.goflags import Flag
from derp.errors import ConnectionEnd
from derp.wire.control import STEERING
from tests.docs import translation

ROOT = Path(__file__).parents[2]
ENGLISH, CHINESE = "README.md", "README.zh-CN.md"
READMES = (ENGLISH, CHINESE)
PAGES = (*READMES, *(f"docs/{page.name}" for page in sorted(ROOT.glob("docs/*.md"))))
NO_LIMIT = {ENGLISH: "no limit", CHINESE: "\u4e0d\u9650"}

TABLE = flag_table({"HOME": "~"}, root=True)
VARIABLES = {
    *(flag.variable for flag in TABLE if flag.variable),
    environment.DEBUG_LOGS,
    *environment._WITHOUT_EFFECT,
}


@attrs.define
class Section:
    """A heading and what stands under it, up to the next."""

    level: int
    heading: str
    code: list[tuple[str, str]] = attrs.field(factory=list)
    """Language and content of each block."""
    text: str = ""
    """All that is no code block."""

    @property
    def spans(self) -> list[str]:
        return spans(self.text)

    @property
    def links(self) -> list[str]:
        return re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`]*`", "", self.text))

    @property
    def rows(self) -> list[list[str]]:
        """The cells of all tables."""
        lines = [line for line in self.text.splitlines() if line.startswith("|")]
        return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def spans(text: str) -> list[str]:
    """The code within a text, each on one line."""
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", text)]


@cache
def sections(page: str) -> list[Section]:
    found: list[Section] = []
    lines = iter((ROOT / page).read_text(encoding="utf-8").splitlines())
    for line in lines:
        if line.startswith("```"):
            body = "".join(f"{line}\n" for line in iter(lines.__next__, "```"))
            found[-1].code.append((line.removeprefix("```"), body))
        elif heading := re.fullmatch(r"(#+) (.+)", line):
            found.append(Section(len(heading[1]), heading[2]))
        elif not translation.MARK.match(f"{line}\n"):
            found[-1].text += f"{line}\n"
    return found


def anchors(page: str) -> list[str]:
    """What GitHub makes of the headings."""
    words = [re.sub(r"[^\w\- ]", "", section.heading.lower()) for section in sections(page)]
    return [word.replace(" ", "-") for word in words]


def whole(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def test_what_is_read_of_a_page_is_not_nothing() -> None:
    table = next(s for s in sections(ENGLISH) if any("-hostname" in cell for cell in s.spans))
    assert len(table.rows) > 30
    assert sum(len(section.code) for section in sections(ENGLISH)) > 8
    assert sum(len(section.links) for section in sections(ENGLISH)) > 15
    assert sum(len(block) for block in command_blocks(ENGLISH)) > 20


# The two READMEs.

PAIRS = list(zip(sections(ENGLISH), sections(CHINESE), strict=False))


def test_both_have_the_same_headings() -> None:
    english, chinese = ([s.level for s in sections(page)] for page in READMES)
    assert english == chinese


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair[0].heading)
class TestSection:
    def test_code_is_the_same(self, pair: tuple[Section, Section]) -> None:
        assert pair[0].code == pair[1].code

    def test_tables_have_the_same_code_in_the_same_cells(
        self, pair: tuple[Section, Section]
    ) -> None:
        english, chinese = pair[0].rows, pair[1].rows
        assert [[spans(cell) for cell in row] for row in english] == [
            [spans(cell) for cell in row] for row in chinese
        ]
        assert [[cell == "" for cell in row] for row in english] == [
            [cell == "" for cell in row] for row in chinese
        ]

    def test_links_lead_to_the_same(self, pair: tuple[Section, Section]) -> None:
        english, chinese = (
            Counter(place_of(page, link) for link in section.links)
            for page, section in zip(READMES, pair, strict=True)
        )
        assert english == chinese

    def test_figures_are_the_same(self, pair: tuple[Section, Section]) -> None:
        english, chinese = (
            set(re.findall(r"\d[\d.]*\d|\d", re.sub(r"`[^`]*`|\([^)\s]*\)", "", section.text)))
            for section in pair
        )
        assert english == chinese


@pytest.mark.filterwarnings("default")
def test_a_translation_that_is_behind_is_told() -> None:
    if stale := translation.stale():
        renew = "look at README.zh-CN.md, then run `python -m tests.docs.translation`"
        warnings.warn(f"README.md was reworded ({', '.join(stale)}): {renew}", stacklevel=1)


def test_words_make_a_translation_old_and_line_breaks_and_code_do_not() -> None:
    page = "# A\n\nOne two.\n\n```sh\n# B\n```\n\n## C\n\nThree.\n"
    now = translation.digests(page)
    assert list(now) == ["A", "C"]
    assert translation.digests(page.replace("One ", "One\n").replace("# B", "# D")) == now
    assert translation.digests(page.replace("Three", "Four")) == now | {"C": ANY}
    assert translation.digests(page.replace("Three", "Four"))["C"] != now["C"]


def place_of(page: str, link: str) -> str:
    """A link, in which a section of the page itself is told by its number."""
    return f"#{anchors(page).index(unquote(link[1:]))}" if link.startswith("#") else link


# Flags and variables.


def rows_of_flags(page: str) -> list[list[str]]:
    return [
        row
        for section in sections(page)
        for row in section.rows
        if len(row) == 4 and re.fullmatch(r"`-[a-z-]+`", row[1])
    ]


@pytest.mark.parametrize("page", READMES)
def test_each_flag_is_in_the_table_with_its_variable_and_default(page: str) -> None:
    told = {
        name.strip("`"): (variable, default) for variable, name, default, _ in rows_of_flags(page)
    }
    assert told == {
        f"-{flag.name}": (code(flag.variable), shown_default(page, flag))
        for flag in TABLE
        if not flag.unsupported
    }
    assert len(rows_of_flags(page)) == len(told)


def shown_default(page: str, flag: Flag) -> str:
    if flag.default_words == NO_LIMIT[ENGLISH]:
        return NO_LIMIT[page]
    return code(flag.default_words or flag.default)


def code(text: str) -> str:
    return f"`{text}`" if text else ""


@pytest.mark.parametrize("page", READMES)
def test_each_refused_flag_is_named(page: str) -> None:
    named = {span for section in sections(page) for span in section.spans}
    assert {f"-{flag.name}" for flag in TABLE if flag.unsupported} <= named


@pytest.mark.parametrize("page", PAGES)
def test_no_variable_is_named_that_there_is_not(page: str) -> None:
    assert set(re.findall(r"\bDERP_[A-Z_]+", whole(page))) <= VARIABLES


@pytest.mark.parametrize("page", PAGES)
def test_no_flag_is_named_that_there_is_not(page: str) -> None:
    text = "\n".join(span for section in sections(page) for span in section.spans)
    named = set(re.findall(r"^-([a-z][a-z-]+)", text, re.MULTILINE))
    assert named <= {flag.name for flag in (*TABLE, OF)}


def test_the_image_has_what_is_said_of_it() -> None:
    assert image_environment()["DERP_CERT_DIR"] == "/app/certs"
    assert " key=$certs/derper+key\n" in whole("deploy/entrypoint")
    asked = set(re.findall(r"--build-arg (\w+)=", whole(ENGLISH)))
    assert asked == {"BASE", "PIP_INDEX_URL"}
    assert asked <= set(re.findall(r"^ARG (\w+)", whole("Containerfile"), re.MULTILINE))
    base = re.search(r"^ARG BASE=docker\.io/(\S+)$", whole("Containerfile"), re.MULTILINE)
    assert base
    assert f"/{base[1]}`" in whole(ENGLISH)


def image_environment() -> dict[str, str]:
    return dict(re.findall(r'\b(DERP_[A-Z_]+)="?([^"\s\\]*)', whole("Containerfile")))


# Commands.


def command_blocks(page: str) -> Iterator[list[list[str]]]:
    """The words of each command in each block of a page."""
    for section in sections(page):
        for language, body in section.code:
            if language == "console":
                lines = body.replace("\\\n", " ").splitlines()
                assert all(line[:2] in {"$ ", "# "} for line in lines), f"{page}: no prompt"
                yield [shlex.split(line[2:]) for line in lines]


def relays_told(page: str) -> Iterator[tuple[dict[str, str], list[str]]]:
    """The variables and the arguments that the commands of a page give to derper."""
    for block in command_blocks(page):
        exported: dict[str, str] = {}
        for words in block:
            if words[0] == "export":
                name, _, value = words[1].partition("=")
                exported[name] = value
            elif Path(words[0]).name == "derper":
                yield exported, words[1:]
            elif words[0] in {"docker", "podman"} and words[1] == "exec":
                assert words[2] == "derper"
                assert words[3] in {"derper", "sh", "cat"}
                if words[3] == "derper":
                    yield {"DERP_DOMAIN": "derp.example.com"}, words[4:]
            elif words[0] in {"docker", "podman"} and words[1] == "run":
                given = [value for option, value in pairwise(words) if option == "-e"]
                image = len(words) - words[::-1].index("derper")
                yield dict(pair.split("=", 1) for pair in given), words[image:]


def test_every_way_to_start_the_relay_is_looked_at() -> None:
    told = [(environ, argv) for page in PAGES for environ, argv in relays_told(page)]
    assert len(told) > 20
    assert sum(bool(environ) for environ, _ in told) > 4
    assert sum(argv[:1] == ["derpmap"] for _, argv in told) > 0
    assert sum(argv[:1] == ["healthcheck"] for _, argv in told) > 0


PUBLIC = {"203.0.113.7": "8.8.8.8", "2001:db8::7": "2001:4860:4860::8888"}
"""Addresses for examples are not public; these stand in for them."""


COMMANDS = {
    "derpmap": derpmap._OWN,
    "healthcheck": (),
    "accounts": accounts._OWN,
    "clients": clients._OWN,
    "keys": keys._OWN,
    "top": top._OWN,
}


@pytest.mark.parametrize("page", PAGES)
def test_the_program_takes_what_commands_give_it(page: str) -> None:
    for environ, argv in relays_told(page):
        if argv[:1] and argv[0] in STEERING:
            found = command_flags.parse(argv[1:], environ, (), words=True)
            assert found is not None
            steer._request(argv[0], found.words)
            continue
        given = [re.sub("|".join(PUBLIC), lambda match: PUBLIC[match[0]], word) for word in argv]
        table = flag_table({"HOME": "/root"}, root=True)
        command = given.pop(0) if given and given[0] in COMMANDS else ""
        if command:
            table += [*COMMANDS[command], OF]
        parsed = goflags.parse(table, given, environ)
        assert not parsed.help
        if command in {"", "derpmap", "healthcheck"}:
            Config.from_settings(parsed.settings)


# Files, sections and words.


@pytest.mark.parametrize("page", [*PAGES, "CHANGELOG.md"])
def test_links_lead_somewhere(page: str) -> None:
    for section in sections(page):
        for link in section.links:
            if re.match(r"[a-z]+:", link):
                continue
            path, _, anchor = link.partition("#")
            there = (ROOT / page).parent / path if path else ROOT / page
            assert there.exists(), f"{page}: {link}"
            if anchor:
                assert unquote(anchor) in anchors(str(there.relative_to(ROOT))), f"{page}: {link}"


@pytest.mark.parametrize("page", PAGES)
def test_files_of_ours_that_are_named_are_there(page: str) -> None:
    named = set(re.findall(r"\b(?:deploy|docs|tests)/[\w./-]*\w", whole(page)))
    assert all((ROOT / name).exists() for name in named), named


def test_the_benchmark_has_its_place() -> None:
    assert whole("docs/speed.md").count("<!-- bench -->") == 1
    assert all("<!-- bench -->" not in whole(page) for page in READMES)


OURS = (
    "can't mesh",
    "that is a placeholder",
    "can't listen on TCP ",
    "ports below 1024 take root",
    "the port is in use by another program",
    ": no such file",
    "others can use it (mode ",
    "every user can change this private key",
    "runs as root: without the capabilities",
    "no certificate yet",
    "rateLimited",
    "the client asked for another server name, or for none",
    " is refused by ",
    "can't verify clients, so they are refused",
    "can't list devices",
    "refuses the upgrade to DERP",
    "room for clients gets scarce",
    "no room for more clients",
    "serving on",
    "with TLS",
)
"""What the table of troubles quotes of the program's own words."""

NOT_OURS = (
    "rootlessport cannot expose privileged port",
    "could not connect to the 'Frankfurt' relay server",
    "not connected to home DERP region 900",
    "first record does not look like a TLS handshake",
    "tls: internal error",
    "tls: unrecognized name",
    "certificate signed by unknown authority",
    "cert hash does not match expected cert hash",
    "unexpected multiple certs presented",
    "connection reset by peer",
    "IPv4: yes, 172.17.0.1:\u2026",
    "426",
)
"""What it quotes of podman, of Tailscale's clients, and of HTTP."""


@cache
def words_of_the_program() -> str:
    """All strings in the sources but docstrings, and the entry point of the container."""
    found = [whole("deploy/entrypoint")]
    for package in ("derp", "stun", "certs"):
        for source in sorted((ROOT / package).rglob("*.py")):
            tree = ast.parse(source.read_text(encoding="utf-8"))
            docstrings = {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}
            found += [
                node.value
                for node in ast.walk(tree)
                if isinstance(node, ast.Constant)
                and isinstance(node.value, str)
                and node not in docstrings
            ]
    return "\n".join(found)


@pytest.mark.slow
@pytest.mark.parametrize("words", OURS)
def test_the_program_says_what_is_quoted(words: str) -> None:
    assert words in words_of_the_program()
    assert words in whole(ENGLISH)


REASONS = {end.reason for end in ConnectionEnd.__subclasses__()}


@pytest.mark.parametrize("page", READMES)
def test_reasons_are_those_of_the_log(page: str) -> None:
    named = set(re.findall(r"\b[a-z]+_(?:failed|refused|admitted|vanished|timeout)\b", whole(page)))
    assert len(named) > 3
    assert named <= REASONS


def test_each_trouble_is_known_by_somebodys_words() -> None:
    rows = [row for section in sections(ENGLISH) for row in section.rows if len(row) == 3]
    assert len(rows) > 20
    quoted = [span for row in rows for span in spans(row[0])]
    assert len(quoted) > 25
    known = (*OURS, *NOT_OURS, *REASONS)
    strange = [span for span in quoted if not any(words in span for words in known)]
    assert strange == []


@pytest.mark.slow
def test_the_warning_about_hidden_sources_is_quoted_as_it_is() -> None:
    text = " ".join(whole(ENGLISH).split())
    quoted = re.search(r"`(STUN requests of .*?)172\.17\.0\.1, \u2026`", text)
    assert quoted
    assert f"{quoted[1]}%s, %s" in words_of_the_program()
    assert "README: behind NAT" in words_of_the_program()
    assert "behind-nat" in anchors(ENGLISH)
