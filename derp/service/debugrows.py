"""The lines about the relay on /debug/, and the problems with admission on /debug/check."""

import platform
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Final

from certs.tasks.status import Status
from derp.admission.checker import Checker
from derp.admission.refusals import Refusal
from derp.config import Config
from derp.http.liveview import StatusRow
from derp.mesh.keeper import Keeper
from derp.metrics import Gauges
from derp.service.keybook import KeyBook
from derp.wire.keys import node_public_text, short_key

_MIB: Final = 1 << 20


def relay_rows(config: Config, gauges: Gauges) -> list[StatusRow]:
    """Describe the relay as a whole."""
    held, limit = gauges.queue_bytes / _MIB, gauges.queue_limit_bytes / _MIB
    rows = [
        StatusRow("Version", gauges.version),
        StatusRow("Uptime", f"{gauges.uptime:.0f} s"),
        StatusRow("Machine", platform.node()),
        StatusRow("TLS hostname", " ".join(config.tls.hostnames)),
        StatusRow("Clients", str(gauges.current_connections)),
        StatusRow("Queues", f"{held:.1f} of {limit:.1f} MiB"),
    ]
    if config.stun.enabled:
        answered, other = f"{gauges.stun_success} requests answered", gauges.stun_not_stun
        rows.append(StatusRow("STUN", f"{answered}, {other} other datagrams"))
    return rows


def link_row(keeper: Keeper) -> StatusRow:
    """Describe a link to another relay."""
    link, name = keeper.link, f"Mesh link to {keeper.name}"
    if link is None:
        return StatusRow(name, f"none: {keeper.trouble or 'not tried yet'}", "Mesh")
    clients = f"{len(link.present)} clients there"
    remote = link.transport.remote
    return StatusRow(name, f"{clients}, key {short_key(link.key)}, {remote}", "Mesh")


def certificate_rows(statuses: Sequence[Status]) -> Iterator[StatusRow]:
    """Describe the certificates."""
    row = partial(StatusRow, section="Certificates")
    for status in statuses:
        pair = status.pair
        names = status.certificate.names if pair is None else pair.names
        yield row("Certificate", " ".join(names))
        expires = "none yet" if pair is None else f"{pair.not_after:%Y-%m-%d %H:%M} UTC"
        yield row("It expires", expires)
        if status.replaced_at is not None:
            yield row("Last replaced", _when(status.replaced_at))
        if status.failed_at is not None:
            yield row("Last failure", f"{_when(status.failed_at)}: {status.failure}")


def refused_rows(refusals: Sequence[Refusal], book: KeyBook) -> Iterator[StatusRow]:
    """Describe the keys refused last; the latest comes first."""
    for refused in refusals:
        label = book.label_of(refused.key)
        times = f"{refused.count} times, last {_when(refused.last)} from {refused.address}"
        name = f"Refused {node_public_text(refused.key)}"
        value = ", ".join(filter(None, [label, times])) + f": {refused.reason}"
        yield StatusRow(name, value, "Refused keys")


def admission_rows(checker: Checker | None) -> Iterator[StatusRow]:
    """Describe the lists, and the sources that fail."""
    if checker is None:
        return
    row = partial(StatusRow, section="Admission")
    if checker.sources.policy is not None:
        entries = checker.sources.policy.policy.entries.values()
        denied = sum(entry.allowed is False for entry in entries)
        yield row("Policy", f"{len(entries)} entries, {denied} of them denied")
    if checker.sources.allowlist is not None:
        yield row("Listed node keys", str(len(checker.sources.allowlist.keys)))
    for source in checker.sources.devices:
        if (devices := source.devices) is not None:
            value = f"{len(devices.expiries)}, listed {_when(devices.listed_at)}"
            yield row(f"Devices of {source.name}", value)
    for name, reason in checker.troubles.items():
        yield row(f"Can't ask {name}", reason)


def admission_problems(checker: Checker | None) -> list[str]:
    """Describe each source of admission that fails."""
    troubles = {} if checker is None else checker.troubles
    return [f"can't ask {name} who belongs: {why}" for name, why in troubles.items()]


def _when(unix_time: float) -> str:
    return f"{datetime.fromtimestamp(unix_time, UTC):%Y-%m-%d %H:%M:%S} UTC"
