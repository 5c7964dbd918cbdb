"""Logging: one event a line, with fields, written by a thread of its own.

    from derp import log

    logger = log.get("client")
    logger.info("joined", client=short_key(key), remote=str(endpoint))

The message is a constant, except where scripts wait for the Go derper's words; what varies is a
field, and a field that is None is left out. Loggers are `derper` and `derper.*` of the standard
`logging`, so that its filters and handlers and pytest's `caplog` see the events, with the fields as
the record's attribute `fields`.

At a terminal a line is formatted for people, elsewhere as logfmt (`formats`). Nothing that a
stranger sends can end a line, forge a field or reach the terminal as a control sequence, and no
private key is logged. The event loop never waits for a reader of stderr (`output`). Events that
strangers can cause at will are summed up (`coalesce`), and so are joins and leaves of clients
(`clients`); an address that is refused again and again has a few lines of its own (`tries`).
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
