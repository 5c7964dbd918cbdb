"""Every error that this program raises on purpose, in one tree.

    DerperError
    ├── UsageError          a flag or variable is wrong; exit code 2, nothing bound or written
    ├── StartError          this machine can't serve so (port in use, unreadable key); exit code 1
    ├── ReloadError         a file read again at SIGHUP can't be used; the old values stay
    ├── NoLink              there is no link to another relay for now; it is tried again
    ├── ControlLost         another process of this relay could not be asked
    ├── ExchangeFailed      an HTTP server was asked, and gave no response
    │   └── ConnectFailed       there is no connection to it
    └── ConnectionEnd       why one connection ended, other than by the peer's orderly close
        ├── TooManyConnections  of one network in a second
        ├── TooManyPending      connections of one network that have not logged in
        ├── NoRoom              no memory or descriptor for connections that have not logged in
        ├── PeerVanished        reset, timed out, or closed in the middle of something
        ├── TLSFailed           the TLS handshake failed
        ├── HTTPFailed          not HTTP, too large, or too slow
        ├── LoginRefused        the DERP login broke a rule or came too late
        ├── NotAdmitted         the client may not use the relay, or no source could be asked
        ├── ProtocolViolation   a frame broke a rule after login
        ├── NotPermitted        a mesh-only frame from a client without the mesh key
        ├── ClosedByMesh        a mesh peer asked for it
        ├── WatcherTooSlow      too many presence frames wait for a mesh peer
        ├── WriteTimeout        the peer stopped reading for longer than -tcp-write-timeout
        ├── RelayStopping       the relay ends its connections at a stop
        ├── QueueMemoryFull     too much is queued for all peers, and most of it for this one
        └── InternalFault       a bug

A message is one line, says what was expected, and never holds a private key. An error that
ends a connection reaches its task, which makes one log line and one count of it, under the class's
`reason`.
"""

from typing import ClassVar, Self


class DerperError(Exception):
    """The root of the tree."""


class UsageError(DerperError):
    """A flag or an environment variable has a value that can't be used."""


class StartError(DerperError):
    """The configuration is well-formed, but this machine can't serve it."""


class ReloadError(DerperError):
    """A file that was read again can't be used; what was in force stays in force."""


class NoLink(DerperError):
    """There is no link to another relay for now; `cure` is what to do about it, if known."""

    def __init__(self, reason: str, cure: str | None = None) -> None:
        super().__init__(reason)
        self.cure = cure


class ControlLost(DerperError):
    """Another process of this relay has ended, does not answer, or refused a call."""


class ExchangeFailed(DerperError):
    """An HTTP server was asked, and its response did not come, or not all of it."""


class ConnectFailed(ExchangeFailed):
    """There is no connection to an HTTP server: no address, no TCP, no TLS, or no proxy."""


class ConnectionEnd(DerperError):
    """Why a connection ended; `reason` is its label in logs and metrics."""

    reason: ClassVar[str] = "ended"

    def without_traceback(self) -> Self:
        """Return this error without its traceback, and without its cause, which has one, too.

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
    """The peer reset the connection, or closed it in the middle of something."""

    reason = "peer_vanished"


class TLSFailed(ConnectionEnd):
    """The TLS handshake failed, or a record could not be decrypted."""

    reason = "tls_failed"


class HTTPFailed(ConnectionEnd):
    """The peer does not speak HTTP/1, sent too much of it, or sent it too slowly."""

    reason = "http_failed"


class LoginRefused(ConnectionEnd):
    """The DERP login broke a rule or its deadline."""

    reason = "login_refused"


class NotAdmitted(ConnectionEnd):
    """The client may not use the relay, or no source could be asked (not `authoritative`)."""

    reason = "not_admitted"

    def __init__(self, what: str, *, authoritative: bool = True) -> None:
        super().__init__(what)
        self.authoritative = authoritative


class ProtocolViolation(ConnectionEnd):
    """A frame after login broke a rule of the protocol."""

    reason = "protocol_violation"


class NotPermitted(ConnectionEnd):
    """A mesh-only frame came from a client that is not a mesh peer."""

    reason = "not_permitted"


class ClosedByMesh(ConnectionEnd):
    """A mesh peer asked for the client to be disconnected (ClosePeer)."""

    reason = "closed_by_mesh"


class WatcherTooSlow(ConnectionEnd):
    """A mesh peer that watches reads presence frames more slowly than they come."""

    reason = "watcher_too_slow"


class WriteTimeout(ConnectionEnd):
    """The peer has read nothing for longer than the write timeout."""

    reason = "write_timeout"


class RelayStopping(ConnectionEnd):
    """The relay is stopping, and ends its connections one by one."""

    reason = "relay_stopping"


class QueueMemoryFull(ConnectionEnd):
    """The queues exceed -queue-memory though packets were dropped, and most is for this peer."""

    reason = "queue_memory_full"


class InternalFault(ConnectionEnd):
    """A bug ended the connection; the log has a traceback."""

    reason = "internal_fault"
