"""-verify-tailnet: the relay and Tailscale's own client of its API get the same from our stub."""

import json
import re
import stat
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from tests.interop import golang
from tests.interop.deviceapi import DeviceAPI, device_api
from tests.interop.logins import ADMITTED, REFUSED, log_in, pass_packet, verdict, wait_for_end
from tests.interop.rawderp import SERVER, Key, SilentError, Wire
from tests.interop.relay import Relay, environment, free_port, running, write_key_file
from tests.interop.tailnet import eventually
from tests.support.derp import RECV_PACKET, SEND_PACKET, frame
from tests.support.deviceapis import (
    API_KEY,
    CLIENT_ID,
    CLIENT_SECRET,
    HEADSCALE_KEY,
    TAILNET,
    device,
    node,
)

ALICE, BOB, CAROL, MALLORY = map(Key.named, ("alice", "bob", "carol", "mallory"))
TWO_MINUTES = 120.0
OAUTH = {"DERP_TAILNET_CLIENT_ID": CLIENT_ID, "DERP_TAILNET_CLIENT_SECRET": CLIENT_SECRET}


@pytest.fixture
def api(tmp_path: Path) -> Iterator[DeviceAPI]:
    with device_api(tmp_path) as started:
        yield started


@pytest.fixture(scope="session")
def apicheck() -> Path:
    return golang.build(golang.API)["apicheck"]


def check(apicheck: Path, api: DeviceAPI, *flags: str) -> dict[str, object]:
    """What Tailscale's client makes of the stub."""
    done = subprocess.run(
        [apicheck, "-url", api.url, *flags],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env=environment(),
    )
    return json.loads(done.stdout)


@contextmanager
def asking(
    command: list[str], folder: Path, api: DeviceAPI, *flags: str, **variables: str
) -> Iterator[Relay]:
    write_key_file(folder / "derper.key", SERVER.private)
    flags = ("-verify-tailnet", TAILNET, "-verify-tailnet-api", api.url, *flags)
    env = environment(**(variables or OAUTH))
    with running(Relay("relay", command, folder, tls=False, flags=flags, env=env)) as relay:
        yield relay
        for secret in (CLIENT_SECRET, API_KEY, HEADSCALE_KEY, "tskey-api-kToken"):
            assert secret not in relay.log


@pytest.fixture(autouse=True)
def _ours(is_go: bool) -> None:
    if is_go:
        pytest.skip("the Go derper can't ask Tailscale's API")


class TestTheStub:
    """What it is held to: the client that Tailscale ships understands all of it."""

    @pytest.mark.parametrize(
        "credential", [("-id", CLIENT_ID, "-secret", CLIENT_SECRET), ("-key", API_KEY)]
    )
    def test_lists_devices(
        self, apicheck: Path, api: DeviceAPI, credential: tuple[str, ...]
    ) -> None:
        devices = [
            device(ALICE.public, tags=["tag:relay"]),
            device(BOB.public, keyExpiryDisabled=True, expires="0001-01-01T00:00:00Z"),
            device(CAROL.public, authorized=False, created="", tailnetLockError="not signed"),
        ]
        api.say(devices=devices)
        for tailnet in (TAILNET, "-"):
            said = check(apicheck, api, "-tailnet", tailnet, "-times", "3", *credential)
            assert (said["Error"], said["Status"]) == ("", 0)
            assert said["Devices"] == [
                {
                    "NodeKey": each["nodeKey"],
                    "Authorized": each["authorized"],
                    "KeyExpiryDisabled": each["keyExpiryDisabled"],
                    "Expires": each["expires"],
                    "Tags": each["tags"],
                    "TailnetLockError": each["tailnetLockError"],
                }
                for each in devices
            ]
        lists = [line for line in api.asked() if line.startswith("GET ")]
        path = "GET /api/v2/tailnet/{}/devices"
        assert lists == [path.format(TAILNET)] * 3 + [path.format("-")] * 3

    def test_refuses(self, apicheck: Path, api: DeviceAPI) -> None:
        said = check(apicheck, api, "-key", "wrong")
        assert (said["Status"], said["Devices"]) == (401, [])
        said = check(apicheck, api, "-key", API_KEY, "-tailnet", "other.com")
        assert (said["Status"], said["Error"]) == (404, "tailnet not found (404)")
        said = check(apicheck, api, "-id", CLIENT_ID, "-secret", "wrong")
        assert "401" in str(said["Error"])
        api.say(may_read=False)
        assert check(apicheck, api, "-key", API_KEY)["Status"] == 403


