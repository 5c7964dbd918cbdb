"""The command `derper healthcheck`, which asks whether the relay on this machine serves clients.

It asks as a client would, up to the login: TLS, the upgrade to DERP, STUN. It connects to the
address of -a, or to loopback if that is a wildcard, and asks for the -hostname. The certificate's
name and issuer are not checked, but its dates are, as clients refuse an expired one.
"""

import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

import attrs
import trio
from cryptography import x509

from derp.cli import command_flags, probe
from derp.cli.probe import Failure, NoDERP, NoSTUN, NoTLS, NotReached
from derp.config import Config
from derp.net import tlserrors
from derp.net.address import WILDCARDS, Endpoint

TIMEOUT: Final = 4.5
"""Seconds for all probes: with the start of the program, below 5."""

_LOOPBACK: Final = "127.0.0.1"

_INTRODUCTION = """\
Usage: derper healthcheck [flags]

Asks the relay that runs on this machine for TLS, DERP and STUN, as a client
would, but does not log in. Prints one line; the exit code is 0 if all is well,
1 if not, and 2 for a wrong flag.\
"""

_SAME_FLAGS: Final = "give the health check the flags and variables of the relay"
_LOG_AND_FLAGS: Final = f"look into the relay's log, and {_SAME_FLAGS}"
_CURES: Final[dict[type[Failure], str]] = {
    NotReached: f"start the relay there, or {_SAME_FLAGS}",
    NoTLS: _LOG_AND_FLAGS,
    NoDERP: _LOG_AND_FLAGS,
    NoSTUN: f"{_LOG_AND_FLAGS}: -stun=false if it answers none",
}


class Unhealthy(Failure):
    """The relay answers, but clients would refuse it. The message has the cure."""


@attrs.frozen
class Healthy:
    """The answers of a relay that serves clients."""

    where: Endpoint
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
    if config.listening.address.port == 0:
        raise arguments.settings["a"].wrong(want)
    if config.stun.enabled and config.stun.port == 0:
        raise arguments.settings["stun-port"].wrong(want)
    try:
        healthy = trio.run(examine, config)
    except Failure as failure:
        sys.stderr.write(f"derper: unhealthy: {failure}{_cure(failure, config)}\n")
        return 1
    sys.stdout.write(f"healthy: {healthy}\n")
    return 0


def _cure(failure: Failure, config: Config) -> str:
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
    """Probe the relay that runs with `config`, for TIMEOUT seconds at most. Raises Failure."""
    deadline = trio.current_time() + TIMEOUT
    host = await _address(config.listening.address.host, f"-a {config.listening.address}", deadline)
    where = Endpoint(host, config.listening.address.port)
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
            await probe.pages(stream, where, config.tls.hostname, deadline)
        await probe.close(stream, deadline)
    finally:
        tcp.socket.close()
    stun = None
    if config.stun.enabled:
        if config.stun.host:
            given = f"-stun-addr {config.stun.host}"
            host = await _address(config.stun_host, given, deadline)
        stun = Endpoint(host, config.stun.port)
        await probe.stun(stun, deadline, config.proxies.with_header)
    return Healthy(where, version, expires, key, stun)


async def _address(host: str, given: str, deadline: float) -> str:
    """Return the address to probe for `host`; errors quote the flag, `given`. Raises NotReached."""
    if host in WILDCARDS:
        return _LOOPBACK
    with trio.move_on_at(deadline):
        try:
            found = await trio.socket.getaddrinfo(host, None, type=trio.socket.SOCK_STREAM)
        except OSError as error:
            raise NotReached(f"{given}: {error.strerror or error}") from error
        return str(found[0][4][0])
    raise NotReached(f"{given}: the look-up of the name takes too long")


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
