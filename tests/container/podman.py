"""Podman as it works on this machine, and containers that are seen from outside.

Everything that is made has a name which begins with derper-test- and the number of this process.
It is removed when the tests end; what tests left that were killed, the next remove.
"""

import contextlib
import http.client
import io
import itertools
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs

from tests.interop.issuing import Shaken, shake
from tests.interop.netns import Namespace
from tests.interop.relay import environment, free_port
from tests.support.waiting import until

PREFIX = "derper-test-"
BASE = "base"
"""A tag: for as long as a build runs, the name of what it builds on."""

TIMEOUT = 60
START_TIMEOUT = 30

HTTPS, HTTP, STUN = "443", "80", "3478/udp"
"""What the image exposes."""


class NoPodmanError(Exception):
    """No containers run here; says why."""


class PodmanError(AssertionError):
    """A command of podman's failed, or took too long."""


@attrs.frozen
class Way:
    """A set of options with which podman may work."""

    options: Sequence[str] = ()
    run: Sequence[str] = ()
    build: Sequence[str] = ()


# SELinux would let nobody see a folder of this machine that has not been relabelled.
_BIND_MOUNTS = ("--security-opt", "label=disable")

WAYS = (
    Way(run=_BIND_MOUNTS, build=_BIND_MOUNTS),
    # Where crun can't run, and nobody may raise a limit.
    Way(
        options=("--runtime", "runc"),
        run=(*_BIND_MOUNTS, "--ulimit", "nofile=10000:10000", "--ulimit", "nproc=4000:4000"),
        build=(*_BIND_MOUNTS, "--isolation", "chroot"),
    ),
)

# Health checks are run by the tests, when they want one. Without systemd podman could run none.
_ENVIRONMENT = {"DISABLE_HC_SYSTEMD": "true"}


