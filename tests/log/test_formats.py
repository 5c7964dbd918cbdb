import json
import logging
import re
from datetime import timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from derp.log.formats import TRACEBACK_LIMIT, VALUE_LIMIT, Logfmt, Terminal, quoted

PAIR = re.compile(r'([A-Za-z0-9_.-]+)=("(?:[^"\\]|\\.)*"|[^ "=\\]+)(?: |$)')
CREATED = 1795419062.1239  # 2026-11-23T07:31:02.123Z
ENCODABLE = st.text(max_size=200)
ANY_TEXT = st.text(st.characters(), max_size=200)
KEY = "privkey:" + "0123456789abcdef" * 4


def record(message="joined", level=logging.INFO, name="derper.client", **attributes):
    event = {"name": name, "levelno": level, "levelname": logging.getLevelName(level)}
    return logging.makeLogRecord({"msg": message, "created": CREATED, **event, **attributes})


def logfmt(message="joined", **attributes):
    return Logfmt().format(record(message, **attributes))


def terminal(message="joined", colour=False, **attributes):
    formatter = Terminal(colour=colour, timezone=timezone(timedelta(hours=1)))
    return formatter.format(record(message, **attributes))


def parse(line):
    """Parse logfmt strictly; return the pairs in order."""
    pairs, at = [], 0
    while at < len(line):
        match = PAIR.match(line, at)
        assert match, line[at:]
        key, value = match.groups()
        pairs.append((key, json.loads(value) if value.startswith('"') else value))
        at = match.end()
    return pairs


def raised(error):
    try:
        raise error
    except type(error) as caught:
        return (type(caught), caught, caught.__traceback__)


def test_a_line_of_logfmt():
    fields = {"client": "[AbCdE]", "remote": "1.2.3.4:567"}
    assert logfmt("client joined", fields=fields) == (
        'time=2026-11-23T07:31:02.123Z level=info msg="client joined" '
        "client=[AbCdE] remote=1.2.3.4:567"
    )


def test_a_line_at_a_terminal():
    fields = {"client": "[AbCdE]", "remote": "1.2.3.4:567"}
    line = terminal("client joined", fields=fields)
    assert line == "08:31:02 client joined client=[AbCdE] remote=1.2.3.4:567"


def test_a_terminal_shows_the_level_where_it_is_not_info():
    assert terminal("disk full", level=logging.ERROR) == "08:31:02 ERROR disk full"
    assert terminal("disk full", level=logging.WARNING) == "08:31:02 WARNING disk full"


def test_colours_are_around_the_words_and_not_in_them():
    line = terminal("disk full", level=logging.ERROR, colour=True, fields={"free": 0})
    assert "\x1b[31mERROR\x1b[0m disk full " in line
    assert re.sub(r"\x1b\[\d+m", "", line) == "08:31:02 ERROR disk full free=0"


def test_a_terminal_shows_local_time_by_default():
    assert re.match(r"\d\d:31:02 ", Terminal(colour=False).format(record()))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("plain", "plain"),
        ("[2001:db8::1]:443", "[2001:db8::1]:443"),
        ("grün", "grün"),
        ("", '""'),
        ("two words", '"two words"'),
        ("a=b", '"a=b"'),
        ('say "hi"', r'"say \"hi\""'),
        ("back\\slash", r'"back\\slash"'),
        ("x\nlevel=error msg=forged", r'"x\nlevel=error msg=forged"'),
        ('x" level="error', r'"x\" level=\"error"'),
        ("\r\t\0\x1b[2J\x7f", r'"\r\t\u0000\u001b[2J\u007f"'),
        ("\u2028\u202e\ufeff\x85\xa0", r'"\u2028\u202e\ufeff\u0085\u00a0"'),
        ("\ud800", r'"\ud800"'),
        ("\U000e0041", r'"\udb40\udc41"'),
    ],
)
def test_values_are_quoted_where_they_need_it(value, expected):
    assert quoted(value) == expected


@pytest.mark.slow
@given(ENCODABLE, st.dictionaries(st.from_regex(r"[a-z_]{1,8}", fullmatch=True), ENCODABLE))
def test_what_is_logged_can_be_read_back(message, fields):
    fields = {f"x_{key}": value for key, value in fields.items()}
    line = logfmt(message, fields=fields)
    assert parse(line) == [
        ("time", "2026-11-23T07:31:02.123Z"),
        ("level", "info"),
        ("msg", message),
        *fields.items(),
    ]


