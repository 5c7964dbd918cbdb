import math
import re
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from derp import flags
from derp.errors import UsageError
from derp.flags import BOOL, DURATION, FLOAT, INT, STRING, Flag

TABLE = [
    Flag(name="a", kind=STRING, default=":443", usage="where", group="One", variable="T_ADDR"),
    Flag(name="stun", kind=BOOL, default="true", usage="whether", group="One", variable="T_STUN"),
    Flag(name="dev", kind=BOOL, default="false", usage="develop", group="Two"),
    Flag(name="hostname", kind=STRING, default="h.example", usage="who", group="Two"),
    Flag(name="port", kind=INT, default="80", usage="which", group="Two", want="want a port"),
    Flag(name="limit", kind=FLOAT, default="+Inf", usage="much", group="Two"),
    Flag(name="time", kind=DURATION, default="10m", usage="long", group="Two", variable="T_TIME"),
    Flag(name="mesh", kind=STRING, default="", usage="", refusal="no"),
]


def parse(*argv: str, **environ: str) -> flags.Parsed:
    return flags.parse(TABLE, argv, environ)


def value(name: str, *argv: str, **environ: str) -> flags.Value:
    return parse(*argv, **environ).settings[name].value


def usage_error(*argv: str, **environ: str) -> str:
    with pytest.raises(UsageError) as caught:
        parse(*argv, **environ)
    message = str(caught.value)
    assert message.isprintable()
    return message


# --- values: what strconv and time made of the same text ---


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0", 0),
        ("80", 80),
        ("010", 8),
        ("0x1F", 31),
        ("0X1f", 31),
        ("0o17", 15),
        ("0b101", 5),
        ("1_000", 1000),
        ("0_7", 7),
        ("0x_1", 1),
        ("+5", 5),
        ("-0", 0),
        ("-0x10", -16),
        ("9223372036854775807", 2**63 - 1),
        ("-9223372036854775808", -(2**63)),
    ],
)
def test_int(text: str, number: int):
    assert flags.parse_int(text) == number


@pytest.mark.parametrize(
    "text",
    [
        *["", " 5", "5 ", "1__0", "_1", "1_", "08", "0x", "0o8", "0b2", "1.0", "1e3", "--1", "٣"],
        *["x", "9223372036854775808", "-9223372036854775809", "1" * 5000, "0x" + "f" * 17],
    ],
)
def test_not_int(text: str):
    with pytest.raises(ValueError, match="want a whole number"):
        flags.parse_int(text)


@given(st.integers(-(2**64), 2**64), st.sampled_from(["d", "#x", "#o", "#b", "_d"]))
def test_int_against_format(number: int, form: str):
    text = format(number, form)
    if -(2**63) <= number < 2**63:
        assert flags.parse_int(text) == number
    else:
        with pytest.raises(ValueError, match="64 bits"):
            flags.parse_int(text)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1_000.5", 1000.5),
        (".5", 0.5),
        ("5.", 5.0),
        ("1_0", 10.0),
        ("1e3", 1000.0),
        ("-1.5E-1", -0.15),
        ("1e-400", 0.0),
        ("+Inf", math.inf),
        ("inf", math.inf),
        ("infinity", math.inf),
        ("-iNf", -math.inf),
    ],
)
def test_float(text: str, number: float):
    assert flags.parse_float(text) == number


@pytest.mark.parametrize(
    "text",
    ["", ".", "1e", "1e400", "-1e400", "0x", "0x1.8", "nan", "1__0", "1_.5", " 1", "1f", "٣"],
)
def test_not_float(text: str):
    with pytest.raises(ValueError, match="want a number"):
        flags.parse_float(text)


@given(st.floats(allow_nan=False))
def test_float_round_trip(number: float):
    assert flags.parse_float(repr(number)) == number


@pytest.mark.parametrize("text", ["1", "t", "T", "true", "TRUE", "True"])
def test_true(text: str):
    assert flags.parse_bool(text) is True


