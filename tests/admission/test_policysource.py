"""The policy as a source beside the others, and what is logged of it."""

import logging
from pathlib import Path
from typing import Any

import pytest
import trio

from derp.admission.allowlist import AllowList
from derp.admission.checker import Checker
from derp.admission.make import announce, make_checker
from derp.admission.model import Outcome, Question, Verdict
from derp.admission.policysource import PolicySource
from derp.admission.sources import Sources
from derp.errors import ReloadError, StartError
from derp.metrics import Metrics
from derp.net.listenaddress import Address
from derp.policy.model import Entry, Policy, Quota
from derp.wire.keys import node_public_text
from tests.support.config import make_config

KEY = bytes(range(32))
QUESTION = Question(KEY, "192.0.2.1")
ALLOW, DENY, NEITHER = Entry(allowed=True), Entry(allowed=False), Entry()


class Source:
    """Gives one answer to every question."""

    name = "tailscaled"

    def __init__(self, outcome: Outcome) -> None:
        self.verdict = Verdict(outcome, self.name, "said so")
        self.asked = 0

    async def ask(self, question: Question) -> Verdict:
        self.asked += 1
        return self.verdict


def checker(entry: Entry, *, listed: bool | None = None, source: Source | None = None) -> Checker:
    keys = {KEY if listed else bytes(32): ""}
    allowlist = None if listed is None else AllowList(Path("list"), keys)
    policy = PolicySource(Path("policy"), Policy({KEY: entry}))
    return Checker(
        Metrics(),
        Sources(policy=policy, allowlist=allowlist, tailscaleds=(source and [source]) or []),
    )


@pytest.mark.parametrize(
    ("entry", "listed", "tailscaled", "admitted", "by"),
    [
        # `deny` beats all others, and `allow` is like being on the list.
        (DENY, None, None, False, "policy"),
        (DENY, True, None, False, "policy"),
        (DENY, True, Outcome.ALLOWED, False, "policy"),
        (ALLOW, None, None, True, "policy"),
        (ALLOW, False, None, True, "policy"),
        (ALLOW, False, Outcome.REFUSED, True, "policy"),
        (ALLOW, None, Outcome.UNREACHABLE, True, "policy"),
        # With neither, all is as without a policy.
        (NEITHER, None, None, True, "policy"),
        (NEITHER, True, None, True, "file"),
        (NEITHER, False, None, False, "file"),
        (NEITHER, True, Outcome.REFUSED, True, "file"),
        (NEITHER, False, Outcome.REFUSED, False, "tailscaled"),
        (NEITHER, False, Outcome.ALLOWED, True, "tailscaled"),
        (NEITHER, None, Outcome.REFUSED, False, "tailscaled"),
    ],
)
@pytest.mark.parametrize("again", [False, True], ids=["login", "recheck"])
async def test_the_order_of_the_sources(
    entry: Entry,
    listed: bool | None,
    tailscaled: Outcome | None,
    admitted: bool,
    by: str,
    again: bool,
    nursery: trio.Nursery,
) -> None:
    source = None if tailscaled is None else Source(tailscaled)
    judge = checker(entry, listed=listed, source=source)
    judge.ask_in(nursery)
    verdict = await (judge.recheck if again else judge.admit)(QUESTION)
    assert (verdict.admitted, verdict.source) == (admitted, by)
    assert verdict.authoritative
    if source is not None and by != "tailscaled":
        assert not source.asked


async def test_a_denied_key_shows_in_the_metrics() -> None:
    judge = checker(DENY)
    assert (await judge.admit(QUESTION)).reason == "the key is denied"
    assert judge._metrics.admissions["policy", "refused"] == 1


async def test_a_policy_counts_before_what_is_remembered(nursery: trio.Nursery) -> None:
    source = Source(Outcome.ALLOWED)
    judge = checker(NEITHER, source=source)
    judge.ask_in(nursery)
    assert (await judge.admit(QUESTION)).admitted
    assert judge.sources.policy is not None
    judge.sources.policy.policy = Policy({KEY: DENY})
    assert not (await judge.admit(QUESTION)).admitted