@given(ANY_TEXT, st.dictionaries(ANY_TEXT, ANY_TEXT))
def test_any_text_makes_one_printable_line(message, fields):
    line = logfmt(message, fields=fields)
    assert line.isprintable()
    assert [key for key, _ in parse(line)][:3] == ["time", "level", "msg"]
    assert len(parse(line)) == 3 + len(fields)
    line.encode()
    line = terminal(message, fields=fields)
    assert line.isprintable()
    line.encode()


@pytest.mark.parametrize("key", ["time", "level", "msg", "logger", "traceback", ""])
def test_no_field_passes_for_one_of_the_lines_own(key):
    assert parse(logfmt(fields={key: "x"}))[3:] == [(f"{key}_", "x")]


@pytest.mark.parametrize("key", ["a b", "a=b", "a\nb", 'a"b', "aäb"])
def test_keys_keep_to_their_alphabet(key):
    assert parse(logfmt(fields={key: "x"}))[3:] == [("a_b", "x")]


def test_values_of_other_types():
    fields = {"count": 3, "ratio": 0.5, "home": True, "dup": False, "none": None}
    expected = [("count", "3"), ("ratio", "0.5"), ("home", "true"), ("dup", "false")]
    assert parse(logfmt(fields=fields))[3:] == expected


def test_a_value_is_cut_off_where_it_is_too_long():
    pairs = dict(parse(logfmt("m" * 10000, fields={"x": "y" * 10000, "fits": "z" * VALUE_LIMIT})))
    assert pairs["msg"] == "m" * VALUE_LIMIT + "…"
    assert pairs["x"] == "y" * VALUE_LIMIT + "…"
    assert pairs["fits"] == "z" * VALUE_LIMIT


@pytest.mark.parametrize("form", [logfmt, terminal])
def test_private_keys_are_nowhere(form):
    line = form(
        f"read {KEY}",
        fields={"config": f'{{"PrivateKey":"{KEY}"}}', "shouted": KEY.replace("abcdef", "ABCDEF")},
        exc_info=raised(ValueError(KEY)),
    )
    assert "0123456789" not in line
    assert line.count("privkey:…") == 4


def test_a_private_key_at_the_cut_is_hidden_too():
    assert "0123" not in logfmt("x" * (VALUE_LIMIT - 20) + KEY)


def test_public_keys_stay():
    public = KEY.replace("privkey", "nodekey")
    assert public in logfmt(fields={"key": public})


def test_a_traceback_is_a_field_in_logfmt():
    line = logfmt("bug", exc_info=raised(ValueError("x\nlevel=error")))
    assert line.isprintable()
    key, value = parse(line)[-1]
    assert key == "traceback"
    assert value.startswith("Traceback (most recent call last):\n")
    assert value.endswith("ValueError: x\nlevel=error")


def test_a_traceback_is_indented_at_a_terminal():
    first, *others = terminal("bug", exc_info=raised(ValueError("x\n08:31:02 \x1b[2J"))).split("\n")
    assert first == "08:31:02 bug"
    assert others[0] == "    Traceback (most recent call last):"
    assert others[-1] == r"    08:31:02 \u001b[2J"
    assert all(line.startswith("    ") and line.isprintable() for line in others)


def test_a_traceback_keeps_its_end():
    line = logfmt("bug", exc_info=raised(ValueError("x" * 50000 + "end")))
    traceback = dict(parse(line))["traceback"]
    assert len(traceback) == TRACEBACK_LIMIT + 1
    assert traceback.endswith("xend")


def test_a_librarys_message_has_its_arguments_and_its_name():
    line = logfmt("%s of %d", args=("one", 2), name="trio.socket")
    assert parse(line)[2:] == [("msg", "one of 2"), ("logger", "trio.socket")]


@pytest.mark.parametrize(
    ("message", "arguments"),
    [("%d", ("x",)), ("%s %s", ("x",)), ("%(a)s", ({"b": 1},)), ("%c", (1 << 40,)), ("100%", (1,))],
)
def test_a_librarys_message_that_does_not_fit_its_arguments_is_logged(message, arguments):
    assert message in dict(parse(logfmt(message, args=arguments)))["msg"]


def test_a_percent_sign_of_ours_is_one():
    assert dict(parse(logfmt("100% of %s")))["msg"] == "100% of %s"