@pytest.mark.parametrize("text", ["0", "f", "F", "false", "FALSE", "False"])
def test_false(text: str):
    assert flags.parse_bool(text) is False


@pytest.mark.parametrize("text", ["", "yes", "no", "on", "tRUE", "2", " true", "true\n"])
def test_not_bool(text: str):
    with pytest.raises(ValueError, match=r"^want true or false$"):
        flags.parse_bool(text)


SECOND = 10**9


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("0", 0),
        ("+0", 0),
        ("-0", 0),
        (".5s", SECOND // 2),
        ("1.s", SECOND),
        ("1h10m", 4200 * SECOND),
        ("10m", 600 * SECOND),
        ("1.5s", 1_500_000_000),
        ("300ms", 300_000_000),
        ("2us", 2000),
        ("2\u00b5s", 2000),
        ("2\u03bcs", 2000),
        ("-1s", -SECOND),
        ("+1s", SECOND),
        ("1s1s1h", 3602 * SECOND),
        ("9223372036854775807ns", 2**63 - 1),
        ("-9223372036854775808ns", -(2**63)),
        ("0.1ns", 0),
        ("1.00000000000000000000000001s", SECOND),
    ],
)
def test_duration(text: str, nanoseconds: int):
    assert flags.parse_duration(text) == nanoseconds


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("", "want a duration, such as 2s, 1h10m or 300ms"),
        ("+", "want a duration, such as 2s, 1h10m or 300ms"),
        ("s", "want a duration, such as 2s, 1h10m or 300ms"),
        (".s", "want a duration, such as 2s, 1h10m or 300ms"),
        ("--1s", "want a duration, such as 2s, 1h10m or 300ms"),
        ("\n", "want a duration, such as 2s, 1h10m or 300ms"),
        ("2", "want a duration with its unit, such as 2s"),
        ("1h10", "want a duration with its unit, such as 1h10s"),
        ("1..5s", "want a duration with its unit, such as 1..5ss"),
        ("1d", "want a duration in h, m, s, ms, us or ns, such as 1h10m"),
        ("1S", "want a duration in h, m, s, ms, us or ns, such as 1h10m"),
        ("1h 1m", "want a duration in h, m, s, ms, us or ns, such as 1h10m"),
        ("1s\n", "want a duration in h, m, s, ms, us or ns, such as 1h10m"),
        ("9223372036854775808ns", "want a duration below 292 years"),
        ("-9223372036854775809ns", "want a duration below 292 years"),
        ("2562048h", "want a duration below 292 years"),
        ("9" * 5000 + "s", "want a duration below 292 years"),
    ],
)
def test_not_duration(text: str, want: str):
    with pytest.raises(ValueError, match=f"^{re.escape(want)}$"):
        flags.parse_duration(text)


UNITS = {"h": 3600 * SECOND, "m": 60 * SECOND, "s": SECOND, "ms": 10**6, "us": 1000, "ns": 1}
parts = st.tuples(
    st.integers(0, 10**6),
    st.none() | st.from_regex(r"[0-9]{0,25}", fullmatch=True),
    st.sampled_from(list(UNITS)),
)


@given(st.sampled_from(["", "+", "-"]), st.lists(parts, min_size=1, max_size=5))
def test_duration_against_fractions(sign: str, several: list[tuple[int, str | None, str]]):
    text = sign
    total = 0
    for whole, fraction, unit in several:
        text += f"{whole}{'' if fraction is None else '.' + fraction}{unit}"
        exact = whole + Fraction(int(fraction or "0"), 10 ** len(fraction or ""))
        total += math.floor(exact * UNITS[unit])
    total = -total if sign == "-" else total
    if -(2**63) <= total < 2**63:
        assert flags.parse_duration(text) == total
    else:
        with pytest.raises(ValueError, match="292 years"):
            flags.parse_duration(text)


# --- arguments ---


