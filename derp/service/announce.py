"""The log lines, and the node for the DERP map, that an operator gets once all is served."""

import json
import socket
import sys
from collections.abc import Sequence

from certs.pair import Pair
from derp import derpmap, log
from derp.admission.make import announce as announce_admission
from derp.config import Config
from derp.mesh import setup as mesh_setup
from derp.net import congestion
from derp.net.address import endpoint
from derp.service.sockets import Sockets
from derp.service.startup import StartupResources

logger = log.get("server")


def announce(config: Config, resources: StartupResources) -> None:
    """Log the addresses served, admission and the mesh; print the node for the DERP map."""
    _announce_sockets(resources)
    if config.general.derp and resources.certificates is None and not config.general.dev:
        logger.warning(
            "clients want HTTPS, and this is HTTP: have a proxy serve it, or use port 443, "
            "-certmode manual, -acme-directory, -acme-dns or -acme-dns-exec",
            address=", ".join(map(str, config.listening.addresses)),
        )
    if config.general.derp:
        announce_admission(config, resources.own_checker)
        mesh_setup.announce(config, resources.mesh)
        if not config.general.dev and not config.tcp.congestion:
            hint_at_bbr(resources.sockets, congestion.Kernel.read())
    if resources.certificates is not None and config.tls.hostname_is_ip:
        pair = resources.certificates.statuses[0].pair
        # A certificate that is renewed every few days must not be pinned.
        announce_node(config, resources, None if config.serve_acme else pair)


def hint_at_bbr(sockets: Sockets, kernel: congestion.Kernel) -> None:
    """Log how to have BBR, where the kernel has it and connections do without."""
    used = congestion.algorithm_of(sockets.main[0])
    if (cure := congestion.bbr_cure(used, kernel)) is not None:
        logger.info(
            "this host has BBR, with which slow and lossy paths do better", now=used, cure=cure
        )


def _stun_host(sockets: Sockets) -> str | None:
    """Return the host of the STUN sockets, None if it is that of the main sockets."""
    main, stun = (
        [sock.getsockname()[0] for sock in each if sock.family != socket.AF_UNIX]
        for each in (sockets.main, sockets.stun)
    )
    return next((host for host in stun if host not in main), None)


def _announce_sockets(resources: StartupResources) -> None:
    """Log the addresses served, in the Go derper's words, which scripts wait for."""
    sockets, addresses = resources.sockets, resources.addresses
    tls = resources.certificates is not None
    for sock in sockets.main:
        on_main = f"serving on {addresses[sock]}{' with TLS' if tls else ''}"
        logger.info(on_main, what="HTTPS" if tls else "HTTP", address=_address(sock))
    for sock in sockets.plain:
        on_plain = f"serving on {addresses[sock]}"
        logger.info(on_plain, what="HTTP", address=_address(sock))
    for sock in sockets.stun:
        address = _address(sock)
        on_udp = f"STUN server listening on {address}"
        logger.info(on_udp, what="STUN", address=address)
    for sock in resources.monitoring:
        logger.info("serving monitors", what="metrics", address=_address(sock))


def _address(sock: socket.socket) -> str:
    name = sock.getsockname()
    return f"unix:{name}" if isinstance(name, str) else str(endpoint(name))


def announce_node(config: Config, resources: StartupResources, pair: Pair | None) -> None:
    """Print the DERP map node of a relay that clients reach by IP address."""
    if not config.general.derp and not config.stun.enabled:
        return
    node = derpmap.make_node(
        config,
        None if pair is None else derpmap.pin_for(pair),
        derp_port=_port(resources.sockets.main),
        stun_port=_port(resources.sockets.stun),
        stun_host=_stun_host(resources.sockets),
    )
    if pair is not None and (warning := derpmap.chain_warning(config, pair)) is not None:
        logger.warning(warning)
    # On standard output, to be copied as it is: in the log its quotes would be escaped.
    nodes = [json.dumps(fields, separators=(",", ":")) for fields in node.nodes()]
    what = "this node" if len(nodes) == 1 else "these nodes"
    sys.stdout.write("\n  ".join([f"Put {what} into your DERP map:", *nodes]) + "\n")
    sys.stdout.flush()


def _port(sockets: Sequence[socket.socket]) -> int | None:
    """Return the port of the first socket that has one."""
    ports = (sock.getsockname()[1] for sock in sockets if sock.family != socket.AF_UNIX)
    return next(ports, None)
