"""What the relay may do in its container, and how little it makes do with."""

import re

import pytest

from tests.container.contents import HIGH_PORTS, SELF_SIGNED, certificate
from tests.container.podman import HTTPS, STUN, Container, Dock, File, node_of
from tests.interop.relay import TestCA, free_port

USER = 65532
CAPABILITIES = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
DAC_OVERRIDE, NET_BIND_SERVICE, NET_ADMIN = 1 << 1, 1 << 10, 1 << 12
"""Bits of capabilities(7)."""
TO_BECOME_NOBODY = ("NET_BIND_SERVICE", "SETGID", "SETPCAP", "SETUID")
NAME = "derp.example.com"

KEY_IS_NOT_KEPT = (
    "^entrypoint: /app/certs can't be written to, so the node key is in no volume "
    ".*: mount one at /var/lib/derper$"
)
UNWRITABLE = ("--read-only", "--read-only-tmpfs=false")


def ids(container: Container) -> tuple[set[str], set[str]]:
    """Real, effective, saved and file system user; the same of the group."""
    status = container.process()
    return set(status["Uid"].split()), set(status["Gid"].split())


def capabilities(container: Container) -> set[int]:
    """Those that it has, can get, can pass on and can have ever."""
    status = container.process()
    return {int(status[name], 16) for name in CAPABILITIES}


def high_ports() -> dict[str, int]:
    """Where the ports of a relay with HIGH_PORTS are published."""
    return {"8443": free_port(), "8080": free_port(), STUN: free_port()}


def check_unprivileged(relay: Container) -> None:
    relay.serves()
    assert ids(relay) == ({str(USER)}, {str(USER)})
    assert relay.process()["Groups"] == ""
    assert capabilities(relay) == {NET_BIND_SERVICE}
    assert relay.process()["NoNewPrivs"] == "1"


@pytest.mark.parametrize(
    "options",
    [(), UNWRITABLE, ("--security-opt=no-new-privileges",)],
    ids=["default", "read-only", "no-new-privileges"],
)
def test_it_is_nobody(dock: Dock, options: tuple[str, ...]) -> None:
    """It binds 443 and 80, and that is all it may do more than anybody."""
    relay = dock.start(*options, **SELF_SIGNED)
    check_unprivileged(relay)
    dock.talk(relay, node_of(relay))
    assert relay.get("/generate_204")[0] == 204
    dock.stun(relay)
    assert relay.healthy(), relay.health()
    assert "entrypoint" not in relay.log
    assert relay.stop() == 0


def test_what_it_writes_is_its_own(dock: Dock) -> None:
    """And for nobody else, in a volume that was root's."""
    certs = dock.volume({"left": File(b"")})
    relay = dock.start(f"--volume={certs}:/app/certs", **SELF_SIGNED)
    relay.serves()
    files = dock.contents(certs)
    assert files.keys() > {"left"}
    assert {file.owner for file in files.values()} == {USER}
    assert files["derper+key"].mode == 0o600
    assert files["127.0.0.1.key"].mode == 0o600


def test_what_is_somebodys_stays_so(dock: Dock) -> None:
    """What root brought along is handed over, for the group that it was for."""
    before = {
        "theirs": File(b"1", 1000, 0o640, group=1001),
        "roots": File(b"2", 0, 0o640, group=1001),
        "for all": File(b"3", 1000, 0o644, group=0),
    }
    certs = dock.volume(before)
    ended = dock.once("true", options=[f"--volume={certs}:/app/certs"], **SELF_SIGNED)
    assert ended.returncode == 0, ended.stderr
    after = dock.contents(certs)
    after.pop(".", None)
    assert after == {**before, "roots": File(b"2", USER, 0o640, group=1001)}
    (line,) = ended.stderr.splitlines()
    assert line.startswith("entrypoint: /app/certs/theirs is not readable by the user 65532, ")


@pytest.mark.parametrize("owner", [0, USER], ids=["root's", "its own"])
def test_no_more_capabilities_than_it_takes(dock: Dock, owner: int) -> None:
    """To become nobody, and to hand over what is not his yet."""
    needed = [*TO_BECOME_NOBODY, *(["CHOWN", "DAC_OVERRIDE"] if owner == 0 else [])]
    certs = dock.volume({}, owner=owner, mode=0o700)
    options = ["--cap-drop=all", *(f"--cap-add={name}" for name in needed)]
    check_unprivileged(
        dock.start(*options, *UNWRITABLE, f"--volume={certs}:/app/certs", **SELF_SIGNED)
    )
    assert "derper+key" in dock.contents(certs)


MESH = {
    "DERP_MESH_WITH": "derp2.example.com",
    "DERP_MESH_PSK_FILE": "/keys/psk",
    "DERP_MESH_FWMARK": "0x51",
}


