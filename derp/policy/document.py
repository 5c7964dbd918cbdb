"""The policy file's bytes to a Policy. Sans-I/O.

    [defaults]                      # for every key, also those without an entry
    rate = "20 Mbit/s"

    [clients."nodekey:0123…cdef"]   # one key; what is said here comes before the defaults
    label = "printer"
    rate = "2 Mbit/s"
    quota = "50 GB/month"
    throttle = "500 kbit/s"         # over quota; or: refuse = true

It is TOML 1.0. A file with a mistake is refused as a whole: half a policy could admit whom the
other half denies. NAMES, DEFAULTS and the patterns in `amounts` are what deploy/policy.schema.json
says, too.
"""

import re
import tomllib
from collections.abc import Callable, Iterable
from typing import Any, Final

from derp.config.strconv import quoted
from derp.files.ratelimit import MIN_BURST, NO_LIMIT, RateConfig
from derp.policy import amounts, lines
from derp.policy.model import Entry, Policy, Quota
from derp.wire.keys import KeyFormatError, parse_node_public

MAX_SIZE: Final = 1 << 20
"""Bytes of the largest policy that is read: some thousands of entries."""
MAX_LINE: Final = 4096
"""Characters of the longest line."""
MAX_LABEL: Final = 64
"""Characters of the longest label."""

_HEADER: Final = '[clients."nodekey:…"], with 64 hex digits'
_POSITION: Final = re.compile(r" \((?:at line (\d+), column \d+|at end of document)\)$")
_UNQUOTED: Final = re.compile(r"""[^"'#]*=\s*[^\s"'\[{]""")

Path = tuple[str, ...]
Said = dict[str, Any]
"""What a table says, by name: true or false for BOOL, else a label, bytes, or bytes a second."""


class PolicyFormError(ValueError):
    """A file is no policy; the message is one line, with the number of the wrong one."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(f"line {line}: {message}")
        self.line = line


class _Wrong(ValueError):
    """A mistake at `path`."""

    def __init__(self, path: Path, message: str) -> None:
        super().__init__(message)
        self.path = path


def parse(data: bytes) -> Policy:
    """Return the policy in a file. Raises PolicyFormError."""
    text = _decode(data)
    try:
        return _policy(_read(text))
    except _Wrong as error:
        raise PolicyFormError(lines.line_of(text, error.path), str(error)) from None


def _decode(data: bytes) -> str:
    if len(data) > MAX_SIZE:
        line = data.count(b"\n", 0, MAX_SIZE) + 1
        raise PolicyFormError(line, f"the file is too large; want {MAX_SIZE >> 20} MiB at most")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise PolicyFormError(line, "not UTF-8; save the file in that encoding") from None
    for number, line_text in enumerate(text.split("\n"), 1):
        if len(line_text) > MAX_LINE:
            raise PolicyFormError(number, f"too long; want {MAX_LINE} characters at most")
    return text


def _read(text: str) -> dict[str, Any]:
    """Return the TOML document."""
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise PolicyFormError(1, "brackets in brackets without end; want a flat file") from None
    except ValueError as error:
        message, every = str(error), text.split("\n")
        match = _POSITION.search(message)
        line = len(every) if match is None or match[1] is None else int(match[1])
        what = message[: match.start()] if match is not None else "not TOML"
        raise PolicyFormError(line, _explain(what, every, line)) from None


def _explain(what: str, every: list[str], line: int) -> str:
    """Return tomllib's message with the cure."""
    wrong = every[line - 1].strip()
    if what.startswith(("Cannot declare", "Cannot overwrite")):
        if not wrong.startswith("["):
            return "said a second time in the same table; want it once"
        first = lines.line_of("\n".join(every[: line - 1]), lines.names_in(wrong))
        return f"a second table {quoted(wrong)}; put it into the first one, on line {first}"
    if wrong.startswith("["):
        cure = f"a key stands in quotes: {_HEADER}"
    elif _UNQUOTED.match(wrong):
        cure = 'text stands in quotes, as in rate = "10 Mbit/s"; true and false do not'
    else:
        cure = 'want TOML, as in rate = "10 Mbit/s"'
    return f"{quoted(what)}; {cure}"


# The checks of values.


def label(text: str) -> str:
    """Return a label. Raises ValueError."""
    if not 1 <= len(text) <= MAX_LABEL or not text.isprintable():
        raise ValueError(f"want a label of 1 to {MAX_LABEL} printable characters")
    return text


def _group(text: str) -> str:
    if not 1 <= len(text) <= MAX_LABEL or not text.isprintable():
        raise ValueError(f"want the name of a group, of 1 to {MAX_LABEL} printable characters")
    return text


def rate_limit(text: str) -> RateConfig:
    """Return the rate limit without a burst of its own."""
    if text == amounts.UNLIMITED:
        return NO_LIMIT
    return _limit(amounts.rate(text))


def _throttle(text: str) -> RateConfig:
    if text == amounts.UNLIMITED:
        raise ValueError('want a rate such as "1 Mbit/s"')
    return _limit(amounts.rate(text))