@attrs.frozen
class Podman:
    """Runs podman's commands; `prefix` may run them in a network namespace."""

    way: Way = WAYS[0]
    prefix: Sequence[str] = ()

    def command(self, *arguments: str) -> list[str]:
        """The whole command line; `run`, `create` and `build` get what they need here."""
        what, *more = arguments
        extra = {"run": self.way.run, "create": self.way.run, "build": self.way.build}
        return [*self.prefix, "podman", *self.way.options, what, *extra.get(what, ()), *more]

    def attempt(
        self, *arguments: str, timeout: float | None = None, given: bytes | None = None
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command that may fail; standard output and error come apart.

        Raises PodmanError if it takes longer than `timeout` seconds, or TIMEOUT; it is then gone,
        with all processes that it started but containers.
        """
        command = self.command(*arguments)
        timeout = timeout or TIMEOUT
        with subprocess.Popen(
            command,
            env={**os.environ, **_ENVIRONMENT},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        ) as process:
            try:
                out, err = process.communicate(given or b"", timeout)
            except BaseException as error:
                os.killpg(process.pid, signal.SIGKILL)
                if isinstance(error, subprocess.TimeoutExpired):
                    took = f"`{shlex.join(command)}` took more than {timeout} s"
                    raise PodmanError(took) from None
                raise
        said = (out.decode(errors="replace"), err.decode(errors="replace"))
        return subprocess.CompletedProcess(command, process.returncode, *said)

    def do(self, *arguments: str, timeout: float | None = None, given: bytes | None = None) -> str:
        """Run a command that must succeed; return what it prints. Raises PodmanError."""
        done = self.attempt(*arguments, timeout=timeout, given=given)
        if done.returncode:
            command = shlex.join(done.args)
            raise PodmanError(f"`{command}` ended with {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    def inspect(self, what: str, kind: str = "container") -> dict[str, Any]:
        (found,) = json.loads(self.do("inspect", "--type", kind, what))
        assert isinstance(found, dict)
        return found

    def has_image(self, image: str) -> bool:
        return self.attempt("image", "exists", image).returncode == 0

    def works_with(self, way: Way, image: str) -> str:
        """Why `true` can't be run in the image this way; empty if it can."""
        name = new_name()
        run = ["run", "--rm", "--name", name, image, "true"]
        try:
            attrs.evolve(self, way=way).do(*run)
        except PodmanError as error:
            with contextlib.suppress(PodmanError):
                self.attempt("rm", "--force", name)
            return str(error)
        return ""

    def containers(self) -> list[str]:
        """The names of all containers, those in which a build works among them."""
        listing = ("ps", "--all", "--external", "--format", "{{.Names}}")
        for _ in range(9):
            # It fails where a container goes between its listing and its description.
            done = self.attempt(*listing)
            if done.returncode == 0:
                return done.stdout.split()
        return self.do(*listing).split()

    def remove_leftovers(self) -> None:
        """Remove what belongs to tests that were killed; say what could not be removed."""
        for kind, listing in (
            ("container", ("ps", "--all", "--external", "--format", "{{.Names}}")),
            ("volume", ("volume", "ls", "--format", "{{.Name}}")),
            ("image", ("images", "--format", "{{.Repository}}:{{.Tag}}")),
        ):
            done = self.attempt(*listing)
            if done.returncode:
                print(f"COULD NOT LIST each {kind}: {done.stderr.strip()}")
            for name in done.stdout.split():
                pid = re.match(rf"(?:localhost/)?{PREFIX}(\d+)-", name)
                if pid and not Path(f"/proc/{pid[1]}").exists():
                    gone = self.attempt(*removal(kind, name)).returncode == 0
                    told = "removed" if gone else "COULD NOT REMOVE"
                    print(f"{told} the {kind} {name}, left by tests that were killed")


def removal(kind: str, name: str) -> list[str]:
    """The command that removes a container, a volume or an image."""
    if name.endswith(f":{BASE}"):
        # Another name of somebody's image, which stays.
        return ["untag", name, name]
    commands = {
        "container": ["rm", "--force", "--time", "0", "--volumes"],
        "volume": ["volume", "rm", "--force"],
        "image": ["rmi", "--force"],
    }
    return [*commands[kind], name]


def installed() -> Podman:
    """Podman, if it answers at all. Raises NoPodmanError."""
    if not shutil.which("podman"):
        raise NoPodmanError("podman is not installed")
    podman = Podman()
    try:
        podman.do("info", "--format", "{{.Store.GraphRoot}}")
        podman.remove_leftovers()
    except (PodmanError, OSError) as error:
        raise NoPodmanError(str(error)) from None
    return podman


def working(podman: Podman, base: str) -> Podman:
    """Podman with the options that let it run something in the base image.

    Raises NoPodmanError, with what each way came to.
    """
    came_to = []
    for way in WAYS:
        if not (trouble := podman.works_with(way, base)):
            return attrs.evolve(podman, way=way)
        came_to.append(trouble)
    raise NoPodmanError(f"podman can't run `true` in {base}: {'; '.join(came_to)}")


_count = itertools.count(1)


def new_name() -> str:
    return f"{PREFIX}{os.getpid()}-{next(_count)}"


@attrs.frozen
class File:
    """A file as it is in a volume, or is to be there."""

    content: bytes
    owner: int = 0
    mode: int = 0o600
    group: int = attrs.field(default=attrs.Factory(lambda self: self.owner, takes_self=True))


@attrs.define
class Container:
    """One container. `ports` says where on 127.0.0.1 each of its ports is published."""

    podman: Podman
    name: str
    ports: Mapping[str, int]
    space: Namespace | None = None
    """Where these ports are; None for here."""

    @property
    def log(self) -> str:
        """Standard output, then standard error."""
        done = self.podman.attempt("logs", self.name)
        return done.stdout + done.stderr

    @property
    def running(self) -> bool:
        return bool(self.podman.inspect(self.name)["State"]["Running"])

    @property
    def https(self) -> int:
        return self.ports[HTTPS]

    def run(self, *command: str) -> "subprocess.CompletedProcess[str]":
        """Run a command inside, whatever comes of it."""
        return self.podman.attempt("exec", self.name, *command)

    def signal(self, name: str) -> None:
        self.podman.do("kill", "--signal", name, self.name)

    def process(self) -> dict[str, str]:
        """The status of the container's first process, as in proc(5), with the IDs seen inside."""
        lines = self.podman.do("exec", self.name, "cat", "/proc/1/status").splitlines()
        return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}

    def stop(self) -> int:
        """Stop it as `docker stop` does; return its exit code."""
        self.podman.do("stop", self.name)
        return self.exit_code()

    def exit_code(self) -> int:
        """Wait for its end."""
        return int(self.podman.do("wait", self.name))

    def remove(self) -> None:
        """With the volumes that have no name; what is still running gets no time."""
        self.podman.do("rm", "--force", "--time", "0", "--volumes", self.name)

    def healthy(self) -> bool:
        """Run its health check."""
        return self.podman.attempt("healthcheck", "run", self.name).returncode == 0

    def health(self) -> str:
        """What the last health check said."""
        state = self.podman.inspect(self.name)["State"]
        checks = state.get("Health", state.get("Healthcheck"))["Log"]
        return str(checks[-1]["Output"])

    def wait_for_log(self, pattern: str) -> "re.Match[str]":
        """The first place in the log that matches."""
        return self._until(
            f"it logs {pattern!r}", lambda: re.search(pattern, self.log, re.MULTILINE)
        )

    def serves(self, name: str | None = None) -> Shaken:
        """Wait until it answers a TLS handshake, and with a certificate."""
        return self._until("it serves a certificate", lambda: self._chain(name))

    def answers(self, name: str | None = None) -> Shaken:
        """Wait until it answers a TLS handshake, be it with an alert."""
        return self._until("it answers in TLS", lambda: self.shake(name))

    def shake(self, name: str | None = None) -> Shaken | None:
        """What a TLS handshake came to; None if nobody answers."""
        with contextlib.suppress(OSError):
            return shake(("127.0.0.1", self.https), name, dial=lambda _: self.dial(HTTPS))
        return None

    def get(self, path: str, port: str = HTTP) -> "tuple[int, dict[str, str]]":
        """Wait until it answers in plain HTTP; return the status and the headers."""

        def attempt() -> "tuple[int, dict[str, str]] | None":
            connection = http.client.HTTPConnection("relay.test", timeout=TIMEOUT)
            with contextlib.suppress(OSError, http.client.HTTPException):
                connection.sock = self.dial(port)
                with contextlib.closing(connection):
                    connection.request("GET", path)
                    answer = connection.getresponse()
                    answer.read()
                    return answer.status, {name.lower(): it for name, it in answer.getheaders()}
            return None

        return self._until(f"it answers GET {path}", attempt)

    def seen_at(self, port: str, other: str) -> "Container":
        """The same container, whose `other` port serves what `port` usually does."""
        return attrs.evolve(self, ports={**self.ports, port: self.ports[other]})

    def dial(self, port: str) -> socket.socket:
        """A connection to where the port is."""
        there = ("127.0.0.1", self.ports[port])
        if self.space:
            return self.space.connect(there)
        # A container that has just been given its address may miss what comes first.
        sock = socket.create_connection(there, timeout=1)
        sock.settimeout(TIMEOUT)
        return sock

    def identity(self, name: str | None = None) -> str:
        """The relay's public key in hex, from the metacert at the end of the chain."""
        # Its common name is longer than X.509 allows, which the parser would warn of.
        found = re.search(rb"derpkey([0-9a-f]{64})", self.serves(name).metacert)
        assert found, "the chain has no metacert"
        return found[1].decode()

    def _chain(self, name: str | None) -> Shaken | None:
        shaken = self.shake(name)
        return shaken if shaken and shaken.chain else None

    def _until(self, what: str, attempt: Any) -> Any:
        def attempt_while_it_runs() -> Any:
            if got := attempt():
                return got
            if self.running:
                return None
            # What it did last counts.
            if got := attempt():
                return got
            raise AssertionError(f"the container ended before {what}:\n{self.log}")

        try:
            return until(what, attempt_while_it_runs, START_TIMEOUT)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log}") from None