@pytest.mark.parametrize("workers", ["1", "2"])
def test_devices_talk_and_a_stranger_does_not(
    under_test: list[str], api: DeviceAPI, tmp_path: Path, workers: str
) -> None:
    api.list(ALICE, BOB)
    flags = ["-workers", workers, "-verify-again", "0"]
    with asking(under_test, tmp_path, api, *flags) as relay, ExitStack() as stack:
        alice, bob = (stack.enter_context(closing(log_in(relay, key))) for key in (ALICE, BOB))
        pass_packet(alice, ALICE, bob, BOB)
        assert verdict(relay, MALLORY) == REFUSED
        relay.wait_for_log(
            rf"nodekey:{MALLORY.public.hex()} is refused by tailnet:example.com: not among the "
            "devices that it lists"
        )
        # A device that is new is looked for at once, and one that is gone goes by itself.
        api.list(ALICE, CAROL)
        assert verdict(relay, CAROL) == ADMITTED
        wait_for_end(bob, TWO_MINUTES)
        relay.wait_for_log("no longer admitted by tailnet:example.com")
        assert verdict(relay, BOB) == REFUSED
        pass_packet(alice, ALICE, alice, ALICE)


def test_the_api_goes_away_and_the_relay_is_restarted(
    under_test: list[str], tmp_path: Path
) -> None:
    port = free_port()
    with device_api(tmp_path, port=port) as api:
        api.list(ALICE)
        with asking(under_test, tmp_path, api) as relay:
            assert verdict(relay, ALICE) == ADMITTED
            kept = tmp_path / "devices-tailnet_example.com"
            eventually("the list is kept", 30, kept.exists)
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert re.fullmatch(
        r"# derper devices 1 of tailnet:example.com, listed at \d+\n"
        rf"nodekey:{ALICE.public.hex()} 2001041045\n",
        kept.read_text(),
    )
    with asking(under_test, tmp_path, api) as relay:
        relay.wait_for_log(r"can't list devices, so the last list counts.*Connection refused")
        assert verdict(relay, ALICE) == ADMITTED
        assert verdict(relay, BOB) == REFUSED
        with device_api(tmp_path, port=port) as back:
            back.list(BOB)
            relay.wait_for_log("devices are listed again")
            assert verdict(relay, BOB) == ADMITTED
            assert verdict(relay, ALICE) == REFUSED
    kept.write_text("something of the operator's\n")
    with device_api(tmp_path, port=port) as back:
        back.list(BOB)
        with asking(under_test, tmp_path, back) as relay:
            relay.wait_for_log(r"the kept list of devices is not used.*not written by derper")
            assert verdict(relay, BOB) == ADMITTED


def test_without_a_list_nobody_is_in(under_test: list[str], api: DeviceAPI, tmp_path: Path) -> None:
    api.list(ALICE)
    api.refuse(401)
    secret = tmp_path / "secret"
    secret.write_text(f"{CLIENT_SECRET}\n")
    secret.chmod(0o600)
    flags = ["-tailnet-client-id", CLIENT_ID, "-tailnet-client-secret-file", str(secret)]
    with asking(under_test, tmp_path, api, *flags, PYTHONUNBUFFERED="1") as relay:
        assert verdict(relay, ALICE) == REFUSED
        relay.wait_for_log(
            "can't list devices, so no client is admitted.*HTTP status 401: the OAuth client is "
            r"refused; check -tailnet-client-id and -tailnet-client-secret-file \("
        )
        api.say(refuse=None)
        eventually("it is in", 60, lambda: verdict(relay, ALICE) == ADMITTED)


