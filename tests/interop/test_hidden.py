"""A relay that hides, `-home hidden`, and the programs that have to find it all the same."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.interop.netns import skip_unless_possible
from tests.interop.relay import Relay, TestCA, environment, running
from tests.interop.tailnet import BLOB_SIZE, REGION, Tailnet, eventually, tailnet
from tests.interop.test_derphttp import CHECKS
from tests.interop.test_derpprobe import PROBES, derpprobe

OURS = [sys.executable, "-m", "derp"]
HIDDEN = ("-home", "hidden")
NOT_HIDDEN = {
    "http/home": "nobody but a person asks for that",
    "http/latency-check": "GET /derp/probe is what no client asks",
    "login/metacert": "it has none, and costs clients a round trip instead",
    "login/websocket-upgrade-without-subprotocol": "of clients only the first ones asked so",
}
"""Checks that ask what clients don't, or for what a hidden relay does without."""


@pytest.fixture(scope="module")
def relays(test_ca: TestCA, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Relay]]:
    """Hidden relays: with TLS and STUN, without TLS, and one with an address and a pin."""
    made = {}
    for name in ("tls", "plain", "pinned"):
        folder = tmp_path_factory.mktemp(name)
        hostname = "127.0.0.1" if name == "pinned" else "localhost"
        if name == "tls":
            test_ca.issue(folder, hostname)
        tls, stun = name != "plain", name == "tls"
        made[name] = Relay(name, OURS, folder, tls=tls, stun=stun, hostname=hostname, flags=HIDDEN)
    with running(made["tls"]), running(made["plain"]), running(made["pinned"]):
        yield made


@pytest.mark.parametrize("check", sorted(set(CHECKS) - NOT_HIDDEN.keys()))
def test_tailscales_client_finds_it(
    check: str, relays: dict[str, Relay], binaries: dict[str, Path], test_ca: TestCA
) -> None:
    tls, plain, pinned = relays["tls"], relays["plain"], relays["pinned"]
    node = json.loads(pinned.wait_for_log(r"\{[^{}]*sha256-raw:[^{}]*\}")[0])
    command = [binaries["derpcheck"], "run", "-tls", tls.url, "-plain", plain.url]
    command += ["-pinned", json.dumps({**node, "DERPPort": pinned.port})]
    command += ["-http", f"http://127.0.0.1:{tls.http_port}"]
    command += ["-stun", f"127.0.0.1:{tls.stun_port}", check]
    done = subprocess.run(
        command,
        env=environment(SSL_CERT_FILE=str(test_ca.pem)),
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.stdout, done.stderr
    result = json.loads(done.stdout)
    assert result["ok"], result["detail"]


def test_derpprobe_finds_all_good(
    binaries: dict[str, Path], test_ca: TestCA, relays: dict[str, Relay], tmp_path: Path
) -> None:
    good, bad, output = derpprobe(binaries["derpprobe"], test_ca, relays["tls"], tmp_path)
    assert not bad, output
    assert good == PROBES, output


def report(net: Tailnet) -> dict[str, object]:
    """What netcheck finds from alice."""
    text = net.alice.tailscale("netcheck", "--format=json").stdout
    found: dict[str, object] = json.loads(text[text.index("{") :])
    return found


@pytest.mark.parametrize("flags", [(), ("-workers", "2")], ids=["alone", "with workers"])
def test_a_tailnet_goes_through_it(
    flags: Sequence[str], binaries: dict[str, Path], test_ca: TestCA, tmp_path: Path
) -> None:
    skip_unless_possible("no real tailscaled here")
    with tailnet([*OURS, *HIDDEN, *flags], binaries, test_ca, tmp_path) as net:
        eventually("a ping comes back", 60, lambda: net.alice.ping(net.bob) is not None)
        assert f"via DERP({REGION})" in str(net.alice.ping(net.bob))
        fetched = net.fetch()
        assert (fetched["error"], fetched["bytes"]) == ("", BLOB_SIZE)
        assert fetched["sha256"] == net.checksum
        assert report(net)["PreferredDERP"] == 900


def test_where_udp_is_blocked_it_is_measured_by_https(
    binaries: dict[str, Path], test_ca: TestCA, tmp_path: Path
) -> None:
    skip_unless_possible("no real tailscaled here")
    elsewhere = ("-stun-addr", "127.0.0.9")
    with tailnet([*OURS, *HIDDEN, *elsewhere], binaries, test_ca, tmp_path, blob_size=1) as net:
        found = report(net)
        assert not found["UDP"], found
        assert re.fullmatch(r"\{'900': \d+\}", str(found["RegionLatency"])), found
