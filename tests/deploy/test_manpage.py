"""The manual page has what the program says of itself."""

import re

import derp
from derp.cli import accounts, derpmap, main
from derp.config import flag_table
from release import manpage

PAGE = manpage.page(1_700_000_000)
TABLE = flag_table({"HOME": "~"}, root=True)


def plain(page: str) -> str:
    """The words of a page, without macros and escapes."""
    text = re.sub(r"\\f[BIR]", "", page).replace("\\-", "-").replace("\\(aq", "'")
    return text.replace("\\&", "").replace("\\e", "\\")


def test_its_first_line_has_the_version_and_the_day() -> None:
    head, *_ = PAGE.splitlines()
    assert (
        head == f'.TH DERPER 8 "2023-11-14" "derper {derp.__version__}" "System Manager\'s Manual"'
    )


def test_each_flag_is_there_with_its_help_variable_and_default() -> None:
    text = plain(PAGE)
    for flag in (*TABLE, *derpmap._OWN, *accounts._OWN):
        if flag.unsupported:
            assert f"-{flag.name}" not in text
            continue
        assert f"\n.TP\n-{flag.name}" in text, flag.name
        assert f"\n{' '.join(flag.usage.split())}\n" in text, flag.name
        if flag.variable:
            assert f"\nVariable: {flag.variable}" in text
        if flag.default not in {"", "false"}:
            assert f"\nDefault: {flag.default_words or flag.default}.\n" in text


def test_each_command_is_there() -> None:
    assert set(manpage.COMMANDS) >= {"derpmap", "healthcheck", "accounts", "clients", "kick"}
    named = re.findall(r"(?m)^ +derper (\w+)", main._INTRODUCTION)
    assert {*named} <= manpage.COMMANDS.keys()
    for command in manpage.COMMANDS:
        assert f"\n.SS derper {command}\n" in PAGE


def test_flags_in_sentences_are_bold_and_nothing_else_is() -> None:
    shown = manpage.prose("With -a, -acme-ip-certs; not well-known, x/-y, -1 or '-c'.")
    bold = re.findall(r"\\fB(.*?)\\fR", shown)
    assert bold == ["\\-a", "\\-acme\\-ip\\-certs", "\\-c"]


def test_no_text_is_taken_for_a_macro_or_an_escape() -> None:
    assert manpage.escaped(".hidden") == "\\&.hidden"
    assert manpage.escaped("'a'") == "\\(aqa\\(aq"
    assert manpage.escaped("a\\b-c") == "a\\eb\\-c"
    assert PAGE.isascii()
    assert not re.search(r"(?m)^'", PAGE)
