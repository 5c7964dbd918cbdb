"""The live page in a real Chromium, with Go's clients at the relay."""

import contextlib
import html
import http.server
import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser.chromium import Page
from tests.browser.place import TOKEN, Place, node_key, row, text
from tests.interop.logins import ADMITTED, REFUSED
from tests.interop.rawderp import SilentError
from tests.support.waiting import until

NUMBER_OF_ROWS = "document.querySelectorAll('#rows tr').length"
KEYS = "[...document.querySelectorAll('#rows tr')].map((row) => row.dataset.key)"
RATES = "[...document.querySelectorAll('#rows td:nth-child(4) span')].map((s) => s.textContent)"
SAID = text("#said")


def check_quiet(place: Place, page: Page) -> None:
    """Nothing was asked for elsewhere, and the console shows no error."""
    page.evaluate("1")
    assert page.complaints == []
    assert {url for url in page.requests if not url.startswith(f"{place.base}/debug/")} == set()
    assert page.loads == 1


def open_more(page: Page, selector: str) -> None:
    """Open the dialog of a client or of a refused key."""
    page.until(f"document.querySelector({json.dumps(selector)}) !== null")
    page.evaluate(f"[...document.querySelectorAll({json.dumps(selector)})].at(-1).click()")
    page.until("document.querySelector('#more').open")


def press(page: Page, action: str, token: str) -> str:
    """Press a button of the dialog; return what the page says then."""
    page.evaluate(f"document.querySelector('#token').value = {json.dumps(token)}")
    visible = f"document.querySelector('[data-action={action}]').checkVisibility()"
    assert page.evaluate(visible), f"there is no button to {action}"
    page.evaluate(f"document.querySelector('[data-action={action}]').click()")
    return str(page.until(f"!['', '…'].includes({SAID}) && {SAID}")).strip()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_client_appears_and_its_rate_moves(place: Place) -> None:
    page = place.look()
    assert page.evaluate(NUMBER_OF_ROWS) == 0
    with place.sending():
        page.until(f"{NUMBER_OF_ROWS} === 2")
        sender = f"{RATES}.some((rate) => rate.endsWith('Mbit/s'))"
        first = page.until(f"{sender} && {RATES}.join()")
        page.until(f"{sender} && {RATES}.join() !== {json.dumps(first)}")
        page.until(f"{text('#from')}.endsWith('Mbit/s') && {text('#to')}.endsWith('Mbit/s')")
        chart = "document.querySelector('#minute-from').getAttribute('points')"
        assert page.until(f"new Set({chart}.split(' ').map((p) => p.split(',')[1])).size > 1")
        page.until(f"{text('#minute-peak')}.endsWith('Mbit/s')")
        page.until(f"{text('#clients')} === '2'")
    page.until(f"{NUMBER_OF_ROWS} === 0")
    page.until(f"{text('#clients')} === '0'")
    check_quiet(place, page)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_client_is_disconnected_with_the_token_only(place: Place) -> None:
    with place.staying() as seen:
        page = place.look()
        page.until(f"{NUMBER_OF_ROWS} === 2")
        victim, other = page.evaluate(KEYS)
        open_more(page, f"{row(victim)} button")
        assert page.evaluate(text("#key")) == victim
        for wrong in ("", "a-guess-of-somebody", f"{TOKEN}x"):
            assert press(page, "kick", wrong) == "this is not the operator's token"
        assert page.evaluate(KEYS) == [victim, other]
        assert "disconnected by an operator" not in place.relay.log
        # The browser itself notes each 401 on the console.
        assert len(page.complaints) == 3
        assert all("401" in complaint for complaint in page.complaints)
        page.complaints.clear()

        assert press(page, "kick", TOKEN).startswith(f"{victim} is disconnected (1 connection)")
        logged = place.relay.wait_for_log('.*msg="disconnected by an operator".*')[0]
        assert f"key={victim}" in logged
        assert 'by="admin token, 127.0.0.1"' in logged
        assert "a wrong operator's token was shown" in place.relay.log
        until("one has lost its connection", lambda: any('"lost"' in line for line in seen))
        # It comes back by itself.
        page.until(f"{KEYS}.includes({json.dumps(victim)})")
        assert TOKEN not in place.relay.log
        check_quiet(place, page)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_client_is_denied_and_allowed_again(place: Place) -> None:
    key = node_key("ada")
    page = place.look()
    with contextlib.closing(place.log_in("ada")):
        open_more(page, f"{row(key)} button")
        said = press(page, "deny", TOKEN)
        assert said.startswith(f"{key} is denied (1 connection ended)")
        page.until(f"{NUMBER_OF_ROWS} === 0")
    assert "deny = true" in place.policy.read_text()
    assert place.verdict("ada") == REFUSED

    page.evaluate("document.querySelector('#more').close()")
    refused = 'section[data-name="Refused keys"]'
    page.until(f"{text(f'{refused} li')} !== null")
    assert page.evaluate(text(f"{refused} li b")) == f"Refused {key}:"
    assert " from 127.0.0.1: the key is denied" in page.evaluate(text(f"{refused} li"))
    page.allow("clipboardReadWrite", "clipboardSanitizedWrite")
    page.call("Page.bringToFront")
    page.evaluate(f"document.querySelector('{refused} button').click()")
    page.until(f"{text(f'{refused} button')} === 'Copied'")
    assert page.evaluate("navigator.clipboard.readText()") == key

    open_more(page, f"{refused} button")
    assert page.evaluate(text("#key")) == key
    # The token is remembered for this tab.
    assert page.evaluate("document.querySelector('#token').value") == TOKEN
    assert press(page, "allow", TOKEN).startswith(f"{key} is allowed")
    assert place.verdict("ada") == ADMITTED
    check_quiet(place, page)


