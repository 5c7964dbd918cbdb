"""Each variable's effect, seen from outside."""

import re
import shlex
import socket
from pathlib import Path

import attrs
import pytest

from tests.container.clients import admitted
from tests.container.contents import SELF_SIGNED, certificate, key_file
from tests.container.podman import HTTP, HTTPS, STUN, Container, Dock, File
from tests.interop.issuing import UNRECOGNIZED_NAME
from tests.interop.oracle import KNOWN, oracle, whois_of
from tests.interop.rawderp import Key
from tests.interop.relay import REPO, TestCA, free_port
from tests.support.waiting import until

NAME = "derp.example.com"
USER = 65532
MEMBER, STRANGER = Key.named("member"), Key.named("stranger")


def test_domain_that_was_not_given(dock: Dock) -> None:
    """It says what is missing, in the operator's own terms, and serves nothing."""
    ended = dock.once()
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert line.startswith("derper: DERP_DOMAIN=your-hostname.com: ")
    assert not ended.stdout


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("DERP_DOMAIN", "https://derp.example.com"),
        ("DERP_CERT_MODE", "letsencript"),
        ("DERP_ADDR", "443"),
        ("DERP_STUN", "on"),
        ("DERP_STUN_PORT", "65536"),
        ("DERP_HTTP_PORT", "eighty"),
        ("DERP_VERIFY_CLIENTS", "yes"),
        ("DERP_VERIFY_CLIENT_URL", "headscale.example.com/verify"),
        ("DERP_VERIFY_REMEMBER", "30"),
        ("DERP_ACME_EMAIL", "me"),
    ],
)
def test_a_variable_that_is_mistyped(dock: Dock, variable: str, value: str) -> None:
    ended = dock.once(**{"DERP_DOMAIN": NAME, variable: value})
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"derper: {variable}")


def test_domain_certificate_mode_and_folder(dock: Dock, test_ca: TestCA) -> None:
    """The certificate of that name is read in that folder; for another name there is none."""
    certs = dock.volume(certificate(test_ca, NAME))
    relay = dock.start(
        f"--volume={certs}:/own/certs",
        DERP_DOMAIN=NAME,
        DERP_CERT_MODE="manual",
        DERP_CERT_DIR="/own/certs",
    )
    relay.serves(NAME)
    other = relay.shake("other.example.com")
    assert other
    assert other.alert == UNRECOGNIZED_NAME
    assert "derper+key" in dock.contents(certs)


def test_address(dock: Dock) -> None:
    """HTTPS at another port, if the mode is manual."""
    relay = dock.start(
        at={HTTPS: free_port(), "8443": free_port()}, **SELF_SIGNED, DERP_ADDR=":8443"
    )
    relay.seen_at(HTTPS, "8443").serves()
    assert relay.shake() is None


def test_address_without_tls(dock: Dock) -> None:
    """Plain HTTP at another port than 443, if the mode is another: for a proxy in front of it."""
    relay = dock.start(at={"8080": free_port()}, DERP_DOMAIN=NAME, DERP_ADDR=":8080")
    assert relay.get("/derp/probe", "8080")[0] == 200


def test_http_port(dock: Dock) -> None:
    relay = dock.start(
        at={HTTPS: free_port(), HTTP: free_port(), "8080": free_port()},
        **SELF_SIGNED,
        DERP_HTTP_PORT="8080",
    )
    relay.serves()
    assert relay.get("/generate_204", "8080")[0] == 204
    assert hangs_up(relay, HTTP)


def test_no_http_port(dock: Dock) -> None:
    relay = dock.start(**SELF_SIGNED, DERP_HTTP_PORT="-1")
    relay.serves()
    assert hangs_up(relay, HTTP)


def hangs_up(relay: Container, port: str) -> bool:
    """Nobody is there. A forwarding process may have accepted the connection before it knew."""
    try:
        sock = relay.dial(port)
    except ConnectionRefusedError:
        return True
    with sock:
        return not sock.recv(1)


def test_stun_port(dock: Dock) -> None:
    port = free_port(socket.SOCK_DGRAM)
    relay = dock.start(
        at={HTTPS: free_port(), STUN: free_port(socket.SOCK_DGRAM), "5349/udp": port},
        **SELF_SIGNED,
        DERP_STUN_PORT="5349",
    )
    relay.serves()
    dock.stun(attrs.evolve(relay, ports={STUN: port}))
    until("UDP 3478 is refused", lambda: refuses(relay))


def test_no_stun(dock: Dock) -> None:
    relay = dock.start(**SELF_SIGNED, DERP_STUN="false")
    relay.serves()
    until("UDP 3478 is refused", lambda: refuses(relay))


