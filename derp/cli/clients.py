"""The command `derper clients`, which lists who is connected to the running relay."""

import json
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Final

from derp.cli import command_flags, control
from derp.cli.clienttable import as_table
from derp.config.goflags import BOOL, Flag
from derp.wire.control import missing_text

_INTRODUCTION = """\
Usage: derper clients [flags]

Lists the clients that are connected to the running relay, those that have moved
most first: the first digits of the node key, which name it for derper kick,
deny, allow and limit; the label from the policy; the address; since when it is
connected; bytes to it and from it; what waits for it; its rate limit. At the
end: home (the relay is the client's home), twice (its key has more than one
connection), mesh (another relay), over quota.\
"""

_OWN: Final = (
    Flag(
        name="json",
        kind=BOOL,
        default="false",
        group="Output",
        usage="Print JSON, an object a line, in bytes and seconds.",
    ),
)


def main(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """List the clients; return the exit code. Raises UsageError and StartError."""
    arguments = control.parse(argv, environ, _OWN)
    if arguments is None:
        sys.stdout.write(command_flags.help_text(_INTRODUCTION, _OWN))
        return 0
    with control.connected(arguments) as relay:
        clients = relay.clients()
    if not arguments.settings["json"].value:
        sys.stdout.writelines(as_table(clients, relay.silent, time.time()))
        return 0
    sys.stdout.writelines(f"{json.dumps(client)}\n" for client in clients)
    if missing := missing_text(relay.silent):
        sys.stderr.write(f"derper: clients: {missing}; run it again\n")
    return 0
