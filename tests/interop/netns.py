"""Network namespaces for a test: nameless ones, that are gone when their last process is.

A namespace lives as long as the process that holds it, and the kernel kills that one when the
tests are gone: nothing has to be cleaned up, however the tests ended. All interfaces are made
inside, so nothing of the machine's own network is touched, and nothing leads there.
"""

import ctypes
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import attrs
import pytest

from tests.interop.relay import die_with_parent

TIMEOUT = 30

CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


class NoNamespacesError(Exception):
    """This user or this machine can't make network namespaces; says why."""


@attrs.frozen
class Namespace:
    """One namespace; `prefix` before a command runs it there."""

    holder: subprocess.Popen[str]

    @classmethod
    def make(cls) -> "Namespace":
        """A namespace with nothing in it but a loopback interface, up."""
        holder = subprocess.Popen(
            ["unshare", "--net", "--", "sh", "-c", "echo ready; exec sleep 3600"],
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=die_with_parent,  # noqa: PLW1509 — no threads here
        )
        assert holder.stdout
        if holder.stdout.readline() != "ready\n":
            raise NoNamespacesError(f"unshare --net ended with {holder.wait(TIMEOUT)}")
        space = cls(holder)
        space.run("ip", "link", "set", "lo", "up")
        return space

    @property
    def prefix(self) -> list[str]:
        return ["nsenter", f"--net=/proc/{self.holder.pid}/ns/net", "--"]

    def run(self, *command: str) -> str:
        """Run something short here; it must succeed."""
        done = subprocess.run(
            [*self.prefix, *command], capture_output=True, text=True, timeout=TIMEOUT, check=False
        )
        assert done.returncode == 0, (command, done.stderr)
        return done.stdout

    def address(self, interface: str, *addresses: str) -> None:
        for address in addresses:
            options = ["nodad"] if ":" in address else []
            self.run("ip", "address", "add", address, "dev", interface, *options)
        self.run("ip", "link", "set", interface, "up")

    def forward_nothing(self) -> None:
        """Keep packets from going through; a new namespace may have it as the machine has it."""
        for name in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
            switch = f"/proc/sys/net/{name}"
            self.run("sh", "-c", f'read now < {switch}; [ "$now" = 0 ] || echo 0 > {switch}')

    def connect(self, address: tuple[str, int]) -> socket.socket:
        """A TCP connection made from here, for the caller to use where he is."""

        return self._made_here(lambda: socket.create_connection(address, TIMEOUT))

    def udp(self, host: str) -> socket.socket:
        """A UDP socket made here, on a free port of this address."""

        def make() -> socket.socket:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            sock = socket.socket(family, socket.SOCK_DGRAM)
            sock.bind((host, 0))
            return sock

        return self._made_here(make)

    def _made_here(self, make: Callable[[], socket.socket]) -> socket.socket:
        def enter_and_make() -> socket.socket:
            # Of this thread alone, which is gone when the socket is there.
            with Path(f"/proc/{self.holder.pid}/ns/net").open("rb") as space:
                if _libc.setns(space.fileno(), CLONE_NEWNET):
                    raise OSError(ctypes.get_errno(), "setns")
            return make()

        with ThreadPoolExecutor(1) as executor:
            return executor.submit(enter_and_make).result()

    def close(self) -> None:
        self.holder.kill()
        self.holder.communicate()


def link(one: Namespace, interface: str, other: Namespace, interface_there: str) -> None:
    """A cable: a veth pair with one end in each."""
    there = str(other.holder.pid)
    ends = ["type", "veth", "peer", "name", interface_there, "netns", there]
    one.run("ip", "link", "add", "name", interface, *ends)


def check_possible(tools: Sequence[str] = ("ip", "unshare", "nsenter")) -> None:
    """Raises NoNamespacesError, saying what is missing."""
    if os.geteuid() != 0:
        raise NoNamespacesError("only root may make network namespaces")
    if missing := [tool for tool in tools if not shutil.which(tool)]:
        raise NoNamespacesError(f"not installed: {', '.join(missing)}")
    pair = ["ip", "link", "add", "name", "one", "type", "veth", "peer", "name", "other"]
    tried = subprocess.run(
        ["unshare", "--net", "--", *pair],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    if tried.returncode:
        raise NoNamespacesError(tried.stderr.strip() or f"unshare: {tried.returncode}")


def skip_unless_possible(what: str) -> None:
    """Skip the test, saying aloud what can't be had and why, where there are no namespaces."""
    try:
        check_possible()
    except NoNamespacesError as error:
        pytest.skip(f"{what}: {error}")