def _limit(bytes_per_second: int) -> RateConfig:
    return RateConfig(bytes_per_second, max(MIN_BURST, bytes_per_second // 4))


def _quota(text: str) -> tuple[int, str] | None:
    return None if text == amounts.UNLIMITED else amounts.quota(text)


_TEXTS: Final[dict[str, Callable[[str], Any]]] = {
    "label": label,
    "group": _group,
    "rate": rate_limit,
    "burst": amounts.burst,
    "quota": _quota,
    "throttle": _throttle,
}
_FLAGS: Final = ("allow", "deny", "refuse")
NAMES: Final = (*_TEXTS, *_FLAGS)
"""What may be said about a key."""
DEFAULTS: Final = tuple(name for name in NAMES if name not in {"label", "group", "allow"})
"""What may be said as a default."""
TABLES: Final = ("defaults", "clients")


def _policy(document: dict[str, Any]) -> Policy:
    if not document:
        # More likely a full disk or a mistake than the intent to lift all that was said.
        raise _Wrong((), "nothing in it; want [defaults] at least, with or without a line under it")
    _check_names(document, TABLES, ())
    defaults = _said(_table(document, "defaults", (), "[defaults]"), ("defaults",), DEFAULTS)
    default = _entry({}, defaults, ("defaults",))
    entries: dict[bytes, Entry] = {}
    clients = _table(document, "clients", (), _HEADER)
    for name in clients:
        path = ("clients", name)
        try:
            key = parse_node_public(name)
        except KeyFormatError as error:
            raise _Wrong(path, f"{quoted(name)}: {error}; want {_HEADER}") from None
        if key in entries:
            raise _Wrong(path, f"a second entry for {quoted(name)}; want one for each key")
        own = _said(_table(clients, name, ("clients",), _HEADER), path, NAMES)
        entries[key] = _entry(own, defaults, path)
    return Policy(entries, default)


def _table(within: dict[str, Any], name: str, path: Path, want: str) -> dict[str, Any]:
    table = within.get(name, {})
    if not isinstance(table, dict):
        raise _Wrong((*path, name), f"not a table; want {want}, and a line for each setting")
    return table


def _check_names(table: Iterable[str], known: tuple[str, ...], path: Path) -> None:
    for name in table:
        if name in known:
            continue
        if not path and name.startswith("nodekey:"):
            raise _Wrong((name,), f"want {_HEADER}")
        if name in NAMES:
            where = "under [defaults] or in an entry" if not path else f"in an entry {_HEADER}"
            raise _Wrong((*path, name), f"{name} has no place here; want it {where}")
        import difflib  # noqa: PLC0415 - only a mistake needs it

        near = difflib.get_close_matches(name, known, 1)
        meant = f" did you mean {near[0]}?" if near else ""
        raise _Wrong(
            (*path, name), f"unknown name {quoted(name)};{meant} want one of {', '.join(known)}"
        )


def _said(table: dict[str, Any], path: Path, known: tuple[str, ...]) -> Said:
    """Check what a table says, each name by itself."""
    _check_names(table, known, path)
    said: Said = {}
    for name, value in table.items():
        at = (*path, name)
        if name in _FLAGS:
            if not isinstance(value, bool):
                raise _Wrong(at, f"{name}: want true or false, without quotes")
            said[name] = value
            continue
        if not isinstance(value, str):
            raise _Wrong(at, f"{name}: want text in quotes, as in {_example(name)}")
        try:
            said[name] = _TEXTS[name](value)
        except ValueError as error:
            raise _Wrong(at, f"{name} {quoted(value)}: {error}") from None
    return said


def _example(name: str) -> str:
    examples = {"label": "printer", "group": "guests", "burst": "1 MB", "quota": "200 GB/month"}
    return f'{name} = "{examples.get(name, "10 Mbit/s")}"'


def _entry(own: Said, defaults: Said, path: Path) -> Entry:
    """Return what is said about a key, with the defaults filled in."""
    return Entry(
        own.get("label", ""),
        _allowed(own, defaults, path),
        _limit_of(own, defaults, path),
        _quota_of(own, defaults, path),
        own.get("group", ""),
    )


def _allowed(own: Said, defaults: Said, path: Path) -> bool | None:
    if own.get("allow") is False:
        raise _Wrong((*path, "allow"), "allow = false: want deny = true, or neither of both")
    if own.get("allow"):
        if own.get("deny"):
            raise _Wrong((*path, "deny"), "both allow and deny; want one of them")
        return True
    return False if own.get("deny", defaults.get("deny")) else None


def _limit_of(own: Said, defaults: Said, path: Path) -> RateConfig | None:
    limit: RateConfig | None = own.get("rate", defaults.get("rate"))
    if limit is None or limit == NO_LIMIT:
        if "burst" in own:
            raise _Wrong((*path, "burst"), "burst without a rate; want rate with it")
        return limit
    burst = own.get("burst", defaults.get("burst"))
    return limit if burst is None else RateConfig(limit.bytes_per_second, burst)


def _quota_of(own: Said, defaults: Said, path: Path) -> Quota | None:
    whole = {**defaults, **own}
    for name, other in (("throttle", "refuse"), ("refuse", "throttle")):
        if own.get(name) and other not in own:
            whole.pop(other, None)
    if whole.get("throttle") and whole.get("refuse"):
        both = own if "refuse" in own else defaults
        where = path if both is own else ("defaults",)
        raise _Wrong((*where, "refuse"), "both throttle and refuse; want one of them")
    quota = whole.get("quota")
    if quota is None:
        for name in ("throttle", "refuse"):
            if own.get(name):
                raise _Wrong((*path, name), f"{name} without a quota; want quota with it")
        return None
    throttle: RateConfig | None = whole.get("throttle")
    if throttle is None and not whole.get("refuse"):
        where = path if "quota" in own or "refuse" in own else ("defaults",)
        raise _Wrong(
            (*where, "quota"),
            'a quota, and nothing that happens over it; want throttle = "1 Mbit/s" '
            "or refuse = true with it",
        )
    size, period = quota
    return Quota(size, period, throttle)