def test_the_api_wants_no_requests_for_a_time(
    under_test: list[str], api: DeviceAPI, tmp_path: Path
) -> None:
    api.refuse(429, Retry_After="600")
    with asking(under_test, tmp_path, api, DERP_TAILNET_API_KEY=API_KEY) as relay:
        relay.wait_for_log("HTTP status 429: too many requests")
        for number in range(20):
            assert verdict(relay, Key.named(f"a stranger {number}")) == REFUSED
        assert len(api.asked()) == 1


def test_tags_and_many_devices(under_test: list[str], api: DeviceAPI, tmp_path: Path) -> None:
    """Ten thousand, in an answer of many MiB, cost little memory, and delay no packet for long."""
    crowd = [device(number.to_bytes(32, "big"), tags=["tag:a"]) for number in range(10_000)]
    api.say(devices=[*crowd, device(ALICE.public, tags=["tag:a"]), device(BOB.public)])
    with (
        asking(under_test, tmp_path, api, "-verify-tailnet-tags", "tag:a") as relay,
        closing(log_in(relay, ALICE)) as alice,
    ):
        assert verdict(relay, BOB) == REFUSED
        relay.wait_for_log(r"new list of devices.*devices=10001")
        assert relay.peak_memory() < 100_000
        pass_packet(alice, ALICE, alice, ALICE)


def test_a_client_stays_while_nothing_changes(
    under_test: list[str], api: DeviceAPI, tmp_path: Path
) -> None:
    api.list(ALICE)
    flags = ["-verify-again", "100ms", "-verify-remember", "0"]
    with asking(under_test, tmp_path, api, *flags) as relay, closing(log_in(relay, ALICE)) as alice:
        api.refuse(500)
        with pytest.raises(SilentError):
            wait_for_end(alice, 2.0)
        assert len(api.asked()) == 2


@pytest.mark.parametrize("workers", ["1", "3"])
def test_two_tailnets_are_kept_apart(under_test: list[str], tmp_path: Path, workers: str) -> None:
    """By the lists of two APIs; whoever is in both is in the first."""
    ours, theirs, both = ([Key.named(f"{of} {n}") for n in range(4)] for of in ("a", "b", "ab"))
    with device_api(tmp_path) as api, device_api(tmp_path, "headscale") as other:
        api.list(*ours, *both)
        other.say(nodes=[{"nodeKey": node(key.public), "expiry": None} for key in theirs + both])
        flags = ["-isolate", "-workers", workers, "-verify-headscale", other.url]
        variables = {**OAUTH, "DERP_HEADSCALE_API_KEY": HEADSCALE_KEY}
        with (
            asking(under_test, tmp_path, api, *flags, **variables) as relay,
            ExitStack() as stack,
        ):
            wires = {
                key: stack.enter_context(closing(log_in(relay, key)))
                for key in (*ours, *theirs, *both)
            }
            first = ours[0]
            for key in (*ours[1:], *both):
                eventually("it is known to all", 30, lambda k=key: passes(wires, first, k))
            for one, other_key in ((theirs[0], theirs[1]), (theirs[1], theirs[3])):
                eventually("so is this", 30, lambda a=one, b=other_key: passes(wires, a, b))
            for key in theirs:
                assert not passes(wires, first, key)
                assert not passes(wires, key, first)
                assert not passes(wires, key, both[0])
            relay.wait_for_log(r"msg=joined.*source=tailnet:example.com")
            relay.wait_for_log(rf"msg=joined.*source=headscale:127.0.0.1:{other.port}")
            assert verdict(relay, MALLORY) == REFUSED
            relay.wait_for_log("is refused by tailnet:example.com, headscale:127.0.0.1")


def passes(wires: dict[Key, Wire], sender: Key, receiver: Key) -> bool:
    """Whether a packet comes through soon."""
    wires[sender].send(frame(SEND_PACKET, receiver.public + b"hello"))
    try:
        return wires[receiver].take_frame(0.3) == (RECV_PACKET, sender.public + b"hello")
    except SilentError:
        return False
