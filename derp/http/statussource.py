"""What the answers of the router depend on. Sans-I/O."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence

import attrs

from derp.http.access import DebugAccess
from derp.http.bootstrap_dns import BootstrapDNS


@attrs.frozen(kw_only=True)
class StatusSource:
    """What the answers depend on. The callables are called for each request, as in `Later`."""

    hostname: str
    public_key: bytes
    """The server's node key, 32 bytes."""
    derp: bool = True
    """As in -derp: whether /derp is served."""
    home: str = ""
    """As in -home: empty for our own page, "blank", or a URL to redirect to."""
    bootstrap_dns: BootstrapDNS = attrs.field(factory=BootstrapDNS)
    rows: Callable[[], Awaitable[Sequence[tuple[str, str]]]]
    """Names and values for the top of /debug/."""
    varz: Callable[[], Awaitable[str]]
    """All metrics in the Prometheus text format."""
    expvars: Callable[[], Awaitable[str]]
    """The same as JSON, as Go's expvar has it."""
    problems: Callable[[], Awaitable[Sequence[str]]]
    """What is inconsistent, a line each; empty if all is well."""
    traffic: Callable[[], AsyncGenerator[bytes, None]]
    """Yields JSON lines of clients with traffic, for ever; see `Stream` for its duties."""
    challenges: Mapping[str, str] | None = None
    """Answers to HTTP-01 challenges by their tokens, as of now; None without ACME."""
    debug_access: DebugAccess = attrs.field(factory=DebugAccess)
    """Who may see /debug/."""

    upgrade_answer: bytes = attrs.field(init=False)
    """The 101 answer before raw DERP; its field names and order are the Go derper's."""

    @upgrade_answer.default
    def _make_upgrade_answer(self) -> bytes:
        return (
            "HTTP/1.1 101 Switching Protocols\r\n"
            "Upgrade: DERP\r\n"
            "Connection: Upgrade\r\n"
            "Derp-Version: 2\r\n"
            f"Derp-Public-Key: {self.public_key.hex()}\r\n\r\n"
        ).encode()
