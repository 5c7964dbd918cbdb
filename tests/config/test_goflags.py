import math
import re

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from derp.config import goflags, strconv
from derp.config.goflags import BOOL, DURATION, FLOAT, INT, STRING, Flag
from derp.errors import UsageError

TABLE = [
    Flag(name="a", kind=STRING, default=":443", usage="where", group="One", variable="T_ADDR"),
    Flag(name="stun", kind=BOOL, default="true", usage="whether", group="One", variable="T_STUN"),
    Flag(name="dev", kind=BOOL, default="false", usage="develop", group="Two"),
    Flag(name="hostname", kind=STRING, default="h.example", usage="who", group="Two"),
    Flag(
        name="port",
        kind=INT,
        default="80",
        usage="which",
        group="Two",
        variable="T_PORT",
        want="want a port",
    ),
    Flag(name="limit", kind=FLOAT, default="+Inf", usage="much", group="Two"),
    Flag(name="time", kind=DURATION, default="10m", usage="long", group="Two", variable="T_TIME"),
    Flag(name="mesh", kind=STRING, default="", usage="", unsupported="no"),
]


def parse(*argv: str, **environ: str) -> goflags.Parsed:
    return goflags.parse(TABLE, argv, environ)


def value(name: str, *argv: str, **environ: str) -> goflags.Value:
    return parse(*argv, **environ).settings[name].value


def usage_error(*argv: str, **environ: str) -> str:
    with pytest.raises(UsageError) as caught:
        parse(*argv, **environ)
    message = str(caught.value)
    assert message.isprintable()
    return message


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
    assert (setting.value, setting.given, setting.spelling) == (
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


def test_another_programs_variable():
    table = [attrs.evolve(TABLE[0], other_variable="TS_ADDR")]

    def given(*argv: str, **environ: str) -> str:
        return goflags.parse(table, argv, environ).settings["a"].given

    assert given(TS_ADDR=":3") == "TS_ADDR=:3"
    assert given(TS_ADDR=":3", T_ADDR="") == "TS_ADDR=:3"
    assert given(TS_ADDR=":3", T_ADDR=":2") == "T_ADDR=:2"
    assert given("-a", ":1", TS_ADDR=":3") == "-a :1"
    assert given(TS_ADDR="") == "-a :443 (the default)"
    assert "(default :443, variable T_ADDR or TS_ADDR)" in goflags.help_text(table, "")


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
            ["-stun", "no"],
            "no: not a flag; want -stun=true or -stun=false, with the equals sign",
        ),
        (["-stun", "true", "x"], "x: not a flag; want -flag, -flag=value or -flag value"),
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


READ_AS = "{0} {1}: read as {0}={1}, which is how to write it"
ALONE = "the Go derper reads {0} alone, as true"
LOST = ", and ignores the flags after it, which count here"


@pytest.mark.parametrize(
    ("argv", "stun", "warning"),
    [
        (["-stun", "true"], True, READ_AS.format("-stun", "true")),
        (
            ["--stun", "false"],
            False,
            READ_AS.format("--stun", "false") + "; " + ALONE.format("--stun"),
        ),
        (
            ["-stun", "TRUE", "-a", ":1"],
            True,
            READ_AS.format("-stun", "TRUE") + "; " + ALONE.format("-stun") + LOST,
        ),
        (
            ["-stun", "0", "-a", ":1"],
            False,
            READ_AS.format("-stun", "0") + "; " + ALONE.format("-stun") + LOST,
        ),
        (["-a", ":1", "-stun", "true"], True, READ_AS.format("-stun", "true")),
        (["-stun", "true", "--"], True, READ_AS.format("-stun", "true")),
    ],
)
def test_a_bool_and_its_value_as_two_words(argv: list[str], stun: bool, warning: str):
    parsed = parse(*argv)
    setting = parsed.settings["stun"]
    assert setting.value is stun
    assert setting.given == " ".join(argv[argv.index(setting.spelling) :][:2])
    assert parsed.warnings == (warning,)
    assert parsed.settings["a"].value == (":1" if ":1" in argv else ":443")


@pytest.mark.parametrize("argv", [["-stun"], ["-stun=true", "-a", "true"], ["-dev", "-stun=0"]])
def test_what_is_written_as_in_go_is_no_reason_to_warn(argv: list[str]):
    assert parse(*argv).warnings == ()


@pytest.mark.parametrize("url", ["udp://10.0.0.1:3478", "tcp://[fd00::1]:80", "sctp://10.0.0.1:1"])
def test_a_variable_that_kubernetes_sets_by_itself_is_ignored(url: str):
    parsed = parse(T_PORT=url)
    assert parsed.settings["port"].value == 80
    assert parsed.settings["port"].given == "-port 80 (the default)"
    assert parsed.warnings == (
        (
            f"T_PORT={url}: ignored, as Kubernetes sets it for a Service of that name; "
            "-port 80 (the default) counts: give the flag, or enableServiceLinks: false"
        ),
    )


def test_a_variable_that_kubernetes_sets_by_itself_is_nothing_where_the_flag_is_given():
    parsed = parse("-port", "81", T_PORT="tcp://10.0.0.1:80")
    assert (parsed.settings["port"].value, parsed.warnings) == (81, ())


@pytest.mark.parametrize("text", ["http://10.0.0.1:80", "tcp://", "tcp:80", " tcp://10.0.0.1:80"])
def test_what_kubernetes_does_not_set_is_wrong(text: str):
    assert usage_error(T_PORT=text) == f"T_PORT={strconv.quoted(text)}: want a port"


def test_only_variables_of_ports_are_named_like_those_of_kubernetes():
    text = "tcp://10.0.0.1:80"
    assert value("a", T_ADDR=text) == text
    assert usage_error(T_STUN=text) == f"T_STUN={text}: want true or false"


def test_wrong_variables():
    assert usage_error(T_STUN="yes") == "T_STUN=yes: want true or false"
    assert usage_error(T_TIME=" ") == "T_TIME=' ': want a duration, such as 2s, 1h10m or 300ms"


words = st.text() | st.sampled_from(
    [
        "-",
        "--",
        "---",
        "-h",
        "true",
        "-a",
        "--a=",
        "-stun",
        "-stun=0",
        "-time",
        "1h",
        "-port=1",
        "-mesh",
    ]
)


def parsed_or_error(argv: list[str], environ: dict[str, str]) -> goflags.Parsed | UsageError:
    try:
        return goflags.parse(TABLE, argv, environ)
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
    assert goflags.help_text(TABLE, "Usage: t") == (
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
        "  -port N   (default 80, variable T_PORT)\n"
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
    assert "not supported" not in goflags.help_text(TABLE[:-1], "Usage: t")


SPECIAL = [
    Flag(name="url", kind=STRING, usage="where", group="Two", variable="T_URL", separator=" "),
    Flag(name="token", kind=INT, default="0", usage="pass", group="Two", secret=True),
]


def special(*argv: str, **environ: str) -> goflags.Parsed:
    return goflags.parse(SPECIAL, argv, environ)


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
