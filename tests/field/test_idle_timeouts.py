"""A connection on which nothing but keep-alives moves outlives the idle timeouts of proxies.

That a default is longer than the time between keep-alives is reckoned; that the setting in
deploy/proxies/ is the one which counts is seen, with a second in its place. `-m patient` waits for
the defaults.
"""

import contextlib
import ssl
from pathlib import Path

import pytest

from derp.session.timers import KEEP_ALIVE as KEEP_ALIVE_EVERY
from derp.session.timers import KEEP_ALIVE_JITTER, TICK
from tests.field.proxies import KINDS, Kind, Proxy, running, usual_idle
from tests.interop.rawderp import Key, Wire, client_info
from tests.interop.relay import Relay, TestCA
from tests.support.derp import KEEP_ALIVE, SERVER_INFO, SERVER_KEY, UPGRADE, upgrade_request

SLOT = 1.0
"""Seconds: the timers' wheel rounds up to whole ones."""
LONGEST = KEEP_ALIVE_EVERY + KEEP_ALIVE_JITTER + SLOT + TICK
ON_THE_WAY = 2.0
"""Seconds that a keep-alive may take to the proxy."""

LIMITED = [kind for kind in KINDS if kind.usual_idle]


def log_in(proxy: Proxy, ca: TestCA, name: str) -> Wire:
    """A client that is logged in, and has read all that came."""
    context = ssl.create_default_context(cafile=str(ca.pem))
    wire = Wire.connect(("127.0.0.1", proxy.port), context)
    wire.send(upgrade_request(*UPGRADE))
    assert wire.take_response().status == 101
    kind, payload = wire.take_frame()
    assert kind == SERVER_KEY
    wire.send(client_info(Key.named(name), {"version": 2}, payload[-32:]))
    kind, _ = wire.take_frame()
    assert kind == SERVER_INFO
    return wire


@pytest.mark.parametrize("kind", LIMITED, ids=lambda kind: kind.name)
def test_keep_alives_come_in_time(kind: Kind) -> None:
    idle = usual_idle(kind)
    assert idle is not None
    assert idle > LONGEST + ON_THE_WAY


@pytest.mark.parametrize("kind", LIMITED, ids=lambda kind: kind.name)
def test_which_setting_counts(
    kind: Kind, relays: dict[str, Relay], test_ca: TestCA, tmp_path: Path
) -> None:
    """With a second in place of the default, the silent client is cut off before a keep-alive."""
    relay = relays["tls" if kind.passes_tls else "plain"]
    with running(kind, tmp_path / "proxy", test_ca, relay, idle=1) as proxy:
        wire = log_in(proxy, test_ca, f"silent behind {kind.name}")
        assert wire.rest(KEEP_ALIVE_EVERY) == b""
        wire.close()


@pytest.mark.patient
def test_minutes_without_a_packet(
    relays: dict[str, Relay], test_ca: TestCA, tmp_path: Path
) -> None:
    """Behind all proxies at once, with their usual timeouts: three keep-alives, and still there."""
    with contextlib.ExitStack() as stack:
        wires = {}
        for number, kind in enumerate(kind for kind in KINDS if not kind.absent()):
            relay = relays["tls" if kind.passes_tls else "plain"]
            folder, idle = tmp_path / f"{number}", usual_idle(kind)
            proxy = stack.enter_context(running(kind, folder, test_ca, relay, idle=idle))
            wires[kind.name] = log_in(proxy, test_ca, f"idle behind {kind.name}")
            stack.callback(wires[kind.name].close)
        assert wires, "no proxy is installed"
        came = {}
        for name, wire in wires.items():
            came[name] = [wire.take_frame(2 * LONGEST) for _ in range(3)]
        assert came == dict.fromkeys(wires, [(KEEP_ALIVE, b"")] * 3)