@pytest.mark.parametrize(
    ("argv", "given"),
    [
        (["-a", ":1"], "-a :1"),
        (["--a", ":1"], "--a :1"),
        (["-a=:1"], "-a=:1"),
        (["--a=:1"], "--a=:1"),
        (["-a=:0", "-dev", "--a", ":1"], "--a :1"),
        (["-a", ":1", "--"], "-a :1"),
    ],
)
def test_forms_of_a_flag(argv: list[str], given: str):
    setting = parse(*argv).settings["a"]
    assert (setting.value, setting.given, setting.source) == (
        ":1",
        given,
        re.split("[= ]", given)[0],
    )
    assert str(setting.wrong("want it")) == f"{given}: want it"


def test_a_value_may_look_like_a_flag_or_hold_an_equals_sign():
    assert value("a", "-a", "-dev") == "-dev"
    assert value("a", "-a", "--") == "--"
    assert value("a", "-a=b=c") == "b=c"
    assert value("a", "-a=") == ""
    assert value("a", "-a", "") == ""


def test_bools():
    assert value("stun") is True
    assert value("stun", "-stun=f") is False
    assert value("stun", "-stun=false", "--stun") is True
    assert value("dev", "-dev") is True


def test_defaults_are_read_like_values():
    settings = parse().settings
    assert {name: setting.value for name, setting in settings.items()} == {
        "a": ":443",
        "stun": True,
        "dev": False,
        "hostname": "h.example",
        "port": 80,
        "limit": math.inf,
        "time": 600.0,
        "mesh": "",
    }
    assert settings["port"].given == "-port 80 (the default)"
    assert settings["mesh"].given == "-mesh"


def test_flag_beats_variable_beats_default():
    assert value("a", T_ADDR=":2") == ":2"
    assert value("a", "-a", ":1", T_ADDR=":2") == ":1"
    assert value("a", T_ADDR="") == ":443"
    assert value("stun", "-stun", T_STUN="0") is True
    assert value("stun", T_STUN="0") is False
    assert value("stun", "-stun", T_STUN="nonsense") is True
    assert parse(T_ADDR=":2").settings["a"].given == "T_ADDR=:2"
    assert value("dev", **{"": "true", "dev": "true"}) is False


@pytest.mark.parametrize("flag", ["-h", "--h", "-help", "--help"])
def test_help(flag: str):
    assert parse(flag).help
    assert parse("-dev", flag, "-nonsense", T_TIME="2").help
    assert not parse("-a", flag).help


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["-port", "x"], "-port x: want a port"),
        (["-port="], "-port='': want a port"),
        (["--port=0x"], "--port=0x: want a port"),
        (["-port"], "-port: nothing comes after it; want a port"),
        (["-a"], "-a: nothing comes after it; want a value"),
        (["-limit", "much"], "-limit much: want a number"),
        (["-time", "2"], "-time 2: want a duration with its unit, such as 2s"),
        (["-time", "1 h"], "-time '1 h': want a duration in h, m, s, ms, us or ns, such as 1h10m"),
        (["-stun=yes"], "-stun=yes: want true or false"),
        (["-stun="], "-stun='': want true or false"),
        (["-stun=a\nb"], "-stun='a\\nb': want true or false"),
        (["-stun=" + "x" * 999], "-stun=" + "x" * 119 + "…: want true or false"),
        (["-stun=\udcff"], "-stun='\\udcff': want true or false"),
        (
            ["-stun", "false"],
            "false: not a flag; want -stun=true or -stun=false, with the equals sign",
        ),
        (["-port", "1", "x"], "x: not a flag; want -flag, -flag=value or -flag value"),
        (["serve"], "serve: not a flag; want -flag, -flag=value or -flag value"),
        ([""], "'': not a flag; want -flag, -flag=value or -flag value"),
        (["-"], "-: not a flag; want -flag, -flag=value or -flag value"),
        (["---a", ":1"], "---a: not a flag; want -flag, -flag=value or -flag value"),
        (["-=1"], "-=1: not a flag; want -flag, -flag=value or -flag value"),
        (["--", "-a"], "--: nothing may come after it; want flags only"),
        (["-hostnam", "x"], "-hostnam: no such flag; did you mean -hostname?"),
        (["--hostnam=x"], "--hostnam: no such flag; did you mean -hostname?"),
        (["-A", ":1"], "-A: no such flag; -h lists them all"),
        (["-q\n"], "'-q\\n': no such flag; -h lists them all"),
    ],
)
def test_wrong_arguments(argv: list[str], message: str):
    assert usage_error(*argv) == message


