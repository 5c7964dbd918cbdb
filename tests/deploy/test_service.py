"""The unit for a host without containers, as systemd would read it."""

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from derp.config import Config, flag_table, goflags
from derp.errors import UsageError
from derp.net.listenaddress import Address
from tests.deploy.files import QUADLET, SERVICE, SOCKET, unit

HOSTS = ("0.0.0.0", "[::]")

WORST_EXPOSURE = 2.0
"""Of 10; what systemd says is 1.4 to 1.6, depending on its version."""


def configured(environment_file: str) -> Config:
    """Expand ExecStart as systemd does, and read it as derper does."""
    settings = unit(SERVICE)
    environment: dict[str, str] = {}
    for words in (*settings["Service.Environment"], *environment_file.splitlines()):
        environment |= dict(word.split("=", 1) for word in shlex.split(words))
    (start,) = settings["Service.ExecStart"]
    arguments: list[str] = []
    for word in start.split()[1:]:
        variable = re.fullmatch(r"\$(\{)?(\w+)\}?", word)
        if variable is None:
            arguments.append(word)
        elif variable[1]:
            arguments.append(environment.get(variable[2], ""))
        else:
            arguments += environment.get(variable[2], "").split()
    table = flag_table(environment, root=False)
    return Config.from_settings(goflags.parse(table, arguments, environment).settings)


def test_the_domain_is_all_it_takes():
    config = configured("DERP_DOMAIN=derp.example.com")
    assert config.tls.hostname == "derp.example.com"
    assert config.listening.addresses == (Address("", 443),)
    assert config.serve_acme


def test_without_a_domain_it_does_not_start():
    with pytest.raises(UsageError, match="-hostname ''"):
        configured("")


def test_flags_may_be_added():
    config = configured('DERP_DOMAIN=derp.example.com\nFLAGS="-home blank -http-port -1"')
    assert config.pages.home == "blank"
    assert config.listening.http_port == -1


def test_what_it_keeps_is_where_it_may_write_and_where_a_go_derper_kept_it():
    config = configured("DERP_DOMAIN=derp.example.com")
    (state,) = unit(SERVICE)["Service.StateDirectory"]
    directory = Path("/var/lib", state)
    root_default = next(flag.default for flag in flag_table({}, root=True) if flag.name == "c")
    assert str(config.general.key_file) == root_default
    assert config.general.key_file is not None
    assert config.general.key_file.is_relative_to(directory)
    assert config.tls.certdir is not None
    assert config.tls.certdir.is_relative_to(directory)
    (chown,) = unit(SERVICE)["Service.ExecStartPre"]
    (user,) = unit(SERVICE)["Service.User"]
    assert chown.split()[-2:] == [f"{user}:{user}", str(directory)]


def test_the_program_and_the_user_are_those_that_its_head_tells_to_make():
    head = SERVICE.read_text("utf-8").split("[Unit]")[0]
    (start,) = unit(SERVICE)["Service.ExecStart"]
    program = start.split()[0]
    assert f"venv {program.removesuffix('/bin/derper')} " in head
    (user,) = unit(SERVICE)["Service.User"]
    assert re.search(rf"useradd .* {user}\n", head)
    (file,) = unit(SERVICE)["Service.EnvironmentFile"]
    assert f">{file.removeprefix('-')}\n" in head


def test_the_ports_below_1024_are_all_that_it_is_privileged_for():
    for key in ("AmbientCapabilities", "CapabilityBoundingSet"):
        assert unit(SERVICE)[f"Service.{key}"] == ["CAP_NET_BIND_SERVICE"]


@pytest.fixture
def analyze() -> str:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("there is no systemd-analyze")
    version = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    if int(version.stdout.split()[1]) < 250:
        pytest.skip("systemd-analyze is older than 250, and can't look at a file")
    return program


@pytest.mark.slow
def test_systemd_understands_it(analyze: str, tmp_path: Path):
    text = SERVICE.read_text("utf-8")
    # Whether the programs are there is not the question.
    here = re.sub(r"(?m)^(Exec\w+=\+?)\S+", r"\1/bin/sh", text)
    copy = tmp_path / SERVICE.name
    copy.write_text(here, "utf-8")
    done = subprocess.run([analyze, "verify", copy], capture_output=True, text=True, check=False)
    assert SERVICE.name not in done.stdout + done.stderr

    # It does find mistakes.
    copy.write_text(here.replace("ProtectHome=", "ProtectHouse="), "utf-8")
    done = subprocess.run([analyze, "verify", copy], capture_output=True, text=True, check=False)
    assert "ProtectHouse" in done.stdout + done.stderr


@pytest.mark.slow
def test_it_is_hardened(analyze: str):
    command = [analyze, "security", "--offline=true", "--no-pager", SERVICE]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    (exposure,) = re.findall(r"exposure level for \S+: (\d+\.\d+)", done.stdout)
    assert float(exposure) <= WORST_EXPOSURE


@pytest.fixture
def quadlet() -> Iterator[str]:
    for program in ("/usr/libexec/podman/quadlet", "/usr/lib/podman/quadlet"):
        if Path(program).exists():
            yield program
            return
    pytest.skip("there is no quadlet, which podman has from 4.4 on")


def test_podman_understands_the_quadlet(quadlet: str, tmp_path: Path):
    copy = tmp_path / QUADLET.name
    copy.write_bytes(QUADLET.read_bytes())
    command = [quadlet, "-dryrun", "-no-kmsg-log"]
    environment = {"QUADLET_UNIT_DIRS": str(tmp_path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (start,) = re.findall(r"(?m)^ExecStart=(.*)", done.stdout)
    for argument in ("--read-only", "--cap-drop all", "--network host", "no-new-privileges"):
        assert argument in start


def test_the_sockets_are_those_that_it_serves():
    settings = unit(SOCKET)
    config = configured("DERP_DOMAIN=derp.example.com")
    tcp = {
        f"{host}:{port}"
        for host in HOSTS
        for port in (config.listening.ip_addresses[0].port, config.listening.http_port)
    }
    assert set(settings["Socket.ListenStream"]) == tcp
    assert set(settings["Socket.ListenDatagram"]) == {
        f"{host}:{config.stun.port}" for host in HOSTS
    }
    # Else IPv6 sockets would be for IPv4, too, and refused.
    assert settings["Socket.BindIPv6Only"] == ["ipv6-only"]
    assert "Socket.Accept" not in settings
    assert SOCKET.stem == SERVICE.stem