@attrs.define
class Dock:
    """Where a test starts containers; what it made is gone with it."""

    podman: Podman
    image: str
    binaries: Mapping[str, Path]
    space: Namespace | None = None
    """Where ports are published, the very ports of the image; without it, anywhere on 127.0.0.1."""
    containers: list[Container] = attrs.field(factory=list)
    volumes: list[str] = attrs.field(factory=list)

    def start(
        self,
        *options: str,
        command: Sequence[str] = (),
        image: str = "",
        at: Mapping[str, int] | None = None,
        **variables: str,
    ) -> Container:
        """Start a container, as `create` makes it."""
        container = self.create(*options, command=command, image=image, at=at, **variables)
        self.podman.do("start", container.name)
        return container

    def create(
        self,
        *options: str,
        command: Sequence[str] = (),
        image: str = "",
        at: Mapping[str, int] | None = None,
        **variables: str,
    ) -> Container:
        """Make a container. `at` says where its ports are, those of another one for example.

        They are published there, unless `options` give it a network that is there already.
        """
        name = new_name()
        if at is None:
            at = {port: self._place(port) for port in (HTTPS, HTTP, STUN)}
        where = "" if self.space else "127.0.0.1:"
        publish = [f"--publish={where}{place}:{port}" for port, place in at.items()]
        if any(option.startswith("--network") for option in options):
            publish = []
        given = [f"--env={variable}={value}" for variable, value in variables.items()]
        container = Container(self.podman, name, at, self.space)
        self.containers.append(container)
        create = ["create", "--name", name, *publish, *given, *options]
        self.podman.do(*create, image or self.image, *command)
        return container

    def _place(self, port: str) -> int:
        number, _, protocol = port.partition("/")
        if self.space:
            return int(number)
        return free_port(socket.SOCK_DGRAM if protocol == "udp" else socket.SOCK_STREAM)

    def once(
        self,
        *command: str,
        options: Sequence[str] = (),
        image: str = "",
        **variables: str,
    ) -> "subprocess.CompletedProcess[str]":
        """Run a container until it ends by itself; whatever comes of it."""
        name = new_name()
        given = [f"--env={variable}={value}" for variable, value in variables.items()]
        try:
            return self.podman.attempt(
                *("run", "--rm", "--name", name, *given, *options, image or self.image, *command)
            )
        finally:
            self.podman.attempt("rm", "--force", "--time", "0", "--volumes", name)

    def volume(
        self, files: Mapping[str, File] | None = None, *, owner: int = 0, mode: int = 0o755
    ) -> str:
        """A volume with these files in it; return its name.

        Without any it is new: where it is mounted first, it becomes what the image has there, and
        belongs to whom that does.
        """
        name = new_name()
        self.volumes.append(name)
        self.podman.do("volume", "create", name)
        if files is not None:
            unpacker = ["run", "--rm", "--interactive", "--name", new_name(), "--entrypoint=tar"]
            unpacker += [f"--volume={name}:/volume", self.image, "-C", "/volume", "-xpf", "-"]
            self.podman.do(*unpacker, given=packed(files, owner, mode))
        return name

    def contents(self, volume: str) -> dict[str, File]:
        """The files of a volume, and its folders, by name; `.`, if it is told of, is its own."""
        packed = subprocess.run(
            self.podman.command("volume", "export", volume),
            capture_output=True,
            timeout=TIMEOUT,
            check=True,
        ).stdout
        files = {}
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            for member in archive:
                name = member.name.removeprefix("./").rstrip("/") or "."
                read = archive.extractfile(member) if member.isfile() else None
                content = read.read() if read else b""
                files[name] = File(content, member.uid, member.mode & 0o7777, member.gid)
        return files

    def clear(self) -> None:
        """Remove the containers and the volumes."""
        while self.containers:
            container = self.containers.pop()
            self.podman.attempt("rm", "--force", "--time", "0", "--volumes", container.name)
        while self.volumes:
            self.podman.attempt("volume", "rm", "--force", self.volumes.pop())

    def go(self, *arguments: str, trust: Path | None = None) -> dict[str, Any]:
        """What derpcheck prints, which is one line of JSON."""
        variables = {} if trust is None else {"SSL_CERT_FILE": str(trust)}
        prefix = self.space.prefix if self.space else []
        done = subprocess.run(
            [*prefix, str(self.binaries["derpcheck"]), *arguments],
            env=environment(**variables),
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        assert done.stdout, done
        answer = json.loads(done.stdout)
        assert isinstance(answer, dict)
        return answer

    def talk(
        self, container: Container, node: Mapping[str, Any], trust: Path | None = None
    ) -> None:
        """Two of Go's clients connect to the published port, and send each other a packet."""
        told = self.go("talk", "-node", json.dumps(placed(container, node)), trust=trust)
        assert told["ok"], f"{told}\n{container.log}"

    def stun(self, container: Container) -> dict[str, Any]:
        """STUN's answer through the published port."""
        told = self.go("stun", f"127.0.0.1:{container.ports[STUN]}")
        assert not told["error"], f"{told}\n{container.log}"
        return told


def placed(container: Container, node: Mapping[str, Any]) -> dict[str, Any]:
    """A DERP node, with the ports and the address where the container is published."""
    ports: dict[str, object] = {"DERPPort": container.https, "IPv4": "127.0.0.1", "IPv6": "none"}
    return {"Name": "900a", **node, **ports}


def node_of(container: Container) -> dict[str, Any]:
    """The relay's own words about itself: the node of `derper derpmap`."""
    told = container.run("derper", "derpmap")
    assert told.returncode == 0, told
    regions = json.loads(f"{{{told.stdout}}}")["derpMap"]["Regions"]
    (region,) = regions.values()
    (node,) = region["Nodes"]
    assert isinstance(node, dict)
    return node


def packed(files: Mapping[str, File], owner: int, mode: int) -> bytes:
    """An archive with these files, in a folder of that owner and mode."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        folder = tarfile.TarInfo(".")
        folder.type, folder.mode, folder.uid, folder.gid = tarfile.DIRTYPE, mode, owner, owner
        tar.addfile(folder)
        for name, file in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(file.content), file.mode
            member.uid, member.gid = file.owner, file.group
            member.mtime = datetime.now(UTC).timestamp()
            tar.addfile(member, io.BytesIO(file.content))
    return archive.getvalue()


@contextlib.contextmanager
def dock(
    podman: Podman, image: str, binaries: Mapping[str, Path], space: Namespace | None = None
) -> Iterator[Dock]:
    """A dock for as long as the block runs."""
    if space is not None:
        podman = attrs.evolve(podman, prefix=space.prefix)
    made = Dock(podman, image, binaries, space)
    try:
        yield made
    finally:
        made.clear()
