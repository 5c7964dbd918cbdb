"""A policy file's bytes: what is read of them, and which line a mistake is on."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from derp.files.ratelimit import MIN_BURST, NO_LIMIT, RateConfig
from derp.policy.document import MAX_SIZE, PolicyFormError, parse
from derp.policy.model import EMPTY, Entry, Policy, Quota
from derp.wire.keys import node_public_text

ONE, TWO, OTHER = bytes(range(32)), bytes(range(32, 64)), bytes(32)
A, B = node_public_text(ONE), node_public_text(TWO)
HEAD = f'[clients."{A}"]\n'
MBIT = 125_000


def read(text: str) -> Policy:
    return parse(text.encode())


def limit(mbit: int) -> RateConfig:
    return RateConfig(mbit * MBIT, max(MIN_BURST, mbit * MBIT // 4))


def wrong(text: str | bytes) -> tuple[int, str]:
    """The line and the message of the mistake in a policy."""
    with pytest.raises(PolicyFormError) as caught:
        parse(text if isinstance(text, bytes) else text.encode())
    message = str(caught.value)
    assert message.startswith(f"line {caught.value.line}: ")
    assert message.isprintable()
    assert len(message) < 500
    return caught.value.line, message.partition(": ")[2]


def test_a_whole_policy() -> None:
    policy = read(
        f"""\
[defaults]
rate = "10 Mbit/s"
quota = "200 GB/month"
throttle = "1 Mbit/s"

[clients."{A}"]
label = "laptop \N{SNOWMAN}"
allow = true
rate = "100 Mbit/s"
burst = "5 MB"
quota = "5 GB/day"
refuse = true

