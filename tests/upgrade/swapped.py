"""A relay whose container is swapped for one of another version, with the same volumes.

Around it, in a network of their own: an ACME server, which goes on counting orders, and the API of
a tailnet, which is away from some moment on.
"""

import contextlib
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import attrs

from tests.container import podman as containers
from tests.container.podman import Container, Dock, File, Podman
from tests.interop.deviceapi import DeviceAPI, device_api
from tests.interop.netns import Namespace
from tests.interop.pebble import Pebble, pebble
from tests.interop.rawderp import Key
from tests.support.deviceapis import CLIENT_ID, CLIENT_SECRET, TAILNET

NAME = "derp.test"
STATE, CERTS = "/var/lib/derper", "/app/certs"
LIST, POLICY, ACCOUNTS = f"{STATE}/allowed", f"{STATE}/policy.toml", f"{STATE}/derper.accounts"
KEPT_LIST = f"{STATE}/devices-tailnet_{TAILNET}"
USER = 65532

Moved = Counter[tuple[str, str]]
"""Bytes by node key, and by `sent` (to it) or `received`."""


@attrs.define
class Swapped:
    """A relay, in one container after the other."""

    dock: Dock
    authority: Pebble
    api: DeviceAPI
    certs: str
    state: str
    now: Container | None = None

    @property
    def container(self) -> Container:
        assert self.now, "no container runs"
        return self.now

    def start(self, image: str) -> None:
        """Start a container of this image, and wait until it serves."""
        assert not self.now
        self.now = self.dock.start(
            *("--network=host", *self._volumes()),
            f"--volume={self.authority.bundle}:/pebble.pem:ro",
            image=image,
            DERP_DOMAIN=NAME,
            DERP_ACME_DIRECTORY=self.authority.directory,
            DERP_ACME_CA_BUNDLE="/pebble.pem",
            DERP_POLICY_FILE=POLICY,
            DERP_VERIFY_CLIENT_FILE=LIST,
            DERP_VERIFY_TAILNET=TAILNET,
            DERP_VERIFY_TAILNET_API=self.api.url,
            DERP_TAILNET_CLIENT_ID=CLIENT_ID,
            DERP_TAILNET_CLIENT_SECRET=CLIENT_SECRET,
        )
        self.now.serves(NAME)

    def stop(self) -> str:
        """Stop the container and remove it; return its log."""
        container, self.now = self.container, None
        code, log = container.stop(), container.log
        assert code == 0, f"it ended with {code}\n{log}"
        container.remove()
        return log

    def command(self, *words: str) -> str:
        """Run one of derper's commands in the container; return what it prints."""
        done = self.container.run("derper", *words)
        assert done.returncode == 0, f"{done.stderr}\n{self.container.log}"
        return done.stdout

    def file(self, path: str) -> str:
        """Return the text of a file in the container; empty if there is none."""
        return self.container.run("cat", path).stdout

    def add_to_list(self, key: Key) -> None:
        """Add a line to the list of keys, as an operator with an editor does."""
        line = f"nodekey:{key.public.hex()} {key.name}"
        done = self.container.run("sh", "-c", f"echo '{line}' >>{LIST}")
        assert done.returncode == 0, done.stderr

    def accounts(self) -> Moved:
        """Return the accounts so far; the relay writes them every few seconds."""
        return moved_by(self.command("accounts", "-of", "1", "--json"))

    def last_accounts(self, image: str) -> Moved:
        """Return the accounts as this image reads them when no relay runs any more."""
        told = self.dock.once(
            *("accounts", "-accounts", ACCOUNTS, "--json"), image=image, options=self._volumes()
        )
        assert told.returncode == 0, told.stderr
        return moved_by(told.stdout)

    def _volumes(self) -> list[str]:
        return [f"--volume={self.certs}:{CERTS}", f"--volume={self.state}:{STATE}"]


def moved_by(rows: str) -> Moved:
    """Add up what `derper accounts --json` has printed."""
    found: Moved = Counter()
    for row in map(json.loads, rows.splitlines()):
        for way in ("sent", "received"):
            found[row["key"], way] += row[way]
    return found


@contextlib.contextmanager
def swapped(
    podman: Podman,
    image: str,
    binaries: dict[str, Path],
    folder: Path,
    space: Namespace,
    listed: Key,
) -> Iterator[Swapped]:
    """All that is around the relay, which has not been started; one key is on its list."""
    with (
        containers.dock(podman, image, binaries, space) as dock,
        pebble(binaries, folder, space=space, http_port=80, tls_port=443) as authority,
        device_api(folder, space=space) as api,
    ):
        state = dock.volume(
            {
                "policy.toml": File(b"[defaults]\n", USER),
                "allowed": File(f"nodekey:{listed.public.hex()} {listed.name}\n".encode(), USER),
            },
            owner=USER,
            mode=0o700,
        )
        yield Swapped(dock, authority, api, certs=dock.volume(), state=state)
