"""The command `derper healthcheck`, which asks whether the relay on this machine serves clients.

It asks as a client would, up to the login: TLS, the upgrade to DERP, STUN. It connects to the
first address of -a, and asks for the -hostname: for a wildcard to loopback, or, with -interface, to
the address of that. The certificate's name and issuer are not checked, but its dates are, as
clients refuse an expired one.
"""

import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

import attrs
import trio
from cryptography import x509

from derp.cli import command_flags, probe
from derp.cli.probe import NoDERP, NoSTUN, NoTLS, NotReached, ProbeFailed, Where
from derp.config import Config
from derp.net import tlserrors
from derp.net.address import Endpoint
from derp.net.interfaces import address_of
from derp.net.listenaddress import Address, UnixSocket
from derp.net.listener import FAMILIES
from derp.net.oserrors import plain_reason

TIMEOUT: Final = 4.5
"""Seconds for all probes: with the start of the program, below 5."""

_LOOPBACK: Final = {0: "127.0.0.1", 4: "127.0.0.1", 6: "::1"}
"""By Address.version."""

_INTRODUCTION = """\
Usage: derper healthcheck [flags]

Asks the relay that runs on this machine for TLS, DERP and STUN, as a client
would, but does not log in. Prints one line; the exit code is 0 if all is well,
1 if not, and 2 for a wrong flag.\
"""

_SAME_FLAGS: Final = "give the health check the flags and variables of the relay"
_LOG_AND_FLAGS: Final = f"look into the relay's log, and {_SAME_FLAGS}"
_CURES: Final[dict[type[ProbeFailed], str]] = {
    NotReached: f"start the relay there, or {_SAME_FLAGS}",
    NoTLS: _LOG_AND_FLAGS,
    NoDERP: _LOG_AND_FLAGS,
    NoSTUN: f"{_LOG_AND_FLAGS}: -stun=false if it answers none",
}


class Unhealthy(ProbeFailed):
    """The relay answers, but clients would refuse it. The message has the cure."""


@attrs.frozen
class Healthy:
    """The answers of a relay that serves clients."""

    where: Where
    tls: str | None
    """The version of TLS, as `ssl` names it; None without TLS."""
    expires: datetime | None
    key: bytes | None
    """The relay's node key; None if it serves no DERP."""
    stun: Endpoint | None

    def __str__(self) -> str:
        what = "pages" if self.key is None else "DERP"
        parts = [f"{what} at {self.where}{f' over {self.tls}' if self.tls else ''}"]
        if self.expires is not None:
            parts.append(f"certificate until {self.expires:%Y-%m-%d %H:%M} UTC")
        if self.stun is not None:
            parts.append(f"STUN at {self.stun}")
        if self.key is not None:
            parts.append(f"key {self.key.hex()}")
        return ", ".join(parts)


def main(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Probe the relay, print one line, and return the exit code. Raises UsageError."""
    arguments = command_flags.parse(argv, environ, ())
    if arguments is None:
        sys.stdout.write(command_flags.help_text(_INTRODUCTION, ()))
        return 0
    config = arguments.config
    want = "any free port; want the one that the relay has"
    first = config.listening.addresses[0]
    if isinstance(first, Address) and first.port == 0:
        raise arguments.settings["a"].wrong(want)
    if config.stun.enabled and config.stun_addresses[0].port == 0:
        raise arguments.settings["stun-port"].wrong(want)
    try:
        healthy = trio.run(examine, config)
    except ProbeFailed as failure:
        sys.stderr.write(f"derper: unhealthy: {failure}{_cure(failure, config)}\n")
        return 1
    sys.stdout.write(f"healthy: {healthy}\n")
    return 0


def _cure(failure: ProbeFailed, config: Config) -> str:
    if isinstance(failure, NoTLS):
        if failure.reason == tlserrors.INTERNAL_ERROR and config.serve_acme:
            authority = config.acme.directory or config.tls.mode
            return (
                f": the certificate for {config.tls.hostname} from {authority} is awaited; "
                f"if that lasts, the relay's log says why"
            )
        if failure.reason == tlserrors.UNRECOGNIZED_NAME:
            return f": the relay is not {config.tls.hostname}; want its -hostname"
    cure = _CURES.get(type(failure))
    return f"; {cure}" if cure else ""


async def examine(config: Config) -> Healthy:
    """Probe the relay that runs with `config`, for TIMEOUT seconds at most. Raises ProbeFailed."""
    deadline = trio.current_time() + TIMEOUT
    first = config.listening.addresses[0]
    where: Where = (
        first if isinstance(first, UnixSocket) else await _find("-a", first, config, deadline)
    )
    tcp = await probe.connect(where, deadline, config.proxies.with_header)
    stream: trio.abc.Stream = tcp
    version = expires = key = None
    try:
        if config.serve_tls:
            context = probe.insecure_context()
            tls = await probe.handshake(tcp, where, context, config.tls.hostname, deadline)
            stream, version = tls, tls.version()
            expires = _expiry(tls.getpeercert(binary_form=True), datetime.now(UTC))
        if config.general.derp:
            key = await probe.upgrade(stream, where, config.tls.hostname, deadline)
        else:
            await probe.latency_check(stream, where, config.tls.hostname, deadline)
        await probe.close(stream, deadline)
    finally:
        tcp.socket.close()
    stun = None
    if config.stun.enabled:
        flag = "-stun-addr" if config.stun.addresses else "-a"
        stun = await _find(flag, config.stun_addresses[0], config, deadline)
        await probe.stun(stun, deadline, config.proxies.with_header)
    return Healthy(where, version, expires, key, stun)


async def _find(flag: str, address: Address, config: Config, deadline: float) -> Endpoint:
    """Return where to probe for an address of a flag, which errors quote. Raises NotReached."""
    if address.is_wildcard:
        interface = config.listening.interface
        own = address_of(interface) if interface else _LOOPBACK[address.version]
        if own is None:
            raise NotReached(f"-interface {interface} has no address")
        return Endpoint(own, address.port)
    with trio.move_on_at(deadline):
        try:
            family = FAMILIES[address.version]
            kind = trio.socket.SOCK_STREAM
            found = await trio.socket.getaddrinfo(address.host, None, family, kind)
        except OSError as error:
            raise NotReached(f"{flag} {address}: {plain_reason(error)}") from error
        return Endpoint(str(found[0][4][0]), address.port)
    raise NotReached(f"{flag} {address}: the look-up of the name takes too long")


def _expiry(leaf: bytes | None, now: datetime) -> datetime:
    """Return when the certificate expires. Raises Unhealthy if it is not valid now."""
    if leaf is None:
        raise Unhealthy("the relay shows no certificate; look into its log")
    certificate = x509.load_der_x509_certificate(leaf)
    expires = certificate.not_valid_after_utc
    if now > expires:
        raise Unhealthy(
            f"the served certificate expired on {expires:%Y-%m-%d %H:%M} UTC, and clients refuse "
            f"it; renew it, or see in the relay's log why it is not renewed"
        )
    begins = certificate.not_valid_before_utc
    if now < begins:
        raise Unhealthy(
            f"the served certificate is not valid before {begins:%Y-%m-%d %H:%M} UTC; "
            f"set this machine's clock"
        )
    return expires