class Full:
    """Says that each key has used a lot."""

    def used(self, key: bytes, period: str) -> int | None:
        return 10**18

    def until(self, period: str) -> str:
        return "2026-12-02"


async def test_a_key_over_quota_is_refused_once_its_bytes_are_counted() -> None:
    judge = checker(Entry(allowed=True, quota=Quota(10**18, "day", None)))
    assert (await judge.admit(QUESTION)).admitted
    assert judge.sources.policy is not None
    judge.sources.policy.usage = Full()
    verdict = await judge.admit(QUESTION)
    assert (verdict.admitted, verdict.reason) == (False, "over its quota for this day in -policy")


def test_a_file_is_read_when_it_has_changed(tmp_path: Path) -> None:
    file = tmp_path / "policy.toml"
    file.write_text("[defaults]")
    source = PolicySource(file, Policy())
    assert source.read_changed(at_once=True) is None  # the same
    file.write_text("[defaults]\ndeny = true")
    assert source.read_changed() is None  # it may be half written
    changed = source.read_changed()
    assert changed == Policy(default=DENY)
    assert source.read_changed() is None
    file.write_text("[defaults]\ndeny = 1")
    assert source.read_changed() is None
    with pytest.raises(ReloadError, match="line 2: deny: want true or false"):
        source.read_changed()
    assert source.read_changed() is None  # it is told once


def configured(folder: Path, text: str, **flags: Any) -> tuple[Any, Checker]:
    file = folder / "policy.toml"
    file.write_text(text)
    config = make_config(dev=True, a=Address("127.0.0.1", 0), policy=file, **flags)
    made = make_checker(config, Metrics())
    assert made is not None
    return config, made


def lines(caplog: pytest.LogCaptureFixture) -> dict[str, dict[str, Any]]:
    return {record.getMessage(): record.__dict__["fields"] for record in caplog.records}


ONLY_DENIED = (
    "any client may use this relay, unless -policy denies it; "
    "deny = true under [defaults] there denies all that it does not allow"
)
ANEW = (
    "the quotas count anew at each start of the relay; -accounts FILE keeps what each key has used"
)


def test_an_open_relay_with_a_policy_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    entry = f'[clients."{node_public_text(KEY)}"]\n'
    announce(*configured(tmp_path, f"{entry}deny = true"))
    said = lines(caplog)
    assert list(said) == ["policy in force", ONLY_DENIED]
    assert said["policy in force"] == {
        "entries": 1,
        "allowed": 0,
        "denied": 1,
        "by_command": None,
        "others": "as the other sources say",
    }
    caplog.clear()
    announce(*configured(tmp_path, f"[defaults]\ndeny = true\n{entry}allow = true"))
    assert list(lines(caplog)) == ["policy in force"]
    assert lines(caplog)["policy in force"]["others"] == "denied"


QUOTA = '[defaults]\nquota = "1 GB/day"\nrefuse = true'


@pytest.mark.parametrize(
    ("text", "forgets", "said"),
    [(QUOTA, True, True), (QUOTA, False, False), ("[defaults]", True, False)],
)
def test_quotas_that_count_anew_at_each_start_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str, forgets: bool, said: bool
) -> None:
    _, judge = configured(tmp_path, text)
    assert judge.sources.policy is not None
    judge.sources.policy.usage_in_memory = forgets
    judge.sources.policy.announce("new policy")
    assert (ANEW in lines(caplog)) is said


def test_beside_others_it_is_named_first(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    announce(*configured(tmp_path, "[defaults]", verify_clients=True, socket=tmp_path / "none"))
    admitted = lines(caplog)["clients are checked"]["admitted"]
    assert admitted == "allowed in -policy, or known to tailscaled"


def test_no_relay_starts_with_a_wrong_policy(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"-policy '.*policy\.toml': line 2: unknown name denied"):
        configured(tmp_path, "[defaults]\ndenied = true")
