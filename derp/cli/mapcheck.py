"""The problems that clients would have with a relay's entry in a DERP map, seen from here.

Each address of the name is probed, because clients may use any; one that this machine has no route
to is skipped, if there are others.
"""

import ipaddress
import os
import ssl
from datetime import UTC, datetime
from typing import Final

import attrs
import certifi
import trio
from cryptography import x509

from certs.hostname import parse_ip
from certs.pair import cert_pin
from derp.cli import probe
from derp.cli.probe import NoDERP, NoSTUN, NoTLS, NotReached
from derp.derpmap import Node
from derp.net import tlserrors
from derp.net.address import Endpoint
from derp.net.oserrors import plain_reason

TIMEOUT: Final = 5.0
"""Seconds for the look-up of the name, and then for each address's answers over TCP and UDP."""


async def problems(node: Node) -> list[str]:
    """Probe the relay of `node`; return a line for each problem, with what to do about it."""
    found: dict[str, list[str]] = {name: [] for name in node.hostnames}
    asked: set[Endpoint] = set()

    async def probe_as(name: str) -> None:
        found[name] = await _problems(attrs.evolve(node, hostname=name, more_hostnames=()), asked)

    async with trio.open_nursery() as nursery:
        for name in node.hostnames:
            nursery.start_soon(probe_as, name)
    return list(dict.fromkeys(line for lines in found.values() for line in lines))


async def _problems(node: Node, asked: set[Endpoint]) -> list[str]:
    """Probe a relay by one name; those in `asked` have been asked for STUN by another."""
    addresses = await _resolve(node.hostname)
    if isinstance(addresses, str):
        return [addresses]
    found: dict[str, list[str]] = {address: [] for address in addresses}
    without_route: list[str] = []

    async def probe_one(address: str) -> None:
        try:
            found[address] = await _probe_address(node, address, asked)
        except NotReached as failure:
            if failure.no_route:
                without_route.append(f"{failure}; check from a machine that has a route")
            else:
                found[address] = [f"{failure}; {_how_to_open('TCP', node.derp_port)}"]

    stun_problems: list[str] = []

    async def probe_stun(address: str) -> None:
        stun_problems.extend(await _probe_stun(node, address, asked))

    async with trio.open_nursery() as nursery:
        for address in addresses:
            nursery.start_soon(probe_one, address)
        if node.stun_address is not None:
            nursery.start_soon(probe_stun, str(node.stun_address))
    lines = _loopback_problem(node.hostname, addresses)
    for address in addresses:
        lines += found[address]
    if len(without_route) == len(addresses):
        lines += without_route
    return lines + stun_problems


async def _resolve(hostname: str) -> list[str] | str:
    """Return the addresses of the name, or the problem with it."""
    if (address := parse_ip(hostname)) is not None:
        return [str(address)]
    with trio.move_on_after(TIMEOUT):
        try:
            found = await trio.socket.getaddrinfo(hostname, None, type=trio.socket.SOCK_STREAM)
        except OSError as error:
            reason = plain_reason(error)
            return f"{hostname} has no address ({reason}); give it an A record, or correct it"
        return list(dict.fromkeys(str(address[0]) for *_, address in found))
    return f"the look-up of {hostname} takes too long; see to this machine's DNS"


def _loopback_problem(hostname: str, addresses: list[str]) -> list[str]:
    """Return a problem if this machine resolves its own name to loopback, as Debian does."""
    if parse_ip(hostname) is not None or hostname == "localhost":
        return []
    return [
        f"{hostname} is {address} on this machine, so the check is not what clients see; "
        f"remove it from /etc/hosts, or check from another machine"
        for address in addresses
        if ipaddress.ip_address(address).is_loopback
    ]


async def _probe_address(node: Node, address: str, asked: set[Endpoint]) -> list[str]:
    """Return the problems at one address. Raises NotReached."""
    found = []
    if node.derp_port is not None:
        found += await _probe_derp(node, Endpoint(address, node.derp_port))
    if node.stun_address is None:
        found += await _probe_stun(node, address, asked)
    return found


