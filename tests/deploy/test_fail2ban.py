"""The filter and the jail for fail2ban, with the real one where it is installed."""

import logging
import os
import re
import select
import shutil
import socket
import subprocess
from configparser import RawConfigParser
from pathlib import Path

import pytest

from derp import errors
from derp.log.formats import Logfmt
from derp.log.tries import PER_ADDRESS, WINDOW
from tests.deploy.files import DEPLOY
from tests.patience import PATIENCE
from tests.process import derper

pytestmark = pytest.mark.slow

FILTER = DEPLOY / "fail2ban/filter.d/derper.conf"
JAIL = DEPLOY / "fail2ban/jail.d/derper.conf"
CONFIG = """
[Definition]
logtarget = STDOUT
socket = {home}/socket
pidfile = {home}/pid
dbfile = None
"""
ACTION = """
[Definition]
actionban = echo <ip> >{told}
"""
HERE = """
[derper]
backend = polling
logpath = {log}
action = tell
ignoreip =
"""


def program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"there is no {name}")
    return found


def refused(remote: str, reason: str, tries: int | None = 1, proxy: str = "") -> str:
    """Return the line about a refusal, as the relay writes it."""
    record = logging.makeLogRecord({"name": "derper", "levelname": "INFO", "msg": "refused"})
    through = {"proxy": proxy} if proxy else {}
    record.fields = {"remote": remote, **through, "tries": tries, "reason": reason}
    return Logfmt().format(record)


def found(log: Path, lines: list[str], mode: str = "normal") -> list[str]:
    log.write_text("".join(f"{line}\n" for line in lines), "utf-8")
    command = [program("fail2ban-regex"), "-o", "ip", str(log), f"{FILTER}[mode={mode}]"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True)
    return done.stdout.split()


def test_lines_that_count(tmp_path: Path) -> None:
    lines = [
        refused("203.0.113.1:1", "not_admitted: nodekey:00 is refused by file: it is not listed"),
        refused("203.0.113.2:1", "login_refused: client info is not JSON"),
        refused("203.0.113.3:1", "http_failed: not a well-formed HTTP/1.1 request", 4711),
        refused("[2001:db8::4]:1", "http_failed: not a well-formed HTTP/1.1 request"),
        refused("[::ffff:203.0.113.5]:1", "http_failed: not a well-formed HTTP/1.1 request"),
        refused("203.0.113.7:0", "login_refused: client info is not JSON", proxy="10.0.0.1:1"),
        f"host derper[12]: {refused('203.0.113.6:1', 'login_refused: client info is not JSON')}",
    ]
    addresses = [f"203.0.113.{n}" for n in (1, 2, 3)]
    assert found(tmp_path / "log", lines) == [*addresses, "2001:db8::4"] + [
        f"203.0.113.{n}" for n in (5, 7, 6)
    ]


def test_lines_that_do_not_count(tmp_path: Path) -> None:
    forged = refused("203.0.113.9:1", "http_failed: not a well-formed HTTP/1.1 request")
    lines = [
        refused("203.0.113.1:1", "not_admitted: nodekey:00 is refused by tailscaled", None),
        refused("203.0.113.2:1", "http_failed: no request within 30 s"),
        refused("203.0.113.3:1", "http_failed: took no answer within 30 s"),
        refused("203.0.113.4:1", "login_refused: no client info within 10 s"),
        refused("203.0.113.5:1", "tls_failed: no TLS handshake within 30 s"),
        refused("203.0.113.6:1", "tls_failed: wrong version number"),
        refused("203.0.113.7:1", "too_many_pending: x"),
        # What a peer has sent, had it got into a line, in whatever place.
        refused("203.0.113.8:1", f"peer_vanished: {forged}"),
        refused("203.0.113.8:1", f"peer_vanished: host derper[1]: {forged}"),
        refused("203.0.113.8:1", f"peer_vanished: \n{forged}"),
        refused("203.0.113.8:1", f'peer_vanished: "{forged}'),
        refused("203.0.113.8:1", f"peer_vanished: x\r\n{forged}", None),
    ]
    assert found(tmp_path / "log", lines) == []
    assert found(tmp_path / "log", lines, "aggressive") == ["203.0.113.6"]


def test_the_reasons_are_those_of_the_relay() -> None:
    ends = (errors.NotAdmitted, errors.LoginRefused, errors.HTTPFailed, errors.TLSFailed)
    reasons = re.findall(r"\w+_(?:admitted|refused|failed)\b", FILTER.read_text("utf-8"))
    assert set(reasons) == {end.reason for end in ends}


def test_an_address_has_enough_lines_for_the_jail() -> None:
    jail = RawConfigParser()
    jail.read(JAIL, "utf-8")
    assert int(jail["derper"]["maxretry"]) <= PER_ADDRESS
    assert jail["derper"]["findtime"] == f"{WINDOW / 60:.0f}m"
    assert jail["derper"]["filter"] == FILTER.stem


def configured(home: Path) -> Path:
    """Set up fail2ban in a folder of its own, with our files and an action that tells."""
    for folder in ("filter.d", "jail.d", "action.d"):
        (home / folder).mkdir(parents=True)
    shutil.copy(FILTER, home / "filter.d")
    shutil.copy(JAIL, home / "jail.d")
    told = home / "told"
    os.mkfifo(told)
    (home / "fail2ban.conf").write_text(CONFIG.format(home=home), "utf-8")
    (home / "jail.conf").write_text("", "utf-8")
    (home / "jail.local").write_text(HERE.format(log=home / "log"), "utf-8")
    (home / "action.d/tell.conf").write_text(ACTION.format(told=told), "utf-8")
    return told


def test_who_is_refused_too_often_is_banned(tmp_path: Path) -> None:
    """The first jail that bans is that of the address that comes for the fifth time."""
    server = program("fail2ban-server")
    home = tmp_path / "fail2ban"
    told = os.open(configured(home), os.O_RDWR)
    with derper(tmp_path, tls=False) as relay:
        port = int(relay.wait_for(r"address=127\.0\.0\.1:(\d+)")[1])
        # Not 127.0.0.1, from where proxies come.
        for host, count in (("127.0.0.1", 10), ("127.0.0.3", 4), ("127.0.0.2", 5)):
            for _ in range(count):
                with socket.create_connection(("127.0.0.1", port), PATIENCE, (host, 0)) as client:
                    client.sendall(b"\x16\x03\x01 no HTTP\r\n\r\n")
                    while client.recv(4096):
                        pass
        relay.wait_for(r"remote=127\.0\.0\.2:\d+ tries=5")
        relay.stop()
    (home / "log").write_text("\n".join([*relay.log, ""]), "utf-8")
    command = [server, "-c", str(home), "-f", "-x", "start"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as jail:
        try:
            ready, _, _ = select.select([told], [], [], PATIENCE)
            banned = os.read(told, 4096).decode().split() if ready else []
        finally:
            jail.terminate()
            output = jail.communicate(timeout=PATIENCE)[0].decode()
            os.close(told)
    assert banned == ["127.0.0.2"], output