[clients."{B.upper().replace("NODEKEY", "nodekey")}"]
deny = true
"""
    )
    monthly = Quota(200 * 10**9, "month", limit(1))
    assert policy.of(OTHER) == Entry("", None, limit(10), monthly)
    fast = RateConfig(100 * MBIT, 5_000_000)
    assert policy.of(ONE) == Entry("laptop \N{SNOWMAN}", True, fast, Quota(5 * 10**9, "day", None))
    assert policy.of(TWO) == Entry("", False, limit(10), monthly)
    assert policy.allowed == {ONE}
    assert policy.has_quotas


@pytest.mark.parametrize(
    "text", ["[defaults]", "\N{BYTE ORDER MARK}[clients]\r\n", "defaults = {}"]
)
def test_a_policy_that_says_nothing(text: str) -> None:
    assert read(text) == EMPTY


@pytest.mark.parametrize(
    ("defaults", "own", "entry"),
    [
        ("", "", Entry()),
        ("deny = true", "", Entry(allowed=False)),
        ("deny = true", "deny = false", Entry()),
        ("deny = true", "allow = true", Entry(allowed=True)),
        ('rate = "8 Mbit/s"', 'rate = "unlimited"', Entry(limit=NO_LIMIT)),
        ('rate = "unlimited"', 'rate = "8 Mbit/s"', Entry(limit=limit(8))),
        ('burst = "1 MB"', 'rate = "8 Mbit/s"', Entry(limit=RateConfig(10**6, 10**6))),
        ('rate = "8 Mbit/s"', 'burst = "1 MB"', Entry(limit=RateConfig(10**6, 10**6))),
        ('burst = "1 MB"', "", Entry()),
        ("refuse = true", 'quota = "1 B/day"', Entry(quota=Quota(1, "day", None))),
        (
            'quota = "1 B/day"\nrefuse = true',
            'throttle = "8 Mbit/s"',
            Entry(quota=Quota(1, "day", limit(8))),
        ),
        (
            'quota = "1 B/day"\nthrottle = "8 Mbit/s"',
            "refuse = true",
            Entry(quota=Quota(1, "day", None)),
        ),
        ('quota = "1 B/day"\nrefuse = true', 'quota = "unlimited"', Entry()),
    ],
)
def test_an_entry_comes_before_the_defaults(defaults: str, own: str, entry: Entry) -> None:
    assert read(f"[defaults]\n{defaults}\n{HEAD}{own}\n").of(ONE) == entry


@pytest.mark.parametrize("data", [b"", b"\n\n", b"# nothing\n", b"\xef\xbb\xbf"])
def test_an_empty_file_is_a_mistake(data: bytes) -> None:
    assert wrong(data) == (
        1,
        "nothing in it; want [defaults] at least, with or without a line under it",
    )


MISTAKES = [
    # The wrong line, and what is said of it.
    ('rate = "10"', "rate 10: want a rate such as"),
    ("rate = 10", 'rate: want text in quotes, as in rate = "10 Mbit/s"'),
    ("rate = 10 Mbit/s", 'text stands in quotes, as in rate = "10 Mbit/s"'),
    ("rate = ", "want TOML, as in"),
    ("rate", "want TOML, as in"),
    ('rate = "10 Mbit/s', "want TOML, as in"),
    ('rate = ["10 Mbit/s"]', "rate: want text in quotes"),
    ("rate = 1979-05-27T07:32:00Z", "rate: want text in quotes"),
    (f"rate = {'9' * 4000}", "rate: want text in quotes"),
    ('rat = "10 Mbit/s"', "unknown name rat; did you mean rate? want one of label, group, rate,"),
    ('"\\n" = 1', "unknown name '\\n'; want one of"),
    ("rate.burst = 1", "rate: want text in quotes"),
    ('burst = "1 kB"', "burst '1 kB': want a burst from \"66 kB\""),
    ('burst = "1 MB"', "burst without a rate"),
    ('quota = "5 GB"', "quota '5 GB': want a quota such as"),
    ('quota = "5 GB/day"', "a quota, and nothing that happens over it; want throttle"),
    ('throttle = "1 Mbit/s"', "throttle without a quota"),
    ('throttle = "unlimited"', "throttle unlimited: want a rate such as"),
    ("refuse = true", "refuse without a quota"),
    ('refuse = "true"', "refuse: want true or false, without quotes"),
    ("deny = 1", "deny: want true or false, without quotes"),
    ("deny = yes", "text stands in quotes, as in rate"),
    ("allow = false", "allow = false: want deny = true, or neither"),
    ('label = ""', "label '': want a label of 1 to 64 printable characters"),
    ('label = "a\\nb"', "label 'a\\nb': want a label"),
    (f'label = "{"x" * 65}"', "want a label"),
    (f'label = "{"x" * 5000}"', "too long; want 4096 characters at most"),
    ("label = 1.5", "label: want text in quotes"),
    ("[clients.nodekey:12]", "a key stands in quotes"),
    (
        '[clients."nodekey:12"]',
        'nodekey:12: the key has 2 hex digits instead of 64; want [clients."',
    ),
    (f'[clients."{A[:-1]}x"]', "the key holds something else than hex digits"),
    (f'[clients."{A[8:]}"]', "the key does not begin with nodekey:"),
    ("[clients.laptop]", "laptop: the key does not begin with nodekey:"),
    (f'["{B}"]', 'want [clients."nodekey:…"]'),
    (f'[[clients."{B}"]]', "not a table; want [clients."),
    ("[client]", "unknown name client; did you mean clients?"),
    ("[[defaults]]", "not a table; want [defaults]"),
    (f'clients."{B}" = 1', "unknown name clients"),
    ("\x00", "want TOML"),
]


@pytest.mark.parametrize(("line", "message"), MISTAKES, ids=[line[:30] for line, _ in MISTAKES])
@pytest.mark.parametrize(
    ("before", "number"),
    [(HEAD, 2), (f'# one\n\n[clients."{B[:-2]}ff"]\nlabel = """\\\n[x]"""\n\n{HEAD}# ]\n', 9)],
    ids=["first", "later"],
)
@pytest.mark.parametrize("end", ["", "\n", "\r\n\r\n# more\r\n"])
def test_a_mistake_is_named_by_its_line(
    line: str, message: str, before: str, number: int, end: str
) -> None:
    at, said = wrong(f"{before}{line}{end}")
    assert (at, message in said) == (number, True), said


def test_what_belongs_elsewhere() -> None:
    assert wrong('rate = "1 Mbit/s"') == (
        1,
        "rate has no place here; want it under [defaults] or in an entry",
    )
    at, said = wrong('[defaults]\nlabel = "all"')
    assert at == 2
    assert said.startswith("label has no place here; want it in an entry")
    assert wrong("[defaults]\nallow = true")[0] == 2


def test_both_of_two() -> None:
    assert wrong(f"{HEAD}allow = true\ndeny = true") == (
        3,
        "both allow and deny; want one of them",
    )
    both = 'quota = "1 B/day"\nthrottle = "1 Mbit/s"\nrefuse = true'
    assert wrong(f"{HEAD}{both}")[0] == 4
    assert wrong(f"[defaults]\n{both}") == (4, "both throttle and refuse; want one of them")


def test_a_quota_of_the_defaults_is_named_there() -> None:
    assert wrong(f'[defaults]\n\nquota = "1 B/day"\n{HEAD}refuse = true')[0] == 3


def test_two_entries_for_one_key() -> None:
    text = f'{HEAD}deny = true\n[clients."{B}"]\n'
    assert wrong(f"{text}{HEAD}deny = false") == (
        4,
        f"a second table '[clients.\"{A}\"]'; put it into the first one, on line 1",
    )
    again = HEAD.replace(A[8:], A[8:].upper())
    at, said = wrong(f"{text}{again}deny = false")
    assert at == 4
    assert said.startswith("a second entry for nodekey:")
    assert said.endswith("; want one for each key")
    assert wrong(f"{HEAD}deny = true\ndeny = false") == (
        3,
        "said a second time in the same table; want it once",
    )


def test_other_forms_of_toml() -> None:
    """What names a line in them is the statement that the mistake is in."""
    assert read(f"[clients]\n'{A}' = {{ deny = true }}\n").of(ONE).allowed is False
    assert read(f'clients."{A}".deny = true').of(ONE).allowed is False
    assert wrong(f'[clients]\n\n"{A}" = {{ deny = true, rate = "1" }}\n')[0] == 3
    assert wrong(f'clients.\'{A}\'.deny = true\nclients."{A}".rate = "1"')[0] == 2


@pytest.mark.parametrize(
    ("data", "line", "said"),
    [
        (b'[defaults]\n# caf\xe9\nrate = "1"', 2, "not UTF-8; save the file in that encoding"),
        (b"\xff\xfe[\x00d\x00", 1, "not UTF-8; save the file in that encoding"),
        (b"#\n" * (MAX_SIZE // 2) + b"#", MAX_SIZE // 2 + 1, "too large; want 1 MiB at most"),
        (b"\n[defaults]\nrate = " + b"[" * 3000, 1, "brackets in brackets without end"),
    ],
    ids=["Latin-1", "UTF-16", "too large", "nested"],
)
def test_what_is_no_text(data: bytes, line: int, said: str) -> None:
    at, message = wrong(data)
    assert at == line
    assert said in message


NAMES = st.sampled_from(["label", "rate", "burst", "quota", "throttle", "refuse", "allow", "deny"])
VALUES = st.sampled_from(
    ['"1 Mbit/s"', '"1 MB"', '"1 GB/day"', '"unlimited"', "true", "false", "1", '"""\n[x]\n"""']
)
LINES = st.builds("{} = {}".format, NAMES, VALUES) | st.sampled_from(
    ["[defaults]", HEAD, f'[clients."{B}"]', "", "# ] = ", "[", "x = [\n1, # ]\n]"]
)


def error_in(data: bytes) -> PolicyFormError | None:
    try:
        parse(data)
    except PolicyFormError as error:
        return error
    return None


@given(st.lists(LINES).map("\n".join) | st.text())
def test_any_text_is_a_policy_or_names_a_line_of_its_own(text: str) -> None:
    data = text.encode("utf-8", "surrogatepass")
    if (error := error_in(data)) is not None:
        assert 1 <= error.line <= data.count(b"\n") + 1
        assert str(error).isprintable()


@given(st.binary())
def test_any_bytes_are_a_policy_or_an_error(data: bytes) -> None:
    error_in(data)


ENTRIES = st.builds(
    Entry,
    st.text(max_size=9),
    st.sampled_from([None, True, False]),
    st.sampled_from([None, NO_LIMIT, limit(3)]),
    st.sampled_from([None, Quota(5, "day", None), Quota(7, "month", limit(1))]),
)


@given(st.dictionaries(st.binary(min_size=32, max_size=32), ENTRIES), ENTRIES)
def test_a_message_holds_the_whole_policy(entries: dict[bytes, Entry], default: Entry) -> None:
    policy = Policy(entries, default)
    assert Policy.from_json(policy.to_json()) == policy
