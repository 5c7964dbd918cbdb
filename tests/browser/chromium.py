"""Drives a headless Chromium by its DevTools protocol, over a pair of pipes.

https://chromedevtools.github.io/devtools-protocol/: messages are JSON, each followed by a NUL byte.
Events are read while an answer is waited for.
"""

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs

from tests.interop.relay import die_with_parent
from tests.patience import PATIENCE
from tests.support.waiting import until

NAMES = ("chromium", "chromium-browser", "google-chrome")
PROGRAM = next(filter(None, map(shutil.which, NAMES)), None)
"""None where there is none."""

FLAGS = (
    *("--headless=new", "--remote-debugging-pipe", "--hide-scrollbars", "--disable-gpu"),
    *("--no-first-run", "--no-default-browser-check", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"),
    # Root has no sandbox, nor do containers.
    "--no-sandbox",
)


class PageError(AssertionError):
    """Chromium refuses what it was asked, or has ended."""


@attrs.define(eq=False)
class Chromium:
    """A running browser."""

    to_browser: int
    from_browser: int
    pages: "dict[str, Page]" = attrs.field(factory=dict)
    """By session."""
    _last_id: int = 0
    _received: bytes = b""

    def call(self, method: str, session: str | None = None, **params: Any) -> Any:
        """Call a method of the protocol; return its result. Raises PageError."""
        self._last_id += 1
        message = {"id": self._last_id, "method": method, "params": params}
        if session is not None:
            message["sessionId"] = session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self.to_browser, data) :]
        while (answer := self._read()).get("id") != self._last_id:
            if (page := self.pages.get(answer.get("sessionId", ""))) is not None:
                page.note(answer["method"], answer["params"])
        if "error" in answer:
            raise PageError(f"{method}: {answer['error']['message']}")
        return answer["result"]

    def _read(self) -> Any:
        """Return the next message."""
        deadline = time.monotonic() + PATIENCE
        while b"\0" not in self._received:
            left = deadline - time.monotonic()
            if not select.select([self.from_browser], [], [], max(0.0, left))[0]:
                raise PageError("Chromium says nothing")
            data = os.read(self.from_browser, 1 << 20)
            if not data:
                raise PageError("Chromium has ended")
            self._received += data
        text, _, self._received = self._received.partition(b"\0")
        return json.loads(text)

    def open(self, *, javascript: bool = True) -> "Page":
        """Open a page, in a profile of its own."""
        context = self.call("Target.createBrowserContext")["browserContextId"]
        target = self.call("Target.createTarget", url="about:blank", browserContextId=context)
        session = self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        page = Page(self, session["sessionId"], target["targetId"], context)
        self.pages[page.session] = page
        for domain in ("Page", "Runtime", "Log", "Network"):
            page.call(f"{domain}.enable")
        page.call("Security.setIgnoreCertificateErrors", ignore=True)
        page.call("Emulation.setScriptExecutionDisabled", value=not javascript)
        return page


@attrs.define(eq=False)
class Page:
    """A tab."""

    browser: Chromium
    session: str
    target: str
    context: str
    """The profile."""
    complaints: list[str] = attrs.field(factory=list)
    """What the console shows as warnings and errors."""
    requests: list[str] = attrs.field(factory=list)
    """The URLs that were asked for."""
    loads: int = 0
    """How often a document was loaded."""

    def note(self, method: str, params: Any) -> None:
        """Note an event."""
        match method:
            case "Runtime.exceptionThrown":
                self.complaints.append(json.dumps(params["exceptionDetails"]))
            case "Runtime.consoleAPICalled" if params["type"] in {"error", "warning", "assert"}:
                self.complaints.append(json.dumps(params["args"]))
            case "Log.entryAdded" if params["entry"]["level"] in {"error", "warning"}:
                self.complaints.append(json.dumps(params["entry"]))
            case "Network.requestWillBeSent":
                self.requests.append(params["request"]["url"])
            case "Page.loadEventFired":
                self.loads += 1

    def call(self, method: str, **params: Any) -> Any:
        """Call a method of the protocol for this tab."""
        return self.browser.call(method, self.session, **params)

    def allow(self, *permissions: str) -> None:
        """Grant the page permissions, which a person would be asked for."""
        self.browser.call(
            "Browser.grantPermissions", browserContextId=self.context, permissions=permissions
        )

    def goto(self, url: str) -> None:
        """Load a page, and wait until all of it is there."""
        loads = self.loads
        answer = self.call("Page.navigate", url=url)
        if "errorText" in answer:
            raise PageError(f"{url}: {answer['errorText']}")
        self.wait_for_load(loads)

    def wait_for_load(self, loads: int) -> None:
        """Wait until more than so many documents have been loaded."""
        until("the page is loaded", lambda: self.call("Page.getFrameTree") and self.loads > loads)

    def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression, or what a promise of it becomes."""
        answer = self.call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in answer:
            raise PageError(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def until(self, expression: str) -> Any:
        """Evaluate an expression again and again until it is true, or the like; return it."""
        return until(expression, lambda: self.evaluate(expression))

    def html(self) -> str:
        """Return the page as it is now; works without JavaScript on the page."""
        document = self.call("DOM.getDocument")["root"]["nodeId"]
        return str(self.call("DOM.getOuterHTML", nodeId=document)["outerHTML"])

    def show(self, *, width: int, theme: str) -> None:
        """Have a screen so wide, in CSS pixels, and a `light` or `dark` theme."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=850,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        features = [{"name": "prefers-color-scheme", "value": theme}]
        self.call("Emulation.setEmulatedMedia", features=features)

    def screenshot(self, path: Path, *, whole: bool = True) -> None:
        """Write a PNG of the whole page, or of what the screen has."""
        taken = self.call("Page.captureScreenshot", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(taken["data"]))


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Chromium]:
    """Run Chromium with what it keeps in `folder`."""
    assert PROGRAM is not None
    their_in, our_out = os.pipe()
    our_in, their_out = os.pipe()
    # The browser reads from descriptor 3, and writes to 4.
    shell = f'exec "$@" 3<&{their_in} 4>&{their_out}'
    with (folder / "chromium.log").open("wb") as log:
        process = subprocess.Popen(
            ["bash", "-c", shell, "bash", PROGRAM, *FLAGS, f"--user-data-dir={folder}"],
            pass_fds=[their_in, their_out],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            preexec_fn=die_with_parent,  # noqa: PLW1509 -- no threads here
        )
    os.close(their_in)
    os.close(their_out)
    browser = Chromium(our_out, our_in)
    try:
        yield browser
        # Its own processes end with it.
        with contextlib.suppress(PageError):
            browser.call("Browser.close")
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(PATIENCE)
    finally:
        process.kill()
        process.wait()
        os.close(our_out)
        os.close(our_in)
