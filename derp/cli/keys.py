"""The command `derper keys`: which keys are allowed, denied or refused; and a list filled."""

import json
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from derp.admission.listedit import ListChange
from derp.cli import command_flags, control, tailnetstatus
from derp.cli.clienttable import duration
from derp.cli.command_flags import Arguments
from derp.cli.keyfiles import NOBODY_TOLD, KeyFiles
from derp.config.goflags import BOOL, Flag
from derp.errors import NotRunning, StartError, UsageError
from derp.service.control import as_fields
from derp.wire.control import FILL, KEYS, MAX_REQUEST, REFUSED, Request, missing_text
from derp.wire.keys import node_public_text

MAX_STATUS: Final = 64 << 20
"""Bytes of the longest status that is read."""

_INTRODUCTION: Final = """\
Usage: derper keys [flags]

Lists the node keys that are allowed or denied: by the policy, by commands until
the relay stops, by the list of -verify-client-file, by the devices that an API
lists; with the label. With -refused, the keys that were refused last, from
where, and why: derper allow KEY LABEL lets one in. Without a relay that runs,
what the files of -policy and -verify-client-file say.

tailscale status --json | derper keys -from-status adds the nodes of a tailnet
to the list of -verify-client-file, which is made if there is none. It says what
it adds, and removes none.\
"""

_OWN: Final = (
    Flag(
        name="refused",
        kind=BOOL,
        default="false",
        group="Output",
        usage="List the keys that were refused last, the latest first.",
    ),
    Flag(
        name="json",
        kind=BOOL,
        default="false",
        group="Output",
        usage="Print JSON, an object a line.",
    ),
    Flag(
        name="from-status",
        kind=BOOL,
        default="false",
        group="Input",
        usage="Add the nodes that standard input names to the list.",
    ),
)


def main(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """List keys, or fill the list; return the exit code. Raises UsageError and StartError."""
    arguments = control.parse(argv, environ, _OWN)
    if arguments is None:
        sys.stdout.write(command_flags.help_text(_INTRODUCTION, _OWN))
        return 0
    settings = arguments.settings
    if settings["from-status"].value:
        if settings["refused"].value:
            raise UsageError("-from-status and -refused: want one of them")
        _fill(arguments, as_json=bool(settings["json"].value))
        return 0
    is_refused = bool(settings["refused"].value)
    rows, silent = _rows(arguments, REFUSED if is_refused else KEYS)
    if settings["json"].value:
        sys.stdout.writelines(f"{json.dumps(row)}\n" for row in rows)
    else:
        sys.stdout.writelines(_refused_lines(rows, silent) if is_refused else _lines(rows))
    if missing := missing_text(silent, "refusals"):
        sys.stderr.write(f"derper: keys: {missing}; run it again\n")
    return 0


def _rows(arguments: Arguments, do: str) -> tuple[list[dict[str, Any]], Sequence[int]]:
    """Ask the relay, or read the files if none runs; return also the workers that are silent."""
    files = KeyFiles.named_by(arguments)
    try:
        with control.connected(arguments) as relay:
            return relay.rows(do), relay.silent
    except NotRunning:
        if do == REFUSED or not files.given:
            raise
        return [as_fields(status) for status in files.statuses()], ()


def _lines(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if not rows:
        yield "no key is allowed or denied by itself\n"
        return
    width = max(len(str(row["source"])) for row in rows)
    for row in rows:
        what = "allowed" if row["allowed"] else "denied "
        yield f"{what} {row['key']} {row['source']:{width}} {row['label']}".rstrip() + "\n"
    denied = sum(not row["allowed"] for row in rows)
    count = "1 key" if len(rows) == 1 else f"{len(rows)} keys"
    yield f"{count}, {denied} of them denied\n"


def _refused_lines(rows: Sequence[Mapping[str, Any]], silent: Sequence[int]) -> Iterator[str]:
    if not rows and not silent:
        yield "no key was refused since the relay started\n"
    now = time.time()
    for row in rows:
        times = "once" if row["count"] == 1 else f"{row['count']} times, last"
        label = f", {row['label']}" if row["label"] else ""
        yield (
            f"{row['key']} {times} {duration(now - row['last'])} ago from {row['address']}{label}, "
            f"by {row['source']}: {row['reason']}\n"
        )


def _fill(arguments: Arguments, *, as_json: bool) -> None:
    if sys.stdin.isatty():
        raise UsageError("-from-status: want tailscale status --json | derper keys -from-status")
    data = sys.stdin.buffer.read(MAX_STATUS + 1)
    if len(data) > MAX_STATUS:
        raise StartError(f"-from-status: want at most {MAX_STATUS >> 20} MiB")
    try:
        keys = tailnetstatus.parse(data)
    except ValueError as error:
        raise StartError(f"-from-status: {error}") from None
    added, told = _add(arguments, keys)
    if as_json:
        rows = ({"key": node_public_text(key), "label": keys[key]} for key in added)
        sys.stdout.writelines(f"{json.dumps(row)}\n" for row in rows)
        return
    for key in added:
        sys.stdout.write(f"added {node_public_text(key)} {keys[key]}".rstrip() + "\n")
    sys.stdout.write(f"{_sum(len(added), len(keys))}{'' if told else f'; {NOBODY_TOLD}'}\n")


def _add(arguments: Arguments, keys: Mapping[bytes, str]) -> tuple[list[bytes], bool]:
    """Add keys to the list; return those that were not in it, and whether a relay has been told.

    The command writes the file if it may, and else the relay.
    """
    files = KeyFiles.named_by(arguments)
    added: list[bytes] = []
    written = failure = None
    if files.allowlist is not None:
        try:
            add = {key: label or None for key, label in keys.items()}
            written = files.change_list(files.allowlist, ListChange(add, keeps_labels=True))
            added = [*written.added]
        except StartError as error:
            failure = error
    try:
        with control.connected(arguments) as relay:
            for batch in batches(keys):
                added += map(bytes.fromhex, (key[len("nodekey:") :] for key in relay.fill(batch)))
                if written is not None:
                    # It has read all of the file.
                    break
    except NotRunning:
        if failure is not None:
            raise failure from None
        if written is None:
            raise
        return added, False
    return added, True


def batches(keys: Mapping[bytes, str]) -> Iterable[dict[str, str]]:
    """Yield the keys in parts that each fit into a request."""
    part: dict[str, str] = {}
    for key, label in keys.items():
        more = {**part, node_public_text(key): label}
        if len(Request(FILL, keys=more).to_line()) > MAX_REQUEST:
            yield part
            more = {node_public_text(key): label}
        part = more
    if part:
        yield part


def _sum(added: int, of: int) -> str:
    rest = of - added
    kept = f", {rest} {'was' if rest == 1 else 'were'} in the list already" if rest else ""
    return f"{added} {'key is' if added == 1 else 'keys are'} added{kept}"
