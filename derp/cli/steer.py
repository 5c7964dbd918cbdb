"""The commands `derper kick`, `deny`, `allow` and `limit`, which act on one client's key."""

import contextlib
import sys
from collections.abc import Mapping, Sequence
from typing import Final

from derp.cli import command_flags, control
from derp.cli.command_flags import Arguments
from derp.cli.keyfiles import NOBODY_TOLD, KeyFiles
from derp.errors import NotRunning, StartError, UsageError
from derp.policy import amounts
from derp.wire.control import Request
from derp.wire.keys import KeyFormatError, parse_node_public

_KEY: Final = """\
KEY is a node key, its first digits as in derper clients, or a label from the
policy or the list. What was done is printed; the exit code is 0, or 1 if
nothing was done, and 2 for a wrong flag.\
"""

_FILE: Final = """\
It is written into the file of -policy. If that is not possible it holds until
the relay stops, and the answer says so.\
"""

_FILES: Final = """\
It is written into the file of -policy, with LABEL, or without one into the list
of -verify-client-file. If that is not possible it holds until the relay stops,
and the answer says so. The command itself writes the file that its flags name
where no relay runs, and a list that the relay may not write.\
"""

_INTRODUCTIONS: Final = {
    "kick": f"""\
Usage: derper kick KEY [flags]

Ends the connections of a client, which will connect again by itself.
{_KEY}\
""",
    "deny": f"""\
Usage: derper deny KEY [LABEL] [flags]

Refuses a key from now on, whatever else admits it, and ends its connections.
{_FILES}

{_KEY}\
""",
    "allow": f"""\
Usage: derper allow KEY [LABEL] [flags]

Admits a key from now on, whatever -verify-clients and -verify-client-url say.
{_FILES}

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
_IN_FILES: Final = ("deny", "allow")
"""The commands that need no relay."""


def main(command: str, argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Do what the command says; return the exit code. Raises UsageError and StartError."""
    arguments = control.parse(argv, environ, (), words=True)
    if arguments is None:
        sys.stdout.write(command_flags.help_text(_INTRODUCTIONS[command], ()))
        return 0
    request = _request(command, arguments.words)
    files = KeyFiles.named_by(arguments)
    if command in _IN_FILES and files.given:
        sys.stdout.write(f"{_steer_with_files(arguments, request, files)}\n")
        return 0
    with control.connected(arguments) as relay:
        sys.stdout.write(f"{relay.steer(request)}\n")
    return 0


def _steer_with_files(arguments: Arguments, request: Request, files: KeyFiles) -> str:
    """Have the relay do it, and the command itself where none runs; return what was done.

    The relay may not be allowed to write the list, so the command does if it may. The relay then
    finds it written.
    """
    allowed, label = request.do == "allow", request.label
    try:
        with control.connected(arguments) as relay:
            with contextlib.suppress(StartError, KeyFormatError):
                if files.policy is None:
                    files.change(parse_node_public(request.key), label, allowed=allowed)
            return relay.steer(request)
    except NotRunning:
        done = files.change(files.key_named(request.key), label, allowed=allowed)
        return f"{done}; {NOBODY_TOLD}"


def _request(command: str, words: Sequence[str]) -> Request:
    if command in _IN_FILES:
        if not words:
            raise UsageError(f"{command}: want a key, and a label if you like; -h explains it")
        return Request(command, words[0], label=" ".join(words[1:]) or None)
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
