"""The tailscaled of the relay's machine, which knows the keys of its tailnet.

Its LocalAPI is HTTP/1.1 over a unix socket, opened anew for each request, because a tailscaled that
is restarted makes a new socket.

    whois?addr=nodekey:HEX    200  a node of the tailnet; in most versions the machine itself, too
                              404  no such node; in some versions the machine itself: then
    status?peers=false             the machine's own key; whether tailscaled is connected

    whois?addr=nodekey:HEX    400  "invalid 'addr' parameter": tailscaled before 1.70; then
    status                         the keys of all nodes

Matches Go's WhoIsNodeKey (client/local) and serveWhoIs, serveStatus (ipn/localapi).
"""

import errno
import json
import os
from pathlib import Path
from typing import Final

import trio

from derp.admission.model import ANSWER_TIMEOUT, Outcome, Question, Verdict
from derp.errors import ExchangeFailed
from derp.net.httpclient import Connection
from derp.net.oserrors import os_errors
from derp.wire.keys import node_public_text

WHOIS_LIMIT: Final = 1 << 20
"""Bytes of an answer about one node."""
STATUS_LIMIT: Final = 16 << 20
"""Bytes of an answer about all nodes, of some 1 KiB each."""

_API: Final = "/localapi/v0"
_HEADERS: Final = [
    ("Host", "local-tailscaled.sock"),
    ("Accept-Encoding", "identity"),
    # The version of the LocalAPI that is spoken here (Go: tailcfg.CurrentCapabilityVersion).
    ("Tailscale-Cap", "142"),
]
_OK: Final = 200
_BAD_REQUEST: Final = 400
_FORBIDDEN: Final = 403
_NOT_FOUND: Final = 404
_TOO_OLD: Final = b"invalid 'addr' parameter"


class _NoVerdict(Exception):
    """The response of tailscaled has no verdict; the message says why, with the cure."""


class Tailscaled:
    """tailscaled as a source; this process needs permission to open its socket."""

    def __init__(
        self, socket: Path, name: str = "tailscaled", timeout: float = ANSWER_TIMEOUT
    ) -> None:
        self.name = name
        self._socket = socket
        self._timeout = timeout
        self._allowed = Verdict(Outcome.ALLOWED, name)
        self._not_known = Verdict(Outcome.REFUSED, name, "not known to tailscaled")

    async def ask(self, question: Question) -> Verdict:
        """Ask whether the client's key is that of a node in the tailnet."""
        reason = (
            f"tailscaled at -socket {self._socket} gave no answer within {self._timeout:g} s; "
            "restart it if that lasts"
        )
        outcome = Outcome.LATE
        with trio.move_on_after(self._timeout):
            try:
                return await self._ask(question.key)
            except _NoVerdict as error:
                outcome, reason = Outcome.UNKNOWN, str(error)
            except OSError as error:
                outcome, reason = Outcome.UNREACHABLE, await self._explain(error)
            except ExchangeFailed as error:
                outcome = Outcome.UNKNOWN
                reason = (
                    f"-socket {self._socket} gives no whole HTTP answer ({error}); "
                    "check that it is the socket of tailscaled"
                )
        return Verdict(outcome, self.name, reason)

    async def _ask(self, key: bytes) -> Verdict:
        node = node_public_text(key)
        code, body = await self._get(f"/whois?addr={node}", WHOIS_LIMIT)
        if code == _OK:
            self._object(body)
            return self._allowed
        if code == _NOT_FOUND:
            path = "/status?peers=false"
        elif code == _BAD_REQUEST and _TOO_OLD in body:
            path = "/status"
        else:
            raise self._bad_status(code)
        code, body = await self._get(path, STATUS_LIMIT)
        if code != _OK:
            raise self._bad_status(code)
        status = self._object(body)
        own, nodes, state = status.get("Self"), status.get("Peer"), status.get("BackendState")
        # A tailscaled that is logged out reports the all-zero key as its own.
        if isinstance(own, dict) and own.get("PublicKey") == node and any(key):
            return self._allowed
        if isinstance(nodes, dict) and node in nodes:
            return self._allowed
        if isinstance(state, str) and state != "Running":
            raise _NoVerdict(
                f"tailscaled is not connected to its tailnet ({state!r:.40}); "
                "run 'tailscale up', or wait if it has just been started"
            )
        return self._not_known

    async def _get(self, path: str, limit: int) -> tuple[int, bytes]:
        """Return the status code and the body.

        Raises OSError where there is no connection, ExchangeFailed, _NoVerdict.
        """
        connection = Connection(await trio.open_unix_socket(str(self._socket)))
        body = bytearray()
        try:
            response = await connection.send("GET", _API + path, _HEADERS)
            while len(body) <= limit and (piece := await connection.read()):
                body += piece
        finally:
            await connection.close()
        if len(body) > limit:
            raise _NoVerdict(
                f"-socket {self._socket} answers with more than {limit >> 20} MiB; "
                "check that it is the socket of tailscaled"
            )
        return response.status_code, bytes(body)

    def _object(self, body: bytes) -> dict[str, object]:
        try:
            value = json.loads(body)
        except (ValueError, RecursionError):
            value = None
        if isinstance(value, dict):
            return value
        raise _NoVerdict(
            f"-socket {self._socket} answers with something other than a JSON object; "
            "check that it is the socket of tailscaled"
        )

    def _bad_status(self, code: int) -> _NoVerdict:
        cure = "check that it is the socket of tailscaled, and look at its log"
        if code == _FORBIDDEN:
            cure = "run derper as root, or as the user named with 'tailscale set --operator'"
        return _NoVerdict(f"-socket {self._socket} answers with HTTP status {code}; {cure}")

    async def _explain(self, error: OSError) -> str:
        """Return the problem with the socket, with the cure."""
        where = f"-socket {self._socket}"
        causes = list(os_errors(error))
        code = causes[-1].errno
        if code in (errno.ENOENT, errno.ECONNREFUSED):
            if (removed := await trio.to_thread.run_sync(_removed, self._socket)) is not None:
                return f"{where}: {removed}"
            what = "no such socket" if code == errno.ENOENT else "nobody listens there"
            return (
                f"{where}: {what}; start tailscaled, or name its socket "
                "(in a container, mount the directory it is in, not the socket, and have systemd "
                "keep that: RuntimeDirectoryPreserve=yes)"
            )
        if code in (errno.EACCES, errno.EPERM):
            return f"{where}: permission denied; run derper as a user who may open it"
        return f"{where} can't be opened ({causes[-1]})"


def _removed(socket: Path) -> str | None:
    """Return the problem, with the cure, if only a bind mount keeps a removed socket; else None.

    systemd removes a unit's RuntimeDirectory when the unit stops, and makes another.
    """
    path = Path(os.path.realpath(socket))
    if _is_removed(path.parent):
        return (
            "the directory it was in has been removed, and a mount keeps what is left of it; "
            "restart the container, and set RuntimeDirectoryPreserve=yes in tailscaled.service, so "
            "that a restart of tailscaled keeps the directory"
        )
    if _is_removed(path):
        return (
            "it has been removed, and a mount keeps what is left of it; mount the directory it is "
            "in, not the socket"
        )
    return None


def _is_removed(path: Path) -> bool:
    try:
        return path.stat().st_nlink == 0
    except OSError:
        return False
