"""Two relays of one kind as one mesh, both on the server's core.

Each dials the other, with a key that both have, and checks the certificate of the other: it is the
one that all relays here share, and SSL_CERT_FILE makes it one to be trusted. The mesh is up when
each has the other among those who watch its clients, by its own account.
"""

import contextlib
import secrets
import socket
import ssl
import time
import urllib.request
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from bench.servers import HOST, BenchError, Program, Running, free_port, last_line, running

CERTIFICATE = Path("certs") / f"{HOST}.crt"
FORWARDED_OUT = "derp_packets_forwarded_out"
FORWARDED_IN = "derp_packets_forwarded_in"
WATCHERS = "derp_watchers"
MESH_SECONDS = 20.0
"""The Go derper dials again after 5 s, and the first of the two always has to."""


@contextlib.contextmanager
def meshed(program: Program, cores: Collection[int], work: Path) -> Iterator[list[Running]]:
    """Start two relays, wait until the mesh is up, and stop them at the end."""
    if not (work / "certs").exists():
        with running(program, cores, work) as [first]:
            # Once it has shown its certificate there is one to share.
            ssl.get_server_certificate((HOST, int(first.address.rpartition(":")[2])), timeout=20)
    key = work / "mesh.key"
    key.touch(0o600)
    key.write_text(secrets.token_hex(32))
    ports = [free_port(socket.SOCK_STREAM) for _ in range(2)]
    with contextlib.ExitStack() as both:
        relays: list[Running] = []
        for port, other in zip(ports, reversed(ports), strict=True):
            flags = ["-mesh-psk-file", str(key), "-mesh-with", f"{HOST}:{other}/{HOST}"]
            variables = {"SSL_CERT_FILE": str(work / CERTIFICATE)}
            relay = running(program, cores, work, port=port, more=flags, variables=variables)
            relays += both.enter_context(relay)
        deadline = time.monotonic() + MESH_SECONDS
        trusted = ssl.create_default_context(cafile=work / CERTIFICATE)
        while any(counter[WATCHERS] != 1 for counter in counters(relays, trusted)):
            if time.monotonic() > deadline:
                said = "; ".join(last_line(relay.log) for relay in relays)
                raise BenchError(f"{program.name}: no mesh after {MESH_SECONDS:.0f} s: {said}")
            time.sleep(0.05)
        yield relays


def counters(relays: Sequence[Running], trusted: ssl.SSLContext) -> list[dict[str, float]]:
    """Ask each relay for those of its own counters that have no labels."""
    found = []
    for relay in relays:
        url = f"https://{relay.address}/debug/varz"
        with urllib.request.urlopen(url, timeout=20, context=trusted) as page:
            lines = page.read().decode().splitlines()
        pairs = (line.split() for line in lines if not line.startswith("#") and "{" not in line)
        found.append({name: float(value) for name, value in pairs})
    return found


def faults(
    result: Mapping[str, float], first: Mapping[str, float], second: Mapping[str, float]
) -> list[str]:
    """Return what forbids to count a load: packets that took another way than the mesh's, once.

    What was lost may have been lost before either relay has counted it, or behind both.
    """
    sent, arrived = result["all_sent"], result["all_received"]
    wanted = (
        ("the first relay", "out", first[FORWARDED_OUT], arrived, sent),
        ("the second relay", "in", second[FORWARDED_IN], arrived, sent),
        ("the first relay", "in", first[FORWARDED_IN], 0, 0),
        ("the second relay", "out", second[FORWARDED_OUT], 0, 0),
    )
    return [
        f"{who} has forwarded {count:.0f} packets {way}, "
        + (f"of {sent} sent, {arrived} arrived" if most else "and should have none")
        for who, way, count, least, most in wanted
        if not least <= count <= most
    ]
