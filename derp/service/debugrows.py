"""The rows at the top of /debug/, and the problems with admission on /debug/check."""

import platform
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Final

from certs.tasks.status import Status
from derp.admission.checker import Checker
from derp.config import Config
from derp.mesh.keeper import Keeper
from derp.metrics import Gauges
from derp.wire.keys import node_public_text, short_key

StatusRow = tuple[str, str]
"""A name and a value."""

_MIB: Final = 1 << 20


def relay_rows(config: Config, gauges: Gauges) -> list[StatusRow]:
    """Describe the relay as a whole."""
    held, limit = gauges.queue_bytes / _MIB, gauges.queue_limit_bytes / _MIB
    return [
        ("Version", gauges.version),
        ("Uptime", f"{gauges.uptime:.0f} s"),
        ("Machine", platform.node()),
        ("TLS hostname", " ".join(config.tls.hostnames)),
        ("Clients", str(gauges.current_connections)),
        ("Queues", f"{held:.1f} of {limit:.1f} MiB"),
    ]


def link_row(keeper: Keeper) -> StatusRow:
    """Describe a link to another relay."""
    link, name = keeper.link, f"Mesh link to {keeper.name}"
    if link is None:
        return name, f"none: {keeper.trouble or 'not tried yet'}"
    clients = f"{len(link.present)} clients there"
    return name, f"{clients}, key {short_key(link.key)}, {link.transport.remote}"


def certificate_rows(statuses: Sequence[Status]) -> Iterator[StatusRow]:
    """Describe the certificates."""
    for status in statuses:
        pair = status.pair
        names = status.certificate.names if pair is None else pair.names
        yield "Certificate", " ".join(names)
        expires = "none yet" if pair is None else f"{pair.not_after:%Y-%m-%d %H:%M} UTC"
        yield "It expires", expires
        if status.replaced_at is not None:
            yield "Last replaced", _when(status.replaced_at)
        if status.failed_at is not None:
            yield "Last failure", f"{_when(status.failed_at)}: {status.failure}"


def admission_rows(checker: Checker | None) -> Iterator[StatusRow]:
    """Describe the allow-list, the sources that fail, and the clients refused last."""
    if checker is None:
        return
    if checker.policy is not None:
        entries = checker.policy.policy.entries.values()
        denied = sum(entry.allowed is False for entry in entries)
        yield "Policy", f"{len(entries)} entries, {denied} of them denied"
    if checker.allowlist is not None:
        yield "Listed node keys", str(len(checker.allowlist.keys))
    for name, reason in checker.troubles.items():
        yield f"Can't ask {name}", reason
    for refused in reversed(checker.refused.values()):
        times = f"{refused.count} times, last {_when(refused.last)}"
        yield f"Refused {node_public_text(refused.key)}", f"{times}: {refused.reason}"


def admission_problems(checker: Checker | None) -> list[str]:
    """Describe each source of admission that fails."""
    troubles = {} if checker is None else checker.troubles
    return [f"can't ask {name} who belongs: {why}" for name, why in troubles.items()]


def _when(unix_time: float) -> str:
    return f"{datetime.fromtimestamp(unix_time, UTC):%Y-%m-%d %H:%M:%S} UTC"