async def _probe_stun(node: Node, address: str, asked: set[Endpoint]) -> list[str]:
    """Return the problem with STUN at one address, which STUN does not know by its name."""
    if node.stun_port is None or (where := Endpoint(address, node.stun_port)) in asked:
        return []
    asked.add(where)
    try:
        await probe.stun(where, trio.current_time() + TIMEOUT)
    except NoSTUN as failure:
        return [f"{failure}; {_how_to_open('UDP', node.stun_port)}"]
    return []


def _how_to_open(protocol: str, port: int | None) -> str:
    return (
        f"start the relay, and open {protocol} {port} to it in firewalls and to its container "
        f"(from behind the same NAT, check from elsewhere)"
    )


async def _probe_derp(node: Node, where: Endpoint) -> list[str]:
    """Return the problems with TLS and DERP. Raises NotReached."""
    found: list[str] = []
    try:
        if node.pin is None:
            try:
                await _probe_over_tls(node, where, _verifying_context(), found)
            except NoTLS as failure:
                if not isinstance(failure.error, ssl.SSLCertVerificationError):
                    raise
                found.append(_certificate_problem(failure.error, node.hostname))
            else:
                return found
        await _probe_over_tls(node, where, probe.insecure_context(), found)
    except NoTLS as failure:
        found.append(_tls_problem(failure, node.hostname))
    except NoDERP as failure:
        found.append(f"{failure}; a proxy in front of the relay has to pass upgrades on")
    return found


async def _probe_over_tls(
    node: Node, where: Endpoint, context: ssl.SSLContext, found: list[str]
) -> None:
    """Connect and upgrade; add problems with the pin to `found`. Raises ProbeFailed."""
    deadline = trio.current_time() + TIMEOUT
    tcp = await probe.connect(where, deadline)
    try:
        tls = await probe.handshake(tcp, where, context, node.hostname, deadline)
        if node.pin is not None:
            found += _pin_problems(tls.getpeercert(binary_form=True) or b"", node.pin)
        await probe.upgrade(tls, where, node.hostname, deadline)
        await probe.close(tls, deadline)
    finally:
        tcp.socket.close()


def _verifying_context() -> ssl.SSLContext:
    """Return a context with the roots of SSL_CERT_FILE, or this machine's and Mozilla's.

    Slim containers have no roots of their own.
    """
    context = ssl.create_default_context()
    if not (os.environ.get("SSL_CERT_FILE") or os.environ.get("SSL_CERT_DIR")):
        context.load_verify_locations(certifi.where())
    return context


def _certificate_problem(error: ssl.SSLCertVerificationError, hostname: str) -> str:
    cure = "have another one issued"
    if error.verify_code in tlserrors.NAME_MISMATCHES:
        cure = f"have one issued for {hostname}"
    elif error.verify_code == tlserrors.CERT_HAS_EXPIRED:
        cure = "renew it"
    elif error.verify_code == tlserrors.CERT_NOT_YET_VALID:
        cure = "set the clock of this machine, or of the one that issued it"
    elif error.verify_code in tlserrors.UNTRUSTED:
        cure = "serve its intermediates with it, or take one of an authority that clients trust"
    return f"clients refuse the certificate ({error.verify_message}); {cure}"


def _tls_problem(failure: NoTLS, hostname: str) -> str:
    if failure.reason == tlserrors.INTERNAL_ERROR:
        return f"{failure}: there is no certificate yet; the relay's log says why"
    if failure.reason == tlserrors.UNRECOGNIZED_NAME:
        return f"{failure}: the relay is not {hostname}; want its -hostname"
    return f"{failure}; clients need HTTPS there, so find out what answers"


def _pin_problems(leaf: bytes, pin: str) -> list[str]:
    served = cert_pin(leaf)
    if served != pin:
        other = f"the relay serves the certificate {served}, not that of the files, {pin}"
        return [f"{other}; send it SIGHUP, or give the flags that it has"]
    certificate, now = x509.load_der_x509_certificate(leaf), datetime.now(UTC)
    end, begin = certificate.not_valid_after_utc, certificate.not_valid_before_utc
    if now > end:
        why, cure = f"it expired on {end:%Y-%m-%d %H:%M} UTC", "renew it"
    elif now < begin:
        why, cure = f"it begins on {begin:%Y-%m-%d %H:%M} UTC", "set the clock"
    else:
        return []
    return [f"clients refuse the certificate ({why}); {cure}"]