def refuses(relay: Container) -> bool:
    """Whether the kernel says that nobody is at the port of STUN."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(1)
        sock.connect(("127.0.0.1", relay.ports[STUN]))
        sock.send(b"?")
        try:
            sock.recv(1)
        except ConnectionRefusedError:
            return True
        except TimeoutError:
            return False
    raise AssertionError("somebody answers")


def test_tailscaled_is_missing(dock: Dock) -> None:
    """Nobody gets in while it can't be asked, and the log says why."""
    relay = dock.start(**SELF_SIGNED, DERP_VERIFY_CLIENTS="true")
    assert not admitted(relay, MEMBER)
    relay.wait_for_log("/var/run/tailscale/tailscaled.sock")


def test_tailscaled(dock: Dock, tmp_path: Path) -> None:
    """Its folder is mounted, so that it is found again when it was started again."""
    folder = tmp_path / "tailscale"
    folder.mkdir()
    (folder / "tailscaled.sock").symlink_to("oracle.sock")
    mount = f"--volume={folder}:/var/run/tailscale"
    for_ever = {"DERP_VERIFY_REMEMBER": "0s"}
    with oracle(folder) as tailscaled:
        folder.chmod(0o755)
        tailscaled.socket.chmod(0o666)  # as tailscaled does
        tailscaled.say({whois_of(MEMBER): KNOWN})
        relay = dock.start(mount, **SELF_SIGNED, **for_ever, DERP_VERIFY_CLIENTS="true")
        assert admitted(relay, MEMBER)
        assert not admitted(relay, STRANGER)
    tailscaled.socket.unlink()
    assert not admitted(relay, MEMBER)
    with oracle(folder) as tailscaled:
        tailscaled.socket.chmod(0o666)
        tailscaled.say({whois_of(MEMBER): KNOWN})
        assert admitted(relay, MEMBER)


def test_an_admission_url(dock: Dock, tmp_path: Path) -> None:
    """On the same host, and in its network."""
    with oracle(tmp_path) as server:
        server.admit(MEMBER)
        at = {HTTPS: free_port()}
        relay = dock.start(
            "--network=host",
            at=at,
            **SELF_SIGNED,
            DERP_ADDR=f"127.0.0.1:{at[HTTPS]}",
            DERP_HTTP_PORT="-1",
            DERP_STUN="false",
            DERP_VERIFY_CLIENT_URL=server.url,
        )
        assert admitted(relay, MEMBER)
        assert not admitted(relay, STRANGER)
        assert {name for name, _, _ in server.asked().questions} == {
            f"url:{key.public.hex()}" for key in (MEMBER, STRANGER)
        }


def test_debug_pages(dock: Dock) -> None:
    """Closed to who comes through the container's network, unless with the key; open inside."""
    keys = dock.volume({"debug": File(b"open sesame\n", USER)})
    relay = dock.start(f"--volume={keys}:/own:ro", **SELF_SIGNED, DERP_DEBUG_KEY_FILE="/own/debug")
    assert relay.get("/debug/varz")[0] == 403
    assert relay.get("/debug/varz?debugkey=open+sesame")[0] == 200
    readme = (REPO / "README.md").read_text()
    (inside,) = re.findall(r"`docker exec derper (python3 [^`]*)`", readme)
    asked = relay.run(*shlex.split(inside))
    assert "derper debug" in asked.stdout, asked


def test_a_list_of_keys(dock: Dock) -> None:
    """Mounted into the container; who is not listed stays outside."""
    listed = f"nodekey:{MEMBER.public.hex()}   member\n".encode()
    keys = dock.volume({"keys": File(listed, mode=0o644)})
    relay = dock.start(
        f"--volume={keys}:/own:ro", **SELF_SIGNED, DERP_VERIFY_CLIENT_FILE="/own/keys"
    )
    assert admitted(relay, MEMBER)
    assert not admitted(relay, STRANGER)


@pytest.mark.parametrize("owner", [0, USER])
def test_key_file(dock: Dock, owner: int) -> None:
    """Wherever it is, as a secret for example; then there is no other."""
    key = Key.named("a relay that was here before")
    secret = dock.volume({"derper": File(key_file(key), owner, 0o400)})
    certs = dock.volume()
    relay = dock.start(
        *(f"--volume={secret}:/run/secrets:ro", f"--volume={certs}:/app/certs"),
        **SELF_SIGNED,
        DERP_KEY_FILE="/run/secrets/derper",
    )
    assert relay.identity() == key.public.hex()
    assert "derper+key" not in dock.contents(certs)


