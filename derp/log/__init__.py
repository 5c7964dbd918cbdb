"""Logging: one event a line, with fields, written by a thread of its own.

    from derp import log

    logger = log.get("client")
    logger.info("joined", client=short_key(key), remote=str(endpoint))

The message is a constant, but where scripts wait for the Go derper's words; what varies is a field,
and a field that is None is left out. Names are `derper` and `derper.*` in the standard `logging`,
so that its filters, handlers and pytest's `caplog` see the events too, with the fields as the
attribute `fields` of the record.

At a terminal the line is made for eyes, elsewhere it is logfmt (see `formats`). Nothing that a
stranger sends can end a line, forge a field or reach the terminal as a control sequence, and no
private key gets out. The event loop never waits for whoever reads stderr (see `output`), and
what strangers can cause at will is summed up (see `coalesce`), but for what a ban is made of (see
`tries`), and so is what clients who log in may cause (see `clients`). `logger` is what other
modules call.
"""

from derp.log.clients import ClientEvents, ClientSummary
from derp.log.coalesce import Coalescer, Summary
from derp.log.logger import Logger, get
from derp.log.output import Output, start
from derp.log.tries import Tries

__all__ = [
    "ClientEvents",
    "ClientSummary",
    "Coalescer",
    "Logger",
    "Output",
    "Summary",
    "Tries",
    "get",
    "start",
]
