"""Sets the stage: starts all that is around the relay, then the relay, and ends it all."""

import contextlib
import random
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import trustme

from tests.chaos.piped import PipedRelay
from tests.chaos.stage import (
    DENIED,
    HOST,
    HOSTNAME,
    URL,
    Member,
    Neighbour,
    Stage,
)
from tests.interop.deviceapi import DeviceAPI
from tests.interop.issuing import issued
from tests.interop.pebble import pebble
from tests.interop.relay import Relay, TestCA, environment, free_port
from tests.interop.steppedclock import NoClockError, SteppedClock
from tests.support.deviceapis import CLIENT_ID, CLIENT_SECRET, TAILNET
from tests.support.waiting import until

WORKERS = 2
START_SECONDS = 120.0
"""How long a relay may take to start, on a machine that is busy."""
DISK = "16m"
"""The size of the relay's file system: it has room for the write-ahead log of the accounts."""
MESH_KEY = bytes(range(1, 33))
OAUTH = {"DERP_TAILNET_CLIENT_ID": CLIENT_ID, "DERP_TAILNET_CLIENT_SECRET": CLIENT_SECRET}
OURS = [sys.executable, "-m", "derp"]


@contextlib.contextmanager
def full(
    binaries: Mapping[str, Path], folder: Path, members: Sequence[Member], chance: random.Random
) -> Iterator[Stage]:
    """Set the full stage, with our relay."""
    (folder / "pebble").mkdir()
    with (
        contextlib.ExitStack() as stack,
        pebble(binaries, folder / "pebble") as authority,
    ):
        state, own = _disk(folder, stack)
        authority.names.point(HOSTNAME, HOST)
        ca = _authority(folder)
        clock = _clock(folder)
        api_port, asked = free_port(), free_port()
        api = Neighbour(
            [
                *(sys.executable, "-m", "tests.interop.deviceapi_process"),
                *("tailscale", "127.0.0.1", str(api_port)),
            ]
        )
        relay = PipedRelay(
            "relay",
            [*OURS, "-workers", str(WORKERS)],
            state,
            host=HOST,
            listen=HOST,
            hostname=HOSTNAME,
            certmode="letsencrypt",
            certdir=state / "certs",
            port=authority.tls_port,
            http_port=authority.http_port,
            prefix=clock.prefix if clock else (),
            env={**environment(SSL_CERT_FILE=str(ca.pem)), **OAUTH},
            start_timeout=START_SECONDS,
            collected=folder / "relay.log",
        )
        peer = _peer(folder, ca, OURS, f"{HOSTNAME}:{relay.port}/{HOST}")
        stage = Stage(folder, ca, chance, members, relay, peer, _admission(folder, asked))
        stage.workers, stage.clock, stage.authority = WORKERS, clock, authority
        stage.state = state if own else None
        stage.api, stage.api_process = DeviceAPI(api_port), api
        stage.trust()
        stage.write_list()
        (state / "policy.toml").write_text(_policy(members))
        (state / "policy.toml").chmod(0o600)
        relay.flags = [
            *("-acme-directory", authority.directory),
            *("-acme-ca-bundle", str(authority.bundle)),
            *("-verify-client-file", str(stage.allow_list)),
            *("-verify-tailnet", TAILNET, "-verify-tailnet-api", stage.api.url),
            *_asking(asked),
            *("-verify-remember", "2s", "-verify-again", "5s"),
            *("-policy", str(state / "policy.toml")),
            *("-accounts", str(state / "accounts")),
            *_meshed(folder, f"localhost:{peer.port}/127.0.0.1"),
        ]
        with _running(stage):
            yield stage


