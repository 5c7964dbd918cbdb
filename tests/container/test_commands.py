"""What may be said after the image's name: flags, commands, and what derper-docker's users say."""

import json
import re
import signal
import time
from pathlib import Path

import pytest

from tests.container.contents import SELF_SIGNED
from tests.container.images import COMMAND
from tests.container.podman import Container, Dock, node_of
from tests.support.waiting import until

FLAGS = [
    *("--hostname=127.0.0.1", "--certmode=manual", "--certdir=/app/certs", "--a=:443"),
    *("--stun=true", "--stun-port=3478", "--http-port=80", "--verify-clients=false"),
    "--verify-client-url=",
]
AS_A_SCRIPT = " ".join(COMMAND.split())
"""What derper-docker's image says itself."""


@pytest.mark.parametrize(
    "command", [["-version"], ["derper", "-version"], ["/app/derper", "-version"]]
)
def test_version(dock: Dock, command: list[str]) -> None:
    told = dock.once(*command)
    assert told.returncode == 0
    assert re.match(r"\d+\.\d+\.\d+ \(trio-derper, ", told.stdout)
    assert not told.stderr


@pytest.mark.parametrize(
    "command", [["derpmap"], ["derper", "derpmap"], ["/app/derper", "derpmap"]]
)
def test_derpmap_beforehand(dock: Dock, command: list[str]) -> None:
    """For the policy file, before the relay has ever run; the certificate is an authority's."""
    told = dock.once(*command, DERP_DOMAIN="derp.example.com")
    assert told.returncode == 0, told.stderr
    (region,) = json.loads(f"{{{told.stdout}}}")["derpMap"]["Regions"].values()
    assert region["Nodes"][0]["HostName"] == "derp.example.com"


def test_derpmap_in_a_container_that_runs(dock: Dock) -> None:
    """With the pin; as the user, and as root, who `exec` is unless told otherwise."""
    relay = dock.start(**SELF_SIGNED)
    relay.serves()
    as_root = node_of(relay)
    assert as_root["CertName"].startswith("sha256-raw:")
    as_user = dock.podman.do("exec", "--user=65532", relay.name, "/app/derper", "derpmap")
    assert as_root["CertName"] in as_user
    # The relay has printed the same.
    relay.wait_for_log(as_root["CertName"])


def test_healthcheck(dock: Dock) -> None:
    """By itself it finds nothing to ask."""
    told = dock.once("healthcheck", **SELF_SIGNED)
    assert told.returncode == 1
    assert told.stderr.startswith("derper: unhealthy: ")


@pytest.mark.parametrize(
    ("command", "variables"),
    [
        (FLAGS, {}),
        (["/app/derper", *FLAGS], {}),
        (["derper", *FLAGS], {}),
        (["sh", "-c", f"exec {AS_A_SCRIPT}"], SELF_SIGNED),
    ],
    ids=["flags", "path and flags", "name and flags", "script"],
)
def test_flags_in_place_of_variables(
    dock: Dock, command: list[str], variables: dict[str, str]
) -> None:
    """As compose files for derper-docker have it; it is still nobody, and its key is kept.

    The health check knows nothing but what the relay was told.
    """
    certs = dock.volume()
    relay = dock.start(f"--volume={certs}:/app/certs", command=command, **variables)
    relay.serves()
    assert relay.process()["Uid"].split()[0] == "65532"
    assert "derper+key" in dock.contents(certs)
    assert relay.healthy(), relay.health()
    assert relay.stop() == 0


def test_folders_in_flags(dock: Dock) -> None:
    """They may be root's, as those of the variables."""
    data = dock.volume({}, mode=0o700)
    flags = ["-hostname=127.0.0.1", "-certmode", "manual", "-certdir", "/data"]
    flags += ["-c", "/data/derper.key"]
    relay = dock.start(f"--volume={data}:/data", command=["/app/derper", *flags])
    relay.serves()
    assert relay.process()["Uid"].split()[0] == "65532"
    files = dock.contents(data)
    found = {name for name in files if not name.startswith((".", "derper+accounts"))}
    assert found == {"derper.key", "127.0.0.1.crt", "127.0.0.1.key"}
    assert {file.owner for file in files.values()} == {65532}