def test_wrong_variables():
    assert usage_error(T_STUN="yes") == "T_STUN=yes: want true or false"
    assert usage_error(T_TIME=" ") == "T_TIME=' ': want a duration, such as 2s, 1h10m or 300ms"


words = st.text() | st.sampled_from(
    ["-", "--", "---", "-h", "-a", "--a=", "-stun", "-stun=0", "-time", "1h", "-port=1", "-mesh"]
)


def parsed_or_error(argv: list[str], environ: dict[str, str]) -> flags.Parsed | UsageError:
    try:
        return flags.parse(TABLE, argv, environ)
    except UsageError as error:
        return error


@given(st.lists(words), st.dictionaries(st.sampled_from(["T_STUN", "T_TIME", "T_ADDR"]), words))
def test_any_arguments_parse_or_are_a_usage_error(argv: list[str], environ: dict[str, str]):
    outcome = parsed_or_error(argv, environ)
    if isinstance(outcome, UsageError):
        assert str(outcome).isprintable()
        assert len(str(outcome)) < 400
    else:
        assert set(outcome.settings) == {flag.name for flag in TABLE}


# --- help ---


def test_help_text():
    assert flags.help_text(TABLE, "Usage: t") == (
        "Usage: t\n"
        "\n"
        "One:\n"
        "  -a TEXT   (default :443, variable T_ADDR)\n"
        "      where\n"
        "  -stun   (default true, variable T_STUN)\n"
        "      whether\n"
        "\n"
        "Two:\n"
        "  -dev\n"
        "      develop\n"
        "  -hostname TEXT   (default h.example)\n"
        "      who\n"
        "  -port N   (default 80)\n"
        "      which\n"
        "  -limit N   (default +Inf)\n"
        "      much\n"
        "  -time TIME   (default 10m, variable T_TIME)\n"
        "      long\n"
        "\n"
        "Known but not supported yet:\n"
        "  -mesh\n"
    )


def test_help_text_without_refused_flags():
    assert "not supported" not in flags.help_text(TABLE[:-1], "Usage: t")


SPECIAL = [
    Flag(name="url", kind=STRING, usage="where", group="Two", variable="T_URL", repeatable=True),
    Flag(name="token", kind=INT, default="0", usage="pass", group="Two", secret=True),
]


def special(*argv: str, **environ: str) -> flags.Parsed:
    return flags.parse(SPECIAL, argv, environ)


@pytest.mark.parametrize(
    ("argv", "environ", "text"),
    [
        (("-url", "a", "--url=b", "-url=c d"), {}, "a b c d"),
        (("-url=", "-url", "b"), {}, "b"),
        ((), {"T_URL": "x y"}, "x y"),
        (("-url", "a"), {"T_URL": "x"}, "a"),
    ],
)
def test_a_repeated_flag_that_counts_each_time(
    argv: tuple[str, ...], environ: dict[str, str], text: str
):
    assert special(*argv, **environ).settings["url"].value == text


def test_a_secret_is_in_no_error():
    for argv in (("-token=s3cret",), ("-token", "s3cret")):
        with pytest.raises(UsageError) as caught:
            special(*argv)
        assert str(caught.value) == "-token: want a whole number"
    setting = special("-token", "123").settings["token"]
    assert str(setting.wrong("want another")) == "-token: want another"
