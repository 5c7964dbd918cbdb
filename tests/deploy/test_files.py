"""deploy/ names only what there is: variables, flags, paths, ports, users, exit codes."""

import re
from pathlib import Path

import pytest

from derp.cli import healthcheck, main
from derp.config import flag_table
from derp.config.checks import TAILSCALED_SOCKET
from derp.service.drain import FLUSH_SECONDS
from derp.wire.control import STEERING
from derp.workers.pool import STOP_TIMEOUT
from tests.deploy.files import (
    COMPOSE,
    DEPLOY,
    QUADLET,
    SERVICE,
    Image,
    commented,
    compose,
    seconds,
    unit,
)

ALL = sorted(
    path for path in DEPLOY.iterdir() if path.suffix in {".service", ".container", ".yaml"}
)
CONTAINERS = (QUADLET, COMPOSE)
WEIGHT = 100
"""CPUWeight= of a unit that has none."""

FILES = pytest.mark.parametrize("path", ALL, ids=lambda path: path.name)


def container(path: Path, key: str, compose_key: str) -> list[str]:
    """Look a setting up in the quadlet or in the compose file."""
    if path == QUADLET:
        return unit(QUADLET)[f"Container.{key}"]
    return compose()[f"services.derper.{compose_key}"]


def test_all_are_looked_at():
    assert set(ALL) == {SERVICE, QUADLET, COMPOSE}


@FILES
def test_variables_are_those_of_derper(path: Path):
    known = {flag.variable for flag in flag_table({}, root=True)}
    used = set(re.findall(r"DERP_\w+", path.read_text("utf-8")))
    assert used
    assert used <= known


@FILES
def test_files_are_copied_from_where_they_are(path: Path):
    text = path.read_text("utf-8")
    for named in re.findall(r"deploy/[\w.]*\w", text):
        assert (DEPLOY.parent / named).is_file(), named


def test_a_wrong_flag_is_not_tried_again(capsys: pytest.CaptureFixture[str]):
    code = main.main(["-hostname", ""])
    assert "-hostname ''" in capsys.readouterr().err
    for path in (SERVICE, QUADLET):
        settings = unit(path)
        assert settings["Service.RestartPreventExitStatus"] == [str(code)]
        assert settings["Service.Restart"] == ["on-failure"]
        assert seconds(settings["Service.RestartSec"][0]) >= 1


def test_stopping_is_given_longer_than_the_drain():
    service = unit(SERVICE)["Service.TimeoutStopSec"]
    (podman,) = re.findall(r"--stop-timeout=(\d+)", *unit(QUADLET)["Container.PodmanArgs"])  # type: ignore[call-overload]
    grace = compose()["services.derper.stop_grace_period"]
    for text in (*service, podman, *grace):
        assert seconds(text) >= max(2 * FLUSH_SECONDS, STOP_TIMEOUT)


def test_it_comes_before_others_on_a_busy_host():
    for path in (SERVICE, QUADLET):
        (weight,) = unit(path)["Service.CPUWeight"]
        assert int(weight) >= 4 * WEIGHT
    (shares,) = compose()["services.derper.cpu_shares"]
    # As runc has it for cgroups v2; in v1, shares are relative to 1024.
    assert 1 + (int(shares) - 2) * 9999 // 262142 >= 3 * WEIGHT
    # In the quadlet, podman would fail where systemd has not left it the CPU.
    assert "cpu" not in unit(QUADLET)["Container.PodmanArgs"][0]


@pytest.mark.parametrize("path", CONTAINERS, ids=lambda path: path.name)
class TestContainers:
    def test_health_is_asked_by_a_command_and_only_told(
        self, path: Path, capsys: pytest.CaptureFixture[str]
    ):
        (asked,) = container(path, "HealthCmd", "healthcheck.test")
        (timeout,) = container(path, "HealthTimeout", "healthcheck.timeout")
        program, command = asked.split()
        assert re.search(rf"ln -s \S+ {program}\b", Image().build)
        assert main.main([command, "-h"]) == 0
        assert command in capsys.readouterr().out
        assert seconds(timeout) > healthcheck.TIMEOUT
        assert "OnFailure" not in path.read_text("utf-8")

    def test_the_volume_is_where_the_image_keeps_things(self, path: Path):
        image = Image()
        (mounted,) = container(path, "Volume", "volumes")
        name, target, *_ = mounted.split(":")
        assert [target] == image.volumes == [image.environment["DERP_CERT_DIR"]]
        if path == COMPOSE:
            name = compose()[f"volumes.{name}.name"][0]
        # The same in both, so that one can take over from the other.
        assert name == "derper-certs"

    def test_the_socket_of_tailscaled_is_found_where_it_is_mounted(self, path: Path):
        (target,) = re.findall(r"/run/tailscale:(\S+):ro", commented(path))
        assert Path(target) == TAILSCALED_SOCKET.parent

    def test_ports_are_those_of_the_image(self, path: Path):
        published = re.findall(r"[\"=]\d+:(\d+(?:/udp)?)\b", commented(path))
        image = Image()
        assert published
        for port in published:
            assert (port if "/" in port else f"{port}/tcp") in image.ports

    def test_it_is_on_the_hosts_network(self, path: Path):
        assert container(path, "Network", "network_mode") == ["host"]

    def test_nothing_but_the_volume_can_be_written(self, path: Path):
        assert container(path, "ReadOnly", "read_only") == ["true"]

    def test_all_capabilities_are_dropped_first(self, path: Path):
        dropped = container(path, "DropCapability", "cap_drop")
        assert [what.lower() for what in dropped] == ["all"]
        assert "NET_BIND_SERVICE" in container(path, "AddCapability", "cap_add")


def test_the_quadlets_user_is_the_images():
    (user,) = unit(QUADLET)["Container.User"]
    (group,) = unit(QUADLET)["Container.Group"]
    assert f"useradd --uid {user} --gid {group}" in Image().final
    # It has no capabilities to change the owner of anything, so podman must.
    assert unit(QUADLET)["Container.Volume"][0].endswith(":U")
    assert unit(QUADLET)["Container.AddCapability"] == ["NET_BIND_SERVICE"]
    assert unit(QUADLET)["Container.NoNewPrivileges"] == ["true"]


def test_compose_leaves_the_entrypoint_what_it_takes_to_become_the_user():
    added = set(compose()["services.derper.cap_add"])
    (named,) = re.findall(r"without the capabilities (.*?) it can't", Image().entrypoint)
    assert set(re.findall(r"[A-Z_]{2,}", named)) <= added
    assert "handover.py" in Image().entrypoint
    assert "CHOWN" in added
    assert "user" not in {path.split(".")[-1] for path in compose()}
    assert compose()["services.derper.security_opt"] == ["no-new-privileges:true"]


def test_every_command_may_be_the_first_word_of_a_container():
    (known,) = re.findall(r"^-\* \| (.*)\)$", Image().entrypoint, re.MULTILINE)
    assert set(known.split(" | ")) == {*main.MODULES, *STEERING}


def test_compose_builds_this_image():
    (context,) = compose()["services.derper.build.context"]
    (file,) = compose()["services.derper.build.dockerfile"]
    assert (DEPLOY / context / file).samefile(DEPLOY.parent / "Containerfile")
    (variables,) = compose()["services.derper.env_file"]
    assert f">{variables}\n" in COMPOSE.read_text("utf-8")


def test_the_quadlet_reloads_the_container_that_it_starts():
    (name,) = unit(QUADLET)["Container.ContainerName"]
    (reload,) = unit(QUADLET)["Service.ExecReload"]
    assert reload.split()[1:] == ["kill", "--signal", "HUP", name]