@pytest.mark.parametrize(
    ("options", "command", "variables"),
    [
        ((), (), {}),
        (("--read-only", "--volume=CERTS:/app/certs"), (), {}),
        (("--volume=CERTS:/var/lib/derper",), (), {}),
        (("--volume=CERTS:/keys",), (), {"DERP_KEY_FILE": "/keys/relay.key"}),
        (("--volume=CERTS:/keys",), ("-c", "/keys/relay.key"), {}),
        (
            ("--user=1000", "--sysctl=net.ipv4.ip_unprivileged_port_start=0"),
            (),
            {},
        ),
        ((), ("-workers", "2"), {}),
    ],
    ids=["plain", "read-only", "state", "key", "key by flag", "user", "workers"],
)
def test_the_commands_find_the_relay_wherever_its_key_is(
    dock: Dock, options: tuple[str, ...], command: tuple[str, ...], variables: dict[str, str]
) -> None:
    certs = dock.volume()
    relay = dock.start(
        *(option.replace("CERTS", certs) for option in options),
        command=command,
        **SELF_SIGNED,
        **variables,
    )
    relay.serves()
    assert relay.run("derper", "clients").stdout == "no client is connected\n"
    told = relay.run("derper", "deny", f"nodekey:{'ab' * 32}")
    assert "is denied (0 connections ended) until the relay stops" in told.stdout, told.stderr
    assert relay.stop() == 0


POLICY_AND_TOKEN = (
    "umask 077; echo [defaults] >/app/certs/policy.toml",
    "umask 077; head -c 32 /dev/urandom | base64 >/app/certs/admin.token",
)
"""As the README has it."""


def test_a_policy_and_a_token_that_outlive_the_container(dock: Dock) -> None:
    """Made by root in a relay that runs, for the next one, which is nobody."""
    readme = (Path(__file__).resolve().parents[2] / "README.md").read_text("utf-8")
    assert all(f"sh -c '{script}'\n" in readme for script in POLICY_AND_TOKEN)
    certs = dock.volume()
    first = dock.start(f"--volume={certs}:/app/certs", **SELF_SIGNED)
    first.serves()
    for script in POLICY_AND_TOKEN:
        done = first.run("sh", "-c", script)
        assert done.returncode == 0, done.stderr
    assert first.stop() == 0
    paths = {
        "DERP_POLICY_FILE": "/app/certs/policy.toml",
        "DERP_ADMIN_TOKEN_FILE": "/app/certs/admin.token",
    }
    relay = dock.start(f"--volume={certs}:/app/certs", **SELF_SIGNED, **paths)
    relay.serves()
    told = relay.run("derper", "deny", f"nodekey:{'ab' * 32}")
    assert "which stands in /app/certs/policy.toml now" in told.stdout, [told.stdout, told.stderr]
    ask = "from urllib.request import *; print(urlopen('http://127.0.0.1/debug/').read().decode())"
    assert 'data-buttons="yes"' in relay.run("python3", "-c", ask).stdout


@pytest.mark.parametrize("seconds", [0, 0.05, 0.1, 0.3])
def test_a_stop_before_it_is_up(dock: Dock, seconds: float) -> None:
    """Be it the entrypoint or Python that is starting, it ends by itself."""
    relay = dock.start(**SELF_SIGNED)
    # The kernel drops a signal to a first process that neither handles nor blocks it.
    until("the first process blocks TERM", lambda: blocks_term(relay))
    time.sleep(seconds)
    # After ten seconds it would have been killed, which makes 137.
    assert relay.stop() in {0, 143}, relay.log


def blocks_term(relay: Container) -> bool:
    pid = relay.podman.inspect(relay.name)["State"]["Pid"]
    status = Path(f"/proc/{pid}/status").read_text()
    blocked = int(re.findall(r"^SigBlk:\s*(\w+)$", status, re.MULTILINE)[0], 16)
    handled = int(re.findall(r"^SigCgt:\s*(\w+)$", status, re.MULTILINE)[0], 16)
    return bool((blocked | handled) >> (signal.SIGTERM - 1) & 1)


def test_with_a_shell_before_it(dock: Dock) -> None:
    """Without `exec` the shell stays, as in derper-docker's image; all but the signal works."""
    relay = dock.start(command=["sh", "-c", f"{AS_A_SCRIPT}; true"], **SELF_SIGNED)
    relay.serves()
    dock.talk(relay, node_of(relay))
    assert relay.healthy(), relay.health()


def test_another_program(dock: Dock) -> None:
    """Whatever it is, it is nobody's."""
    told = dock.once("sh", "-c", "id -u; id -g; pwd")
    assert told.stdout.split() == ["65532", "65532", "/app"]
    assert told.returncode == 0
    assert dock.once("sh", "-c", "exit 7").returncode == 7
    assert dock.once("no-such-program").returncode == 127


def test_another_program_is_told_to_stop(dock: Dock) -> None:
    """The image blocks SIGTERM for derper's sake only."""
    script = "trap 'exit 3' TERM; echo ready; while :; do sleep 0.1; done"
    relay = dock.start(command=["sh", "-c", script])
    relay.wait_for_log("^ready$")
    assert relay.stop() == 3


@pytest.mark.parametrize("command", [["-certmod=manual"], ["derper", "derpmop"]])
def test_mistyped(dock: Dock, command: list[str]) -> None:
    ended = dock.once(*command, **SELF_SIGNED)
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert command[-1].split("=")[0] in line