def test_key_file_in_a_folder_of_its_own(dock: Dock) -> None:
    """Of root's, into which it is made at the first start."""
    keys = dock.volume({}, mode=0o700)
    relay = dock.start(
        f"--volume={keys}:/own/keys", **SELF_SIGNED, DERP_KEY_FILE="/own/keys/relay.key"
    )
    relay.serves()
    made = dock.contents(keys)["relay.key"]
    assert (made.owner, made.mode) == (USER, 0o600)


def test_accounts_are_kept_beside_the_key(dock: Dock) -> None:
    """And printed by the command in the container, whoever runs it there."""
    certs = dock.volume()
    relay = dock.start(f"--volume={certs}:/app/certs", **SELF_SIGNED)
    relay.serves()
    printed = relay.run("derper", "accounts", "-csv")
    assert printed.stdout.startswith("key,sent,received,"), printed.stderr
    assert relay.stop() == 0
    made = dock.contents(certs)
    assert (made["derper+accounts"].owner, made["derper+accounts"].mode) == (USER, 0o600)
    assert not {"derper+accounts-wal", "derper+accounts-shm"} & made.keys()


def test_accounts_at_a_state_directory_of_its_own(dock: Dock) -> None:
    certs, state = dock.volume(), dock.volume()
    volumes = [f"--volume={certs}:/app/certs", f"--volume={state}:/var/lib/derper"]
    relay = dock.start(*volumes, **SELF_SIGNED)
    relay.serves()
    assert relay.stop() == 0
    assert "derper.accounts" in dock.contents(state)
    assert "derper+accounts" not in dock.contents(certs)


def test_accounts_elsewhere(dock: Dock) -> None:
    place, certs = dock.volume({}, mode=0o700), dock.volume()
    volumes = [f"--volume={place}:/own/place", f"--volume={certs}:/app/certs"]
    relay = dock.start(*volumes, **SELF_SIGNED, DERP_ACCOUNTS_FILE="/own/place/accounts")
    relay.serves()
    assert relay.stop() == 0
    assert dock.contents(place)["accounts"].owner == USER
    assert "derper+accounts" not in dock.contents(certs)


def test_no_accounts(dock: Dock) -> None:
    certs = dock.volume()
    relay = dock.start(f"--volume={certs}:/app/certs", **SELF_SIGNED, DERP_ACCOUNTS_FILE="")
    relay.serves()
    assert relay.stop() == 0
    assert not [name for name in dock.contents(certs) if "accounts" in name]


def test_a_key_file_for_everybody(dock: Dock) -> None:
    secret = dock.volume({"derper": File(key_file(MEMBER), mode=0o444)})
    ended = dock.once(
        options=[f"--volume={secret}:/run/secrets:ro"],
        **SELF_SIGNED,
        DERP_KEY_FILE="/run/secrets/derper",
    )
    assert ended.returncode == 1, ended.stderr
    (line,) = ended.stderr.splitlines()
    assert "/run/secrets/derper" in line


@pytest.mark.parametrize("folder", ["certs", ".", "/"])
def test_a_folder_that_can_be_none(dock: Dock, folder: str) -> None:
    """Nothing is handed over then."""
    ended = dock.once(DERP_DOMAIN=NAME, DERP_CERT_DIR=folder)
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"entrypoint: DERP_CERT_DIR={folder}: ")


def test_workers(dock: Dock) -> None:
    """All are nobody, and together they are one relay, which stops in time."""
    relay = dock.start("--read-only", "--tmpfs=/tmp", DERP_WORKERS="2", **SELF_SIGNED)
    relay.wait_for_log('"workers share the work" workers=2')
    chain = relay.serves().chain
    assert all(relay.serves().chain == chain for _ in range(8))
    dock.stun(relay)
    assert relay.healthy(), relay.health()
    # Not of those who look, who are root.
    look = "for each in /proc/[0-9]*; do grep -aq '[d]erp' $each/cmdline && grep ^Uid: $each/status"
    users = relay.run("sh", "-c", f"{look}; done").stdout.split()
    assert users == ["Uid:", *[str(USER)] * 4] * 3
    assert relay.stop() == 0
    assert relay.log.count("msg=stopped") == 3


def test_what_is_given_as_a_flag_counts_more(dock: Dock) -> None:
    relay = dock.start(
        at={"8443": free_port()}, command=["-a", ":8443"], **SELF_SIGNED, DERP_ADDR=":443"
    )
    relay.seen_at(HTTPS, "8443").serves()
