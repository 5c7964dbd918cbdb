"""Counters of the responder."""

import attrs


@attrs.define
class Stats:
    """The outcomes of datagrams, in the terms of the Go derper's stun metrics."""

    # counter_requests, by disposition
    read_error: int = 0
    not_stun: int = 0
    """Everything that is not answered because of its content."""
    write_error: int = 0
    success: int = 0

    # counter_addrfamily: of valid requests
    ipv4: int = 0
    ipv6: int = 0