def test_a_mark_keeps_one_capability_more(dock: Dock) -> None:
    keys = f"--volume={dock.volume({'psk': File(b'0123' * 16, USER)})}:/keys"
    relay = dock.start("--cap-add=NET_ADMIN", keys, **SELF_SIGNED, **MESH)
    relay.serves()
    assert capabilities(relay) == {NET_BIND_SERVICE | NET_ADMIN}
    assert ids(relay) == ({str(USER)}, {str(USER)})
    assert relay.stop() == 0
    ended = dock.once(options=[keys], **SELF_SIGNED, **MESH)
    assert ended.returncode == 1
    assert "-mesh-fwmark 0x51: not permitted; give derper the capability" in ended.stderr


def test_root_that_can_become_nobody_else(dock: Dock) -> None:
    """Without a capability it stays who it is, says so, and serves where it may."""
    certs = f"--volume={dock.volume({})}:/app/certs"
    relay = dock.start("--cap-drop=all", certs, at=high_ports(), **SELF_SIGNED, **HIGH_PORTS)
    relay.wait_for_log("what=HTTPS")
    relay.wait_for_log("^entrypoint: runs as root: .*--user$")
    assert capabilities(relay) == {0}


def test_root_with_no_right_but_to_ports(dock: Dock) -> None:
    """It serves from a new volume; from one that is the user's by then, it says what it lacks."""
    volume = f"--volume={dock.volume()}:/app/certs"
    options = ["--cap-drop=all", "--cap-add=NET_BIND_SERVICE", volume]
    first = dock.start(*options, **SELF_SIGNED)
    identity = first.identity()
    assert capabilities(first) == {0, NET_BIND_SERVICE}
    assert first.stop() == 0
    second = dock.start(volume, **SELF_SIGNED)
    check_unprivileged(second)
    assert second.identity() == identity
    assert second.stop() == 0
    ended = dock.once(options=options, **SELF_SIGNED)
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert re.search("^entrypoint: /app/certs.* SETUID, SETGID and SETPCAP,", line)


def test_root_that_can_hand_over_nothing(dock: Dock) -> None:
    """It ends, and says at last what it lacks."""
    certs = f"--volume={dock.volume({}, mode=0o700)}:/app/certs"
    options = ["--cap-drop=all", *(f"--cap-add={name}" for name in TO_BECOME_NOBODY), certs]
    ended = dock.once(options=options, **SELF_SIGNED)
    assert ended.returncode == 1
    line = ended.stderr.splitlines()[-1]
    assert re.search("^entrypoint: /app/certs.* CHOWN and DAC_OVERRIDE$", line)


@pytest.mark.parametrize("user", [1000, USER])
def test_another_user(dock: Dock, user: int) -> None:
    """Without any capability, on high ports, with a volume of its own."""
    certs = dock.volume({}, owner=user, mode=0o700)
    relay = dock.start(
        *(f"--user={user}:{user}", "--cap-drop=all", *UNWRITABLE, f"--volume={certs}:/app/certs"),
        at=high_ports(),
        **SELF_SIGNED,
        **HIGH_PORTS,
    )
    relay.wait_for_log("what=HTTPS")
    relay = relay.seen_at(HTTPS, "8443")
    relay.serves()
    assert ids(relay) == ({str(user)}, {str(user)})
    assert capabilities(relay) == {0}
    dock.talk(relay, node_of(relay))
    assert relay.healthy(), relay.health()
    assert "derper+key" in dock.contents(certs)
    assert relay.stop() == 0


@pytest.mark.parametrize("user", [1000, USER])
def test_a_new_volume_is_for_any_user(dock: Dock, user: int) -> None:
    """Who needs nothing from root."""
    certs = dock.volume()
    relay = dock.start(
        *(f"--user={user}:{user}", "--cap-drop=all", *UNWRITABLE, f"--volume={certs}:/app/certs"),
        at=high_ports(),
        **SELF_SIGNED,
        **HIGH_PORTS,
    )
    relay.wait_for_log("what=HTTPS")
    assert "derper+key" in dock.contents(certs)


def test_another_user_on_the_usual_ports(dock: Dock) -> None:
    """Which it may bind where the kernel lets everybody, as docker has it do."""
    certs = dock.volume({}, owner=1000)
    relay = dock.start(
        *("--user=1000:1000", "--sysctl=net.ipv4.ip_unprivileged_port_start=0"),
        f"--volume={certs}:/app/certs",
        **SELF_SIGNED,
    )
    relay.serves()
    assert ids(relay) == ({"1000"}, {"1000"})
    dock.talk(relay, node_of(relay))


def test_another_user_without_the_right_to_a_port(dock: Dock) -> None:
    certs = dock.volume({}, owner=1000)
    ended = dock.once(
        options=[
            *("--user=1000:1000", "--cap-drop=all", f"--volume={certs}:/app/certs"),
            "--sysctl=net.ipv4.ip_unprivileged_port_start=1024",
        ],
        **SELF_SIGNED,
    )
    assert ended.returncode == 1
    assert len(complaints(ended.stderr)) == 1, ended.stderr
    assert ":443" in complaints(ended.stderr)[0]


