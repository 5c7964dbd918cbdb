"""The back end of the HTTP front end: the relay as the router sees it. Sans-I/O."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence

import attrs

from derp.http.access import DebugAccess
from derp.http.bootstrap_dns import BootstrapDNS
from derp.http.livepage import PageOptions
from derp.http.steer import Operator, Outcome
from derp.wire.control import Command


@attrs.frozen(kw_only=True)
class Backend:
    """The relay behind the pages. The callables are called anew for each request."""

    hostname: str
    public_key: bytes
    """The relay's node key, 32 bytes."""
    derp: bool = True
    """As in -derp: whether /derp is served."""
    home: str = ""
    """As in -home: empty for the built-in page, "blank", or a URL to redirect to."""
    bootstrap_dns: BootstrapDNS = attrs.field(factory=BootstrapDNS)
    page: Callable[[PageOptions], Awaitable[bytes]]
    """The page at /debug/."""
    events: Callable[[str], AsyncGenerator[bytes, None]]
    """The changes of it, as server-sent events, with the clients in an order of SORTS; endless."""
    varz: Callable[[], Awaitable[str]]
    """All metrics in the Prometheus text format."""
    expvars: Callable[[], Awaitable[str]]
    """All metrics as JSON, like Go's expvar."""
    problems: Callable[[], Awaitable[Sequence[str]]]
    """Inconsistencies, a line each; empty if all is well."""
    traffic: Callable[[], AsyncGenerator[bytes, None]]
    """JSON lines of clients with traffic, endless; `chunks` of a `Stream`."""
    challenges: Mapping[str, str] | None = None
    """Current answers to HTTP-01 challenges by token; None without ACME."""
    debug_access: DebugAccess = attrs.field(factory=DebugAccess)
    """Who may see /debug/."""
    operator: Operator = attrs.field(factory=Operator)
    """Who may steer, of those that may see /debug/."""
    steer: Callable[[Command, str], Awaitable[Outcome]]
    """Carries out the command of an operator at an address."""

    def in_clear(self) -> "Backend":
        """Return the same for the plain port beside TLS."""
        return attrs.evolve(self, debug_access=attrs.evolve(self.debug_access, in_clear=True))

    upgrade_answer: bytes = attrs.field(init=False)
    """The 101 answer before raw DERP, with the Go derper's field names in its order."""

    @upgrade_answer.default
    def _make_upgrade_answer(self) -> bytes:
        return (
            "HTTP/1.1 101 Switching Protocols\r\n"
            "Upgrade: DERP\r\n"
            "Connection: Upgrade\r\n"
            "Derp-Version: 2\r\n"
            f"Derp-Public-Key: {self.public_key.hex()}\r\n\r\n"
        ).encode()