@pytest.mark.parametrize("keys", ["-verify-client-file"])
def test_a_refused_key_is_put_on_the_list(place: Place) -> None:
    key = node_key("ada")
    before = place.policy.read_text()
    assert place.verdict("ada") == REFUSED
    page = place.look()
    refused = 'section[data-name="Refused keys"]'
    page.until(f"{text(f'{refused} li')} !== null")
    open_more(page, f"{refused} button")
    assert page.evaluate(text("#key")) == key
    said = press(page, "allow", TOKEN)
    assert said.startswith(f"{key} is allowed")
    assert str(place.policy) in said
    assert place.policy.read_text() == f"{before}{key}\n"
    with contextlib.closing(place.log_in("ada")):
        page.until(f"{KEYS}.includes({json.dumps(key)})")
    check_quiet(place, page)


@contextlib.contextmanager
def serving(content: str) -> Iterator[str]:
    """Serve a page at another site than the relay's; yields its URL."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write(content.encode())

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_another_site_can_not_have_it_done(place: Place) -> None:
    """Not even one that has learned the token, by whatever a browser lets it try."""
    key = node_key("ada")
    order = json.dumps({"action": "kick", "key": key})
    url = f"{place.base}/debug/steer"
    page = f"""<!doctype html><title>evil</title>
        <form method="post" enctype="text/plain" action="{url}">
        <input name="{html.escape(order[:-1])}," value="&quot;x&quot;:1}}"></form>"""
    with contextlib.closing(place.log_in("ada")) as wire, serving(page) as evil:
        tab = place.browser.open()
        tab.goto(evil)
        bearer = f"Authorization: 'Bearer {TOKEN}'"
        tries = {
            "no-cors": "'Content-Type': 'text/plain'",
            "cors": f"'Content-Type': 'application/json', {bearer}",
            "same-origin": bearer,
        }
        for mode, headers in tries.items():
            options = f"method: 'POST', mode: '{mode}', headers: {{{headers}}}"
            said = tab.evaluate(
                f"fetch({json.dumps(url)}, {{{options}, body: {json.dumps(order)}}})"
                ".then((answer) => answer.type, (error) => error.name)"
            )
            assert said == ("opaque" if mode == "no-cors" else "TypeError"), mode
        # What it may send with its cookies, it gets refused, before the token is looked for.
        loads = tab.loads
        tab.evaluate("document.forms[0].submit()")
        tab.wait_for_load(loads)
        shown = tab.evaluate("document.body.textContent.trim()")
        assert shown == "this comes from a page of another site"
        # Nor can it put the page into one of its own, or read it.
        tab.goto(evil)
        said = tab.evaluate(
            f"fetch('{place.base}/debug/').then((a) => a.type, (error) => error.name)"
        )
        assert said == "TypeError"
        with pytest.raises(SilentError):
            wire.take_frame(0.0)
    assert "disconnected by an operator" not in place.relay.log
    assert "a wrong operator's token" not in place.relay.log


def test_without_javascript_it_is_a_table(place: Place) -> None:
    label = '<b onclick=alert(1)>ada & "bob"'
    place.set_policy(f"[clients.\"{node_key('ada')}\"]\nlabel = '{label}'\n")
    page = place.browser.open(javascript=False)
    with contextlib.closing(place.log_in("ada")):
        page.goto(f"{place.base}/debug/?sort=name")
        shown = page.html()
        (cells,) = re.findall(
            rf'<tr data-id="[^"]+" data-key="{node_key("ada")}">(.*?)</tr>', shown
        )
        assert f"<span>{html.escape(label, quote=False)}</span>" in cells
        assert "127.0.0.1:" in cells
        assert re.search(r"<small>[\d.]+ k?B</small>", cells)
        assert "<b>Version:</b>" in shown
        assert "loaded anew every 5 s" in shown
        # It loads itself again, in the same order, and knows rates then.
        page.wait_for_load(page.loads)
        assert re.search(r"<span>[\d.]+ k?bit/s</span>", page.html())
        assert page.evaluate("location.search") == "?sort=name"
        assert page.complaints == []
        assert not [url for url in page.requests if not url.startswith(f"{place.base}/debug/")]
        assert not [url for url in page.requests if url.endswith((".js", "/events"))]


def test_a_label_is_text_whatever_it_says(place: Place) -> None:
    label = "<img src=x onerror=alert(1)>"
    place.set_policy(f"[clients.\"{node_key('ada')}\"]\nlabel = '{label}'\n")
    page = place.look()
    with contextlib.closing(place.log_in("ada")):
        # By an event, and in the page as it comes.
        for _ in range(2):
            page.until(f"{text('#rows tr td span')} === {json.dumps(label)}")
            open_more(page, "#rows tr button")
            assert page.evaluate(text("#who")) == label
            assert page.evaluate("document.querySelectorAll('img').length") == 0
            page.goto(f"{place.base}/debug/")
        assert page.complaints == []


def test_it_is_live_again_after_a_restart(place: Place) -> None:
    page = place.look()
    place.relay.stop()
    page.until(f"{text('#state')}.startsWith('not live')")
    page.complaints.clear()
    place.relay.start()
    page.until(f"{text('#state')} === 'live'")
    with contextlib.closing(place.log_in("ada")):
        page.until(f"{NUMBER_OF_ROWS} === 1")
    page.until(f"{NUMBER_OF_ROWS} === 0")
    assert page.loads == 1


def test_a_hidden_tab_asks_for_nothing(place: Place) -> None:
    page = place.look()
    other = place.browser.call(
        "Target.createTarget", url="about:blank", browserContextId=page.context
    )
    place.browser.call("Target.activateTarget", targetId=other["targetId"])
    page.until("document.hidden")
    page.until("source === null")
    place.browser.call("Target.activateTarget", targetId=page.target)
    page.until("!document.hidden")
    page.until("source?.readyState === EventSource.OPEN")


CONTRASTS = """
(() => {
  const channels = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = (colour) => {
    const [r, g, b] = channels(colour).map((c) => c / 255)
      .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (element) => {
    for (; element; element = element.parentElement) {
      const colour = getComputedStyle(element).backgroundColor;
      if ((channels(colour)[3] ?? 1) > 0) return colour;
    }
    return 'rgb(255, 255, 255)';
  };
  const found = {};
  for (const element of document.querySelectorAll('main *, header *')) {
    const own = [...element.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
    if (!own || !element.checkVisibility()) continue;
    const [a, b] = [light(getComputedStyle(element).color), light(ground(element))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    const name = `${element.tagName} ${element.className}`;
    found[name] = Math.min(found[name] ?? 99, ratio);
  }
  return found;
})()
"""

PEOPLE = {
    "ada-laptop": "203.0.113.7",
    "build-box": "",
    "kitchen-pi": "",
    "nas": "",
    "phone-grace": "",
}


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 390])
def test_it_can_be_read(place: Place, screenshots: Path, theme: str, width: int) -> None:
    """In both themes, on a screen and on a phone; pictures are kept."""
    entries = [f'[clients."{node_key(name)}"]\nlabel = "{name}"\n' for name in PEOPLE]
    denied = f'[clients."{node_key("mallory")}"]\ndeny = true\n'
    place.set_policy("".join([*entries, denied]))
    assert place.verdict("mallory") == REFUSED
    with contextlib.ExitStack() as stack:
        for number, name in enumerate(PEOPLE, 1):
            stack.enter_context(contextlib.closing(place.log_in(name, f"127.0.7.{number}")))
        stack.enter_context(place.sending())
        page = place.look()
        page.show(width=width, theme=theme)
        page.until(f"{NUMBER_OF_ROWS} === {len(PEOPLE) + 2}")
        page.until(f"{text('#from')}.endsWith('Mbit/s')")
        page.screenshot(screenshots / f"live-{theme}-{width}.png")
        ratios = page.evaluate(CONTRASTS)
        assert {name: ratio for name, ratio in ratios.items() if ratio < 4.5} == {}
        assert len(ratios) > 10
        # Nothing sticks out at the side.
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        open_more(page, "#rows tr button")
        page.screenshot(screenshots / f"more-{theme}-{width}.png", whole=False)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        check_quiet(place, page)
