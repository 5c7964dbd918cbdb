"""Several admission servers, a list, and what the operator says to each of them."""

from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest

from tests.interop.logins import ADMITTED, REFUSED, verdict
from tests.interop.oracle import ALLOW, REFUSE, Oracle, oracle, reply, url_of, whois_of
from tests.interop.oracle_process import Steps
from tests.interop.rawderp import SERVER, Key
from tests.interop.relay import Relay, running, write_key_file
from tests.interop.said import BY_TAILSCALED, BY_URL, ELSEWHERE, leads

SECRET = "Bearer of good news"

ANSWERS: dict[str, Steps] = {
    "yes": ALLOW,
    "no": REFUSE,
    "500": BY_URL["500"],
    "closes": BY_URL["closes"],
    "slowly yes": [("wait", 0.3), *ALLOW],
    "slowly no": [("wait", 0.3), *REFUSE],
}


@pytest.fixture(autouse=True)
def _ours(is_go: bool) -> None:
    if is_go:
        pytest.skip("the Go derper has one URL, and no list")


@pytest.fixture
def two(tmp_path: Path) -> Iterator[tuple[Oracle, Oracle]]:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    with oracle(tmp_path / "one") as one, oracle(tmp_path / "other") as other:
        yield one, other


@pytest.mark.parametrize("fail_open", [True, False])
def test_either_may_say_yes(
    two: tuple[Oracle, Oracle], under_test: list[str], tmp_path: Path, fail_open: bool
) -> None:
    """And where neither does, one that can't be asked counts as the operator says."""

    def wanted(one: str, other: str) -> str:
        if "yes" in one or "yes" in other or (fail_open and "closes" in (one, other)):
            return ADMITTED
        return REFUSED

    pairs = list(product(ANSWERS, repeat=2))
    keys = [Key.named(f"{number} of those about whom two speak") for number in range(len(pairs))]
    for number, asked in enumerate(two):
        said = zip(keys, pairs, strict=True)
        asked.say({url_of(key): ANSWERS[pair[number]] for key, pair in said})
    write_key_file(tmp_path / "derper.key", SERVER.private)
    flags = [flag for asked in two for flag in ("-verify-client-url", asked.url)]
    flags.append(f"-verify-client-url-fail-open={str(fail_open).lower()}")
    with running(Relay("relay", under_test, tmp_path, tls=False, flags=flags)) as relay:
        # One after the other: beside others, some of this looks like too much to do.
        got = [verdict(relay, key) for key in keys]
    wrong = [(pair, one) for pair, one in zip(pairs, got, strict=True) if one != wanted(*pair)]
    assert not wrong


def test_the_list_comes_first(
    two: tuple[Oracle, Oracle], under_test: list[str], tmp_path: Path
) -> None:
    """Who is in it is in; of the rest tailscaled must know each, and a URL allow it."""
    server = two[0]
    cases = {
        # In the list; what tailscaled says; what the URL says.
        (True, "unknown", "no"): ADMITTED,
        (True, "closes", "closes"): ADMITTED,
        (False, "known", "yes"): ADMITTED,
        (False, "known", "no"): REFUSED,
        (False, "known", "closes"): ADMITTED,
        (False, "unknown", "yes"): REFUSED,
        (False, "closes", "yes"): REFUSED,
    }
    keys = {case: Key.named(f"{case}") for case in cases}
    for (_, local, said), key in keys.items():
        server.say({whois_of(key): BY_TAILSCALED[local], url_of(key): BY_URL[said]})
    server.say({"/localapi/v0/status": [reply('{"BackendState":"Running"}')]})
    listed = tmp_path / "listed"
    listed.write_text("".join(f"nodekey:{keys[c].public.hex()}\n" for c in cases if c[0]))
    write_key_file(tmp_path / "derper.key", SERVER.private)
    flags = ["-verify-clients", "-socket", str(server.socket), "-verify-client-url", server.url]
    flags += ["-verify-client-file", str(listed)]
    with running(Relay("relay", under_test, tmp_path, tls=False, flags=flags)) as relay:
        assert {case: verdict(relay, key) for case, key in keys.items()} == cases


def test_authorization(two: tuple[Oracle, Oracle], under_test: list[str], tmp_path: Path) -> None:
    """It is sent, also to where a redirect leads on the same server, and to no other."""
    one, other = two
    stays, leaves = Key.named("redirected"), Key.named("redirected to another server")
    one.say({**ELSEWHERE, url_of(stays): leads("/yes", "307 Temporary")})
    one.say({url_of(leaves): leads(f"http://localhost:{other.port}/yes", "307 Temporary")})
    other.say(ELSEWHERE)
    write_key_file(tmp_path / "derper.key", SERVER.private)
    flags = ["-verify-client-url", one.url, "-verify-client-url-fail-open=false"]
    flags += ["-verify-client-url-authorization", SECRET]
    with running(Relay("relay", under_test, tmp_path, tls=False, flags=flags)) as relay:
        assert verdict(relay, stays) == verdict(relay, leaves) == ADMITTED
        assert SECRET not in relay.log
    assert one.asked().questions == [
        (url_of(stays), "POST", SECRET),
        ("/yes", "POST", SECRET),
        (url_of(leaves), "POST", SECRET),
    ]
    assert other.asked().questions == [("/yes", "POST", "")]
