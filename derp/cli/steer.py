"""The commands `derper kick`, `deny`, `allow` and `limit`, which act on one client's key."""

import sys
from collections.abc import Mapping, Sequence
from typing import Final

from derp.cli import command_flags, control
from derp.errors import UsageError
from derp.policy import amounts
from derp.wire.control import Request

_KEY: Final = """\
KEY is a node key, its first digits as in derper clients, or a label from the
policy. What was done is printed; the exit code is 0, or 1 if nothing was done,
and 2 for a wrong flag.\
"""

_FILE: Final = """\
It is written into the file of -policy. If that is not possible it holds until
the relay stops, and the answer says so.\
"""

_INTRODUCTIONS: Final = {
    "kick": f"""\
Usage: derper kick KEY [flags]

Ends the connections of a client, which will connect again by itself.
{_KEY}\
""",
    "deny": f"""\
Usage: derper deny KEY [flags]

Refuses a key from now on, whatever else admits it, and ends its connections.
{_FILE}

{_KEY}\
""",
    "allow": f"""\
Usage: derper allow KEY [flags]

Admits a key from now on, whatever -verify-client-file, -verify-clients and
-verify-client-url say.
{_FILE}

{_KEY}\
""",
    "limit": f"""\
Usage: derper limit KEY RATE [flags]

Limits what a client may send, from now on. RATE is as in the policy file, such
as "10 Mbit/s", or unlimited; none takes the key's own limit back, and what
holds for all others holds again.
{_FILE}

{_KEY}\
""",
}

_NONE: Final = "none"


def main(command: str, argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Do what the command says; return the exit code. Raises UsageError and StartError."""
    arguments = control.parse(argv, environ, (), words=True)
    if arguments is None:
        sys.stdout.write(command_flags.help_text(_INTRODUCTIONS[command], ()))
        return 0
    request = _request(command, arguments.words)
    with control.connected(arguments) as relay:
        sys.stdout.write(f"{relay.steer(request)}\n")
    return 0


def _request(command: str, words: Sequence[str]) -> Request:
    if command != "limit":
        if len(words) != 1:
            raise UsageError(f"{command}: want one key; -h explains it")
        return Request(command, words[0])
    if len(words) < 2:
        raise UsageError('limit: want a key and a rate such as "10 Mbit/s", unlimited or none')
    key, *rest = words
    rate = " ".join(rest)
    if rate in {_NONE, amounts.UNLIMITED}:
        return Request(command, key, None if rate == _NONE else rate)
    try:
        amounts.rate(rate)
    except ValueError as error:
        raise UsageError(f"limit: {rate}: {error}, or none") from None
    return Request(command, key, rate)
