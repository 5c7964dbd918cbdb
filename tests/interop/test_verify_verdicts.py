"""Who may use the relay: the Go derper's verdicts and ours, on the same answers, with all flags."""

import json
import socket
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import product
from pathlib import Path

import attrs
import pytest

from tests.interop.logins import ADMITTED, REFUSED, UNDECIDED, verdict
from tests.interop.oracle import Oracle, oracle, reply, url_of, whois_of
from tests.interop.oracle_process import Steps
from tests.interop.rawderp import SERVER, Key
from tests.interop.relay import Relay, write_key_file
from tests.interop.said import BY_TAILSCALED, BY_URL, ELSEWHERE

PATIENCE = 7.0
"""Seconds: whoever knows no verdict by then does not mean to."""

BOTH = [
    (tailscaled, url)
    for tailscaled in ("known", "unknown", "closes", "rubbish")
    for url in ("yes", "no", "500", "closes", "only null", "302 Found to yes", "302 to itself")
]


@contextmanager
def nobody_listens() -> Iterator[int]:
    """A port that refuses connections."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


@attrs.frozen
class Setting:
    """Flags, and who comes."""

    name: str
    flags: Sequence[str]
    keys: Mapping[str, Key]
    """By what is said about them."""


def key_of(*said: str) -> Key:
    return Key.named(f"one about whom is said: {said}")


def settings(oracle: Oracle, closed: int) -> Iterator[Setting]:
    """Every combination of flags that matters, each with everything that may then be said."""
    missing = oracle.socket.with_name("missing")
    tailscaleds = {
        "no tailscaled": [],
        "tailscaled": ["-verify-clients", "-socket", str(oracle.socket)],
        "tailscaled is down": ["-verify-clients", "-socket", str(missing)],
    }
    urls = {
        "no URL": [],
        "a URL": ["-verify-client-url", oracle.url],
        "the URL is down": ["-verify-client-url", f"http://127.0.0.1:{closed}/admit"],
    }
    fails = {
        "by default": [],
        "fail open": ["-verify-client-url-fail-open=true"],
        "fail closed": ["-verify-client-url-fail-open=false"],
    }
    for (one, asked), (other, url), (how, fail) in product(
        tailscaleds.items(), urls.items(), fails.items()
    ):
        if not fail or (url and (how == "fail closed" or not asked)):
            yield Setting(f"{one}, {other}, {how}", [*asked, *url, *fail], who_comes(one, other))


def who_comes(tailscaled: str, url: str) -> Mapping[str, Key]:
    match tailscaled, url:
        case "tailscaled", "a URL":
            return {f"{one} / {other}": key_of(one, other) for one, other in BOTH}
        case "tailscaled", _:
            return {said: key_of(said, "") for said in BY_TAILSCALED}
        case _, "a URL":
            return {said: key_of("", said) for said in BY_URL}
    return {"anyone": Key.named("anyone")}


def what_is_said() -> Mapping[str, Steps]:
    """To the oracle, about all of them."""
    told = dict(ELSEWHERE)
    person = f"nodekey:{key_of('too old to know', '').public.hex()}"
    told["/localapi/v0/status"] = [reply(json.dumps({"Peer": {person: {"HostName": "x"}}}))]
    for said, steps in BY_URL.items():
        told[url_of(key_of("", said))] = steps
    for said, steps in BY_TAILSCALED.items():
        told[whois_of(key_of(said, ""))] = steps
    for one, other in BOTH:
        told[whois_of(key_of(one, other))] = BY_TAILSCALED[one]
        told[url_of(key_of(one, other))] = BY_URL[other]
    return told


@attrs.frozen
class Played:
    """A derper that runs with the flags of a setting."""

    setting: Setting
    relay: Relay

    def verdicts(self) -> Mapping[str, str]:
        """One after the other: beside others, some of this looks like too much to do."""
        return {
            said: verdict(self.relay, key, patience=PATIENCE)
            for said, key in self.setting.keys.items()
        }


def launch(command: Sequence[str], folder: Path, setting: Setting, stack: ExitStack) -> Played:
    folder.mkdir()
    write_key_file(folder / "derper.key", SERVER.private)
    relay = Relay("relay", command, folder, tls=False, flags=setting.flags)
    stack.callback(relay.kill)
    relay.launch()
    return Played(setting, relay)


DIFFERS = {
    # What is said: the Go derper's verdict, ours, and why.
    "deep": (ADMITTED, REFUSED, "a verdict with more than a thousand lists in each other is none"),
    "zipped": (
        ADMITTED,
        REFUSED,
        "an answer that is zipped, though we don't ask for that, is none",
    ),
    "null": (ADMITTED, REFUSED, "a tailscaled that says null knows nobody"),
    "half a head": (UNDECIDED, REFUSED, "a tailscaled that hangs holds no login open"),
    "too old to know": (
        REFUSED,
        ADMITTED,
        "a tailscaled too old for whois is asked for its status",
    ),
}


@pytest.mark.patient
def test_verdicts(
    binaries: dict[str, Path],
    under_test: list[str],
    is_go: bool,
    tmp_path: Path,
    differences: list[str],
) -> None:
    with oracle(tmp_path) as told, nobody_listens() as closed, ExitStack() as stack:
        told.say(what_is_said())
        commands = {"theirs": [str(binaries["derper"])], "ours": under_test}
        played = [
            launch(command, tmp_path / f"{whose} {number}", setting, stack)
            for whose, command in commands.items()
            for number, setting in enumerate(settings(told, closed))
        ]
        for one in played:
            one.relay.wait_until_it_accepts()
        with ThreadPoolExecutor(len(played)) as pool:
            found = list(pool.map(Played.verdicts, played))
    half = len(played) // 2
    wrong = []
    seen = set()
    for one, theirs, ours in zip(played[:half], found[:half], found[half:], strict=True):
        for said, their in theirs.items():
            expected = their
            if not is_go and said in DIFFERS and their == DIFFERS[said][0]:
                # The one that they refuse and we don't must still pass the URL.
                if DIFFERS[said][1] == REFUSED or ADMITTED in theirs.values():
                    expected = DIFFERS[said][1]
                seen.add(said)
            if ours[said] != expected:
                wrong.append(f"{one.setting.name}: {said}: {their}, ours {ours[said]}")
    assert not wrong, "\n".join(wrong)
    assert is_go or seen == set(DIFFERS), "no longer different"
    differences += [f"verify: {DIFFERS[said][2]}" for said in sorted(seen)]