@contextlib.contextmanager
def plain(
    command: Sequence[str], folder: Path, members: Sequence[Member], chance: random.Random
) -> Iterator[Stage]:
    """Set the plain stage, with any relay."""
    ca, asked = _authority(folder), free_port()
    place = folder / "state"
    place.mkdir()
    ca.issue(place, "localhost")
    env = environment(SSL_CERT_FILE=str(ca.pem))
    relay = PipedRelay(
        *("relay", command, place),
        env=env,
        start_timeout=START_SECONDS,
        collected=folder / "relay.log",
    )
    peer = _peer(folder, ca, command, f"localhost:{relay.port}/127.0.0.1")
    stage = Stage(folder, ca, chance, members, relay, peer, _admission(folder, asked))
    relay.flags = [*_asking(asked), *_meshed(folder, f"localhost:{peer.port}/127.0.0.1")]
    with _running(stage):
        yield stage


@contextlib.contextmanager
def _running(stage: Stage) -> Iterator[None]:
    """Start all; at the end, kill what still runs: the session stops the relay itself."""
    allowed = [stage.members[n].node_key for n in stage.of(URL)]
    (stage.folder / "asked").write_text("\n".join(allowed))
    try:
        stage.admission.start()
        if stage.api_process is not None:
            stage.api_process.start()
            until("the API answers", lambda: _tells(stage))
        stage.relay.open_pipe()
        stage.relay.start()
        if stage.authority is not None:
            stage.relay.wait_for_log("workers share the work")
            issued(stage.relay, stage.authority)
        stage.peer.start()
        yield
    finally:
        for relay in (stage.relay, stage.peer):
            relay.kill()
        for neighbour in (stage.admission, stage.api_process):
            if neighbour is not None:
                neighbour.stop()


def _tells(stage: Stage) -> bool:
    with contextlib.suppress(OSError):
        stage.tell_api()
        return True
    return False


def _disk(folder: Path, stack: contextlib.ExitStack) -> tuple[Path, bool]:
    """Make the folder of the relay's files; say whether it is a file system of its own."""
    place = folder / "state"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "derper-chaos", str(place)]
    if subprocess.run(mount, check=False, capture_output=True, timeout=30).returncode:
        return place, False
    stack.callback(subprocess.run, ["umount", "--lazy", str(place)], check=False, timeout=30)
    return place, True


def _authority(folder: Path) -> TestCA:
    ca = TestCA(trustme.CA(key_type=trustme.KeyType.ECDSA), folder / "ca.pem")
    ca.ca.cert_pem.write_to_path(ca.pem)
    (folder / "trusted.pem").write_bytes(ca.ca.cert_pem.bytes())
    (folder / "mesh.key").write_text(MESH_KEY.hex())
    (folder / "mesh.key").chmod(0o600)
    return ca


def _clock(folder: Path) -> SteppedClock | None:
    try:
        return SteppedClock.make(folder)
    except NoClockError as error:
        print(f"no clock is stepped: {error}", flush=True)
        return None


def _admission(folder: Path, port: int) -> Neighbour:
    return Neighbour(
        [sys.executable, "-m", "tests.chaos.admission", str(port), str(folder / "asked")]
    )


def _asking(port: int) -> list[str]:
    url = f"http://127.0.0.1:{port}/verify"
    return ["-verify-client-url", url, "-verify-client-url-fail-open=false"]


def _meshed(folder: Path, other: str) -> list[str]:
    return ["-mesh-psk-file", str(folder / "mesh.key"), "-mesh-with", other]


def _peer(folder: Path, ca: TestCA, command: Sequence[str], other: str) -> Relay:
    """A relay of the same mesh, which admits everybody."""
    place = folder / "peer"
    place.mkdir()
    ca.issue(place, "localhost")
    env = environment(SSL_CERT_FILE=str(folder / "trusted.pem"))
    flags = _meshed(folder, other)
    return Relay("peer", command, place, env=env, flags=flags, start_timeout=START_SECONDS)


def _policy(members: Sequence[Member]) -> str:
    denied = (member.node_key for member in members if member.group == DENIED)
    return "".join(f'[clients."{key}"]\ndeny = true\n\n' for key in denied)
