"""An operator's change: what it does to a policy, and to the text of a policy file."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from derp.accounts.counts import Period
from derp.files.ratelimit import NO_LIMIT, RateConfig
from derp.policy.change import Change
from derp.policy.document import PolicyFormError, parse
from derp.policy.edit import NotEditable, edited
from derp.policy.model import Entry, Policy, Quota
from derp.wire.keys import node_public_text

A, B, C = (bytes([number]) * 32 for number in (1, 0xAB, 3))
KEYS = [node_public_text(key) for key in (A, B, C)]
KA, KB, KC = KEYS
EXAMPLE = Path(__file__).parents[2] / "deploy/policy.example.toml"
MBIT = RateConfig(125_000, 65568)

DENY, ALLOW = Change(A, allowed=False), Change(A, allowed=True)
CHANGES = [
    DENY,
    ALLOW,
    Change(A, rate="10 Mbit/s"),
    Change(A, rate="unlimited"),
    Change(A, rate=None),
    Change(A, allowed=True, label='the "new" \\ printer 打印机'),
    Change(A, allowed=False, label="phone"),
]


class TestInAPolicy:
    def test_what_is_not_changed_stays(self) -> None:
        quota = Quota(1, Period.DAY, MBIT)
        entry = Entry(label="x", allowed=True, limit=MBIT, quota=quota)
        before = Policy({A: entry, B: entry}, Entry(limit=RateConfig(1, 2)))
        denied = DENY.applied_to(before)
        assert denied.of(A) == Entry(label="x", allowed=False, limit=MBIT, quota=quota)
        limited = Change(A, rate="8 Mbit/s").applied_to(before)
        assert limited.of(A) == Entry("x", True, RateConfig(1_000_000, 250_000), quota)
        assert Change(A, rate=None).applied_to(before).of(A).limit == RateConfig(1, 2)
        assert Change(A, rate="unlimited").applied_to(before).of(A).limit == NO_LIMIT
        for policy in (denied, limited):
            assert policy.of(B) == entry
            assert policy.default == before.default

    def test_a_key_without_an_entry_has_the_defaults(self) -> None:
        before = Policy(default=Entry(allowed=False, limit=MBIT))
        assert ALLOW.applied_to(before).of(A) == Entry(allowed=True, limit=MBIT)
        assert Change(A, rate=None).applied_to(before) == before

    @pytest.mark.parametrize("change", CHANGES)
    def test_it_is_in_what_it_made(self, change: Change) -> None:
        for before in (
            Policy(),
            Policy({A: Entry("x", True, MBIT)}),
            Policy({B: Entry("x", False, MBIT)}, Entry(limit=MBIT)),
        ):
            after = change.applied_to(before)
            assert change.is_in(after)
            assert change.explains(before, after)

    def test_a_default_is_no_entry(self) -> None:
        assert not DENY.is_in(Policy(default=Entry(allowed=False)))
        assert not Change(A, rate="1 Mbit/s").is_in(Policy(default=Entry(limit=MBIT)))
        assert Change(A, rate=None).is_in(Policy(default=Entry(limit=MBIT)))

    def test_what_it_does_not_explain(self) -> None:
        before = Policy({A: Entry("x", True, MBIT), B: Entry("y")})
        after = DENY.applied_to(before)
        assert not DENY.explains(before, before)
        assert not DENY.explains(before, Policy({**after.entries, B: Entry("z")}))
        assert not DENY.explains(before, Policy({A: after.of(A)}))
        assert not DENY.explains(before, Policy(after.entries, Entry(limit=MBIT)))
        assert not DENY.explains(before, Policy({A: Entry("other", False, MBIT), B: Entry("y")}))

    @pytest.mark.parametrize("label", ["", "x" * 65, "two\nlines", "\x7f"])
    def test_a_wrong_label(self, label: str) -> None:
        with pytest.raises(ValueError, match="want a label of 1 to 64 printable characters"):
            Change(A, allowed=True, label=label)

    def test_a_wrong_rate(self) -> None:
        with pytest.raises(ValueError, match="want a rate such as"):
            Change(A, rate="10")

    def test_changes_of_one_subject(self) -> None:
        assert DENY.subject == ALLOW.subject
        assert len({change.subject for change in CHANGES}) == 2
        assert Change(B, allowed=True).subject != ALLOW.subject


def table(*said: str, after: str = "") -> str:
    return "\n".join([f'[clients."{KA}"]', *said, after])


class TestInAFile:
    @pytest.mark.parametrize(
        ("change", "before", "after"),
        [
            # In the place of its opposite, with the comment that explains it.
            (DENY, table("allow = true  # a friend"), table("deny = true  # a friend")),
            (ALLOW, table("deny=true"), table("allow = true")),
            (DENY, table("deny = false"), table("deny = true")),
            (DENY, table("  deny = true"), table("  deny = true")),
            # After what is said already.
            (
                DENY,
                table('label = "x" # y', "", after=f'[clients."{KB}"]\n'),
                table('label = "x" # y', "deny = true", "", after=f'[clients."{KB}"]\n'),
            ),
            (DENY, table(), table("deny = true", after="")),
            (DENY, f'  [ clients . "{KA}" ]  # x', f'  [ clients . "{KA}" ]  # x\n  deny = true'),
            (
                Change(A, rate="1 MB/s"),
                table("\tdeny = true", "# end"),
                table("\tdeny = true", '\trate = "1 MB/s"', "# end"),
            ),
            # A rate takes its burst along.
            (
                Change(A, rate=None),
                table('rate = "1 MB/s"', 'burst = "1 MB" # x', 'label = "y"'),
                table("# x", 'label = "y"'),
            ),
            (
                Change(A, rate="unlimited"),
                table('rate = "1 MB/s"', 'burst = "1 MB"'),
                table('rate = "unlimited"'),
            ),
            (
                Change(A, rate="5 Mbit/s"),
                table('rate = "1 MB/s"', 'burst = "1 MB"'),
                table('rate = "5 Mbit/s"', 'burst = "1 MB"'),
            ),
            (Change(A, rate=None), table('rate = "1 MB/s"')[:-1], table("", after="")[:-1]),
            # Inline tables, and names with dots.
            (DENY, f'[clients]\n"{KA}" = {{}}#x', f'[clients]\n"{KA}" = {{ deny = true }}#x'),
            (
                DENY,
                f"clients.'{KA}' = {{ label = \"a,}}#\", allow=true }} # x\n",
                f"clients.'{KA}' = {{ label = \"a,}}#\", deny = true }} # x\n",
            ),
            (
                Change(A, rate=None),
                f'[clients]\n"{KA}" = {{rate = "1 MB/s", burst = "1 MB"}}',
                f'[clients]\n"{KA}" = {{  }}',
            ),
            (
                DENY,
                f'clients."{KA}".label = "x"\nclients."{KA}".rate = "1 MB/s"\n[defaults]',
                f'clients."{KA}".label = "x"\nclients."{KA}".rate = "1 MB/s"\n[defaults]'.replace(
                    "\n[", f'\nclients."{KA}".deny = true\n['
                ),
            ),
            # A new entry.
            (DENY, "[defaults]", f'[defaults]\n\n[clients."{KA}"]\ndeny = true\n'),
            (DENY, "[defaults]\r\n", f'[defaults]\r\n\r\n[clients."{KA}"]\r\ndeny = true\r\n'),
            (Change(A, rate=None), "[defaults]", "[defaults]"),
        ],
    )
    def test_an_entry_is_changed_where_it_is(self, change: Change, before: str, after: str) -> None:
        assert edited(before, change.key, change.assignments) == after
        assert change.explains(parse(before.encode()), parse(after.encode()))

    def test_a_key_may_be_written_in_capitals(self) -> None:
        name = f"nodekey:{B.hex().upper()}"
        text = f'[clients."{name}"]\nallow = true\n'
        assert edited(text, B, Change(B, allowed=False).assignments) == text.replace(
            "allow", "deny"
        )

    def test_one_table_of_all_is_not_edited(self) -> None:
        with pytest.raises(NotEditable, match="in one inline table"):
            edited(f'clients = {{ "{KA}" = {{ deny = true }} }}', A, ALLOW.assignments)

    @pytest.mark.parametrize("change", CHANGES)
    @pytest.mark.parametrize("end", ["\n", "\r\n"])
    def test_the_example_keeps_its_comments(self, change: Change, end: str) -> None:
        before = EXAMPLE.read_text().replace("\n", end)
        for name in re.findall(r"nodekey:\w{64}", before):
            key = bytes.fromhex(name.removeprefix("nodekey:"))
            this = Change(key, change.allowed, change.rate)
            after = edited(before, key, this.assignments)
            assert this.explains(parse(before.encode()), parse(after.encode()))
            assert re.findall("#.*", before) == re.findall("#.*", after)
            assert ("\r" in after) == ("\r" in before)
            assert after.count("\r") in (0, after.count("\n"))


COMMENTS = st.sampled_from(["", " # one", "\t#two = [ '''", ' # "'])
GAPS = st.sampled_from(["", "\n", "# between\n", "  \n\n"])
ENDS = st.sampled_from(["\n", "\r\n"])
SAID = {
    "label": ['"x"', "'a # b'", '"}, ] ="', '"""\\\nlong"""'],
    "rate": ['"1 MB/s"', "'10 Mbit/s'"],
    "burst": ['"1 MB"'],
    "quota": ['"1 GB/day"'],
    "throttle": ['"1 Mbit/s"'],
}
RIGHTS = st.sampled_from(["", "allow = true", "deny = true", "deny = false", '"deny" = true'])
FORMS = st.sampled_from(["table", "inline", "dotted"])


@st.composite
def entries(draw: st.DrawFn, name: str) -> tuple[str, list[str]]:
    """A form, and what is said."""
    said = [
        f"{name} = {draw(st.sampled_from(SAID[name]))}"
        for name in ("label",)
        if draw(st.booleans())
    ]
    if draw(st.booleans()):
        said.append(f"rate = {draw(st.sampled_from(SAID['rate']))}")
        if draw(st.booleans()):
            said.append('burst = "1 MB"')
    if draw(st.booleans()):
        said += ['quota = "1 GB/day"', 'throttle="1 Mbit/s"']
    if right := draw(RIGHTS):
        said.append(right)
    return draw(FORMS), draw(st.permutations(said))


@st.composite
def documents(draw: st.DrawFn) -> str:
    """A policy file, with entries for some of the keys in any of the forms."""
    lines, later = ["# a policy"], [f"[defaults]{draw(COMMENTS)}"]
    if draw(st.booleans()):
        later.append('rate = "2 MB/s" # by default')
    inline: list[str] = []
    for key in draw(st.permutations(KEYS)):
        if draw(st.booleans()):
            continue
        form, said = draw(entries(key))
        if form == "table":
            later += [f'[clients."{key}"]{draw(COMMENTS)}']
            later += [f"  {line}{draw(COMMENTS)}{draw(GAPS)}".rstrip("\n") for line in said]
        elif form == "inline":
            flat = [line for line in said if '"""' not in line]
            inline.append(f'"{key}" = {{{", ".join(flat)}}}{draw(COMMENTS)}')
        else:
            inline += [f'"{key}".{line}{draw(COMMENTS)}' for line in said]
    if inline:
        lines += ["[clients]", *inline]
    return draw(ENDS).join("\n".join([*lines, *later]).split("\n")) + draw(
        st.sampled_from(["", "\n"])
    )


@given(text=documents(), change=st.sampled_from(CHANGES))
def test_any_policy_is_changed_in_one_place(text: str, change: Change) -> None:
    before = parse(text.encode())
    after = edited(text, change.key, change.assignments)
    assert change.explains(before, parse(after.encode()))
    assert edited(after, change.key, change.assignments) == after
    # All lines that say nothing of this key are as they were.
    old, new = text.split("\n"), after.split("\n")
    for line in old:
        if any(key in line for key in (KB, KC)) or line.strip().startswith("#"):
            assert line.rstrip("\r") in [each.rstrip("\r") for each in new]
    assert re.findall("# between|# one|#two", text) == re.findall("# between|# one|#two", after)


@given(st.text(alphabet="clientsdefaultnk[]{}=\".'\n\r #:,\\tru0", max_size=200))
def test_any_text_is_edited_or_refused(text: str) -> None:
    try:
        before = parse(text.encode())
    except PolicyFormError:
        return
    try:
        after = parse(edited(text, A, DENY.assignments).encode())
    except (NotEditable, PolicyFormError):
        return
    assert DENY.explains(before, after)
