"""A relay, those who use it, and one who looks at its page."""

import contextlib
import json
import signal
import ssl
import subprocess
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs

from tests.browser.chromium import Chromium, Page
from tests.interop.logins import dial, hello, log_in, verdict_of
from tests.interop.rawderp import Key, Wire
from tests.interop.relay import Relay, TestCA, die_with_parent, environment

TOKEN = "correct-horse-battery-staple"


@attrs.define
class Place:
    """A running relay with TLS."""

    relay: Relay
    browser: Chromium
    derpcheck: Path
    ca: TestCA
    policy: Path
    """The file of -policy, or of -verify-client-file."""

    @property
    def base(self) -> str:
        return f"https://localhost:{self.relay.port}"

    @property
    def tls(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.ca.pem)

    def look(self) -> Page:
        """Open the live page."""
        page = self.browser.open()
        page.goto(f"{self.base}/debug/")
        page.until(f"{text('#state')} === 'live'")
        return page

    @contextlib.contextmanager
    def go_clients(self, *arguments: str) -> Iterator[Sequence[str]]:
        """Run two of Go's clients; yields the lines that they print, as they come."""
        process = subprocess.Popen(
            [self.derpcheck, *arguments],
            env=environment(SSL_CERT_FILE=str(self.ca.pem)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=die_with_parent,  # noqa: PLW1509 -- no threads here that hold a lock
        )
        lines: list[str] = []
        stdout = process.stdout
        assert stdout is not None
        reader = threading.Thread(target=lambda: lines.extend(stdout))
        reader.start()
        try:
            yield lines
        finally:
            process.kill()
            reader.join()
            process.communicate()

    def sending(self) -> contextlib.AbstractContextManager[Sequence[str]]:
        """Two clients, of which one sends to the other all the time."""
        return self.go_clients("limited", "-tls", self.relay.url)

    def staying(self) -> contextlib.AbstractContextManager[Sequence[str]]:
        """Two clients that come back by themselves when their connection is gone."""
        node = {"Name": "900a", "RegionID": 900, "HostName": "localhost", "IPv4": "127.0.0.1"}
        return self.go_clients("stay", "-node", json.dumps(node | {"DERPPort": self.relay.port}))

    def log_in(self, name: str, source: str = "127.0.0.1") -> Wire:
        """Log in with the key of that name."""
        return log_in(self.relay, Key.named(name), self.tls, source)

    def verdict(self, name: str) -> str:
        """Return what comes of a login with the key of that name."""
        with contextlib.closing(dial(self.relay, self.tls)) as wire:
            wire.send(hello(Key.named(name)))
            return verdict_of(wire)

    def set_policy(self, content: str) -> None:
        """Change the policy of a relay that has just started, and wait until that is in force."""
        self.relay.wait_for_log("policy in force")
        self.policy.write_text(content)
        assert self.relay.process is not None
        self.relay.process.send_signal(signal.SIGHUP)
        self.relay.wait_for_log("new policy")


def text(selector: str) -> str:
    """Return an expression for the text of the first element that is selected, or null."""
    return f"(document.querySelector({json.dumps(selector)})?.textContent ?? null)"


def node_key(name: str) -> str:
    """Return the public key of that name."""
    return f"nodekey:{Key.named(name).public.hex()}"


def row(key: str) -> str:
    """Return a selector of a client's row."""
    return f'#rows tr[data-key="{key}"]'