def test_another_user_without_the_right_to_the_volume(dock: Dock) -> None:
    certs = dock.volume({}, mode=0o700)
    ended = dock.once(
        options=["--user=1000:1000", f"--volume={certs}:/app/certs"],
        **SELF_SIGNED,
        **HIGH_PORTS,
    )
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].startswith("derper: /app/certs")


def test_rights_are_not_had_by_closing_what_is_its_own(dock: Dock) -> None:
    """A relay that was taken over leaves this for the next start."""
    certs = dock.volume({"left": File(b"", USER, mode=0), "apart/left": File(b"", USER, mode=0)})
    close = ["sh", "-c", "chmod 0 /app/certs/apart"]
    dock.once(*close, options=["--entrypoint=", f"--user={USER}", f"--volume={certs}:/app/certs"])
    relay = dock.start(f"--volume={certs}:/app/certs", **SELF_SIGNED)
    check_unprivileged(relay)
    assert "entrypoint" not in relay.log


SWAPS = """
import ctypes, itertools, os
os.chdir("/certs")
exchange = ctypes.CDLL(None).renameat2
pairs = [(f"{a}/{b}", f"{a}/link{b}") for a in range(20) for b in range(50)]
for _, link in pairs:
    os.symlink("/outside", link)
print("ready", flush=True)
for one, other in itertools.cycle([(a.encode(), b.encode()) for a, b in pairs]):
    exchange(-100, one, -100, other, 2)
"""
"""Directories become links to another volume and directories again, as fast as can be."""
STARTS = "for a in $(seq 0 19); do DERP_CERT_DIR=/certs/$a /app/entrypoint true || exit; done"


def test_what_is_swapped_at_the_right_moment_is_not_given(dock: Dock) -> None:
    """By a process of the user in another container, to which the same volume belongs."""
    secrets = [f"{a}/{b}/secret" for a in range(20) for b in range(50)]
    certs = dock.volume(dict.fromkeys(secrets, File(b"")), owner=USER)
    outside = dock.volume({"secret": File(b"")})
    opened = dock.once(
        *("sh", "-c", "chown derper /certs/*"),
        options=["--entrypoint=", f"--volume={certs}:/certs"],
    )
    assert opened.returncode == 0, opened.stderr
    swapper = dock.start(
        *("--entrypoint=/app/venv/bin/python", f"--user={USER}", f"--volume={certs}:/certs"),
        command=["-c", SWAPS],
        at={},
    )
    swapper.wait_for_log("ready")
    ended = dock.once(
        *("sh", "-c", STARTS),
        options=["--entrypoint=", f"--volume={certs}:/certs", f"--volume={outside}:/outside"],
    )
    assert ended.returncode == 0, ended.stderr
    assert swapper.running, swapper.log
    swapper.remove()
    assert dock.contents(outside)["secret"].owner == 0
    owners = {file.owner for name, file in dock.contents(certs).items() if "/secret" in name}
    assert USER in owners


def complaints(said: str) -> list[str]:
    """The lines that are none of the log."""
    return [line for line in said.splitlines() if not line.startswith("time=")]


def test_a_read_only_folder_that_is_roots(dock: Dock, test_ca: TestCA) -> None:
    """It may then read what is not its own, and says what would be better."""
    certs = dock.volume(certificate(test_ca, NAME), mode=0o700)
    relay = dock.start(f"--volume={certs}:/app/certs:ro", DERP_DOMAIN=NAME, DERP_CERT_MODE="manual")
    relay.serves(NAME)
    assert ids(relay) == ({str(USER)}, {str(USER)})
    assert capabilities(relay) == {NET_BIND_SERVICE | DAC_OVERRIDE}
    relay.wait_for_log("^entrypoint: /app/certs.* is not readable .* DAC_OVERRIDE")
    relay.wait_for_log(KEY_IS_NOT_KEPT)
    dock.talk(relay, node_of(relay), trust=test_ca.pem)
    assert relay.healthy(), relay.health()
    assert {file.owner for file in dock.contents(certs).values()} == {0}


def test_a_read_only_folder_that_it_can_read(dock: Dock, test_ca: TestCA) -> None:
    """Then it needs nothing more."""
    certs = dock.volume(certificate(test_ca, NAME, owner=USER))
    relay = dock.start(f"--volume={certs}:/app/certs:ro", DERP_DOMAIN=NAME, DERP_CERT_MODE="manual")
    relay.serves(NAME)
    assert capabilities(relay) == {NET_BIND_SERVICE}
    assert "DAC_OVERRIDE" not in relay.log
    relay.wait_for_log(KEY_IS_NOT_KEPT)


def test_only_the_first_process_is_there(dock: Dock) -> None:
    """No shell is left between the engine's signals and the relay."""
    relay = dock.start(**SELF_SIGNED)
    relay.serves()
    listed = relay.podman.do("top", relay.name, "pid", "comm").splitlines()[1:]
    assert [line.split() for line in listed] == [["1", "derper"]]
