"""Every error that this program raises on purpose: DerperError, and the classes below it.

A message is one line, says what was expected, and never holds a private key. A ConnectionEnd
reaches the connection's task, which makes one log line and one count of it, under its `reason`.
"""

from typing import ClassVar, Self


class DerperError(Exception):
    """The root of the tree."""


class UsageError(DerperError):
    """A flag or variable has a wrong value: exit code 2, and nothing is bound or written."""


class StartError(DerperError):
    """This machine can't serve the configuration (port in use, unreadable key): exit code 1."""


class NotRunning(StartError):
    """A command finds no relay at the control socket."""


class ReloadError(DerperError):
    """A file that was read again, as at SIGHUP, can't be used: the old values stay in force."""


class NoLink(DerperError):
    """There is no link to another relay until the next try; `cure` says what to do, if known."""

    def __init__(self, reason: str, cure: str | None = None) -> None:
        super().__init__(reason)
        self.cure = cure


class AccountsFailed(DerperError):
    """The accounts file can't be read or written now; `cure` says what to do."""

    def __init__(self, reason: str, cure: str) -> None:
        super().__init__(reason)
        self.cure = cure


class PolicyNotWritten(DerperError):
    """A change by an operator can't be written into the policy file."""


class ListNotWritten(DerperError):
    """A change by an operator can't be written into the allow-list."""


class SteeringFailed(DerperError):
    """An operator's command to a running relay was not carried out; the message says why."""


class ControlRefused(DerperError):
    """A request on the control socket, or its answer, breaks a rule or can't be served."""


class RPCFailed(DerperError):
    """Another process of this relay has ended, does not answer, or refused a call."""


class RPCTimeout(RPCFailed):
    """Another process of this relay has not answered a call in time; it may yet act on it."""


class ExchangeFailed(DerperError):
    """An HTTP server sent no response to a request, or only a part of one."""


class ConnectFailed(ExchangeFailed):
    """There is no connection to an HTTP server: no address, no TCP, no TLS, or no proxy."""


class DevicesFailed(DerperError):
    """The devices of a tailnet can't be listed now; the message ends with the cure, if known."""

    def __init__(
        self, reason: str, outcome: str = "unknown", *, retry_after: float | None = None
    ) -> None:
        super().__init__(reason)
        self.outcome = outcome
        """The value of an Outcome (derp.admission.model)."""
        self.retry_after = retry_after
        """Seconds for which the API wants no further request; None if it has not said."""


class ConnectionEnd(DerperError):
    """The end of a connection other than by orderly close; `reason` labels logs and metrics."""

    reason: ClassVar[str] = "ended"

    def without_traceback(self) -> Self:
        """Return this error without its traceback, its cause and its context.

        A traceback refers to the stack frame that caught the error, and the frame to the error: a
        cycle, which would keep a connection's memory until the garbage collector runs.
        """
        self.__cause__ = self.__context__ = None
        return self.with_traceback(None)


class TooManyConnections(ConnectionEnd):
    """The peer's network has made too many connections in a second."""

    reason = "too_many_connections"


class TooManyPending(ConnectionEnd):
    """The peer's network has too many connections that have not logged in."""

    reason = "too_many_pending"


class NoRoom(ConnectionEnd):
    """There is no memory or descriptor for a connection that has not logged in."""

    reason = "no_room"


class PeerVanished(ConnectionEnd):
    """The peer reset the connection, timed out, or closed it in the middle of something."""

    reason = "peer_vanished"


class ProxyHeaderFailed(ConnectionEnd):
    """A proxy sent something other than a usable PROXY header, or sent it too slowly."""

    reason = "proxy_header_failed"


class ProxyNotListed(ProxyHeaderFailed):
    """The peer sent a PROXY header, and -proxy-protocol-from does not have its address."""

    def __init__(self) -> None:
        super().__init__("it sends a PROXY header, and -proxy-protocol-from does not have it")


class TLSFailed(ConnectionEnd):
    """The TLS handshake failed, or a record could not be decrypted."""

    reason = "tls_failed"


class HTTPFailed(ConnectionEnd):
    """The peer sent no HTTP/1, or a request that is too large or came too slowly."""

    reason = "http_failed"


class LoginRefused(ConnectionEnd):
    """The DERP login broke a rule or its deadline."""

    reason = "login_refused"


class NotAdmitted(ConnectionEnd):
    """The client may not use the relay, or (not `authoritative`) no source could be asked.

    `source` is the name of the source that refuses; `over_quota`: because a quota is used up.
    """

    reason = "not_admitted"

    def __init__(
        self,
        what: str,
        *,
        authoritative: bool = True,
        source: str = "",
        over_quota: bool = False,
    ) -> None:
        super().__init__(what)
        self.authoritative = authoritative
        self.source = source
        self.over_quota = over_quota


class GroupChanged(ConnectionEnd):
    """A client has come to belong to another group; it may log in again."""

    reason = "group_changed"


class ProtocolViolation(ConnectionEnd):
    """A frame after login broke a rule of the protocol."""

    reason = "protocol_violation"


class NotPermitted(ConnectionEnd):
    """A mesh-only frame came from a client that is not a mesh peer."""

    reason = "not_permitted"


class ClosedByMesh(ConnectionEnd):
    """A mesh peer asked for the client to be disconnected (ClosePeer)."""

    reason = "closed_by_mesh"


class ClosedByOperator(ConnectionEnd):
    """An operator has disconnected the client, by derper kick or on the pages."""

    reason = "closed_by_operator"


class WatcherTooSlow(ConnectionEnd):
    """A watcher reads presence frames more slowly than they come."""

    reason = "watcher_too_slow"


class WriteTimeout(ConnectionEnd):
    """The peer has read nothing for longer than the write timeout."""

    reason = "write_timeout"


class RelayStopping(ConnectionEnd):
    """The relay is stopping, and ends its connections one by one."""

    reason = "relay_stopping"


class QueueMemoryFull(ConnectionEnd):
    """The queues exceed -queue-memory even after drops, and this peer's is the largest."""

    reason = "queue_memory_full"


class InternalFault(ConnectionEnd):
    """A bug ended the connection; the log has a traceback."""

    reason = "internal_fault"
