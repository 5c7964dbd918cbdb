"""The part of the configuration about devices that may use the relay, as an API lists them.

All flags are additions to the Go derper's. Where there are several lists, there is one credential
for all of them, or as many as lists, in the same order.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final, TypeVar

import attrs

from derp.config import checks
from derp.config.field import ConfigError, flags_of, option
from derp.config.goflags import DURATION, FILE, STRING, Flag

T = TypeVar("T")

TAILSCALE: Final = "https://api.tailscale.com"

_SEPARATOR: Final = re.compile(r"[\s,]+")
_TAILNET: Final = re.compile(r"[A-Za-z0-9._@+-]{1,253}")
_TAG: Final = re.compile(r"tag:[A-Za-z][A-Za-z0-9-]*")
_BASE_URL: Final = re.compile(r"https?://[A-Za-z0-9.:\[\]_-]+(/[A-Za-z0-9._~/-]*)?")
_SECRET: Final = re.compile(r"[!-+\--~]+")


def _list_of(
    pattern: re.Pattern[str], want: str
) -> Callable[[str | Iterable[str]], tuple[str, ...]]:
    """Return a check for a list of texts; in a string, commas or spaces separate them."""

    def check(value: str | Iterable[str]) -> tuple[str, ...]:
        given = _SEPARATOR.split(value.strip()) if isinstance(value, str) else value
        found = tuple(text for text in given if text)
        if not all(map(pattern.fullmatch, found)) or len({*found}) < len(found):
            raise ValueError(want)
        return found

    return check


_tailnets = _list_of(
    _TAILNET, "want the name of a tailnet, such as example.com, or - for the credential's own; once"
)
_tags = _list_of(_TAG, "want tags such as tag:server, with commas between them, each once")
_secrets = _list_of(_SECRET, "want what the API has given, in ASCII, with commas between several")


def _files(value: str | Iterable[Path]) -> tuple[Path, ...]:
    """Check a list of paths; in a string, commas separate them."""
    if not isinstance(value, str):
        return tuple(value)
    return tuple(Path(text) for part in value.split(",") if (text := part.strip()))


def _headscales(value: str | Iterable[str]) -> tuple[str, ...]:
    """Check a list of addresses, as `base_url`; in a string, commas or spaces separate them."""
    given = _SEPARATOR.split(value.strip()) if isinstance(value, str) else value
    found = tuple(base_url(text) for text in given if text)
    if len({*found}) < len(found):
        raise ValueError("want each headscale once")
    return found


def base_url(value: str) -> str:
    """Check the address of an API: http or https, host and path only; return it without a `/`."""
    if not _BASE_URL.fullmatch(value) or not checks.is_url(value):
        raise ValueError("want a URL that begins with http:// or https://, without user and query")
    return value.rstrip("/")


@attrs.frozen(kw_only=True)
class Credential:
    """The credential for one list."""

    where: str
    """The flag and the variable of the secret."""
    value: str = attrs.field(default="", repr=False)
    """The secret: an API key, or that of an OAuth client; empty if it is in a file."""
    path: Path | None = None
    """The file of the secret."""
    client_id: str = ""
    """The id of an OAuth client; empty with an API key."""


@attrs.frozen(kw_only=True)
class DeviceLists:
    """The lists of devices to ask for, and the credentials."""

    tailnets: tuple[str, ...] = option(
        "verify-tailnet",
        STRING,
        _tailnets,
        variable="DERP_VERIFY_TAILNET",
        placeholder="NAME",
        separator=" ",
        usage="Admit the devices of this tailnet, as Tailscale's API lists them, by its name; - is "
        "the credential's own. May be given more than once, or with commas.",
    )
    tags: tuple[str, ...] = option(
        "verify-tailnet-tags",
        STRING,
        _tags,
        variable="DERP_VERIFY_TAILNET_TAGS",
        placeholder="LIST",
        usage="Of the devices that -verify-tailnet and -verify-headscale list, admit only those "
        "with one of these tags.",
    )
    keep: float = option(
        "verify-tailnet-keep",
        DURATION,
        checks.duration_up_to(365 * 24 * 3600.0, "8760h"),
        default="24h",
        variable="DERP_VERIFY_TAILNET_KEEP",
        usage="How long the last list of devices counts while its API is away, across a restart, "
        "too.",
    )
    api: str = option(
        "verify-tailnet-api",
        STRING,
        base_url,
        default=TAILSCALE,
        variable="DERP_VERIFY_TAILNET_API",
        placeholder="URL",
        secret=True,
        usage="Where Tailscale's API is.",
    )
    client_ids: tuple[str, ...] = option(
        "tailnet-client-id",
        STRING,
        _secrets,
        variable="DERP_TAILNET_CLIENT_ID",
        placeholder="ID",
        separator=" ",
        usage="The id of an OAuth client that may read the devices of -verify-tailnet (scope "
        "devices:core:read). One for all tailnets, or one for each, in their order.",
    )
    client_secrets: tuple[str, ...] = option(
        "tailnet-client-secret",
        STRING,
        _secrets,
        variable="DERP_TAILNET_CLIENT_SECRET",
        placeholder="SECRET",
        separator=" ",
        secret=True,
        usage="Its secret. Other users of this machine can see a flag: better in the variable, or "
        "in a file.",
    )
    client_secret_files: tuple[Path, ...] = option(
        "tailnet-client-secret-file",
        FILE,
        _files,
        variable="DERP_TAILNET_CLIENT_SECRET_FILE",
        separator=",",
        usage="A file with nothing but that secret.",
    )
    api_keys: tuple[str, ...] = option(
        "tailnet-api-key",
        STRING,
        _secrets,
        variable="DERP_TAILNET_API_KEY",
        placeholder="KEY",
        separator=" ",
        secret=True,
        usage="In place of an OAuth client, a key of Tailscale's API, which ends after 90 days at "
        "most.",
    )
    api_key_files: tuple[Path, ...] = option(
        "tailnet-api-key-file",
        FILE,
        _files,
        variable="DERP_TAILNET_API_KEY_FILE",
        separator=",",
        usage="A file with nothing but that key, read anew each time.",
    )
    headscales: tuple[str, ...] = option(
        "verify-headscale",
        STRING,
        _headscales,
        variable="DERP_VERIFY_HEADSCALE",
        placeholder="URL",
        separator=" ",
        secret=True,
        usage="Admit the nodes of the headscale at this URL, as its API lists them. May be given "
        "more than once, or with commas.",
    )
    headscale_keys: tuple[str, ...] = option(
        "headscale-api-key",
        STRING,
        _secrets,
        variable="DERP_HEADSCALE_API_KEY",
        placeholder="KEY",
        separator=" ",
        secret=True,
        usage="The key of that API, which 'headscale apikeys create' prints. One for all, or one "
        "for each, in their order.",
    )
    headscale_key_files: tuple[Path, ...] = option(
        "headscale-api-key-file",
        FILE,
        _files,
        variable="DERP_HEADSCALE_API_KEY_FILE",
        separator=",",
        usage="A file with nothing but that key, read anew each time.",
    )

    @property
    def given(self) -> bool:
        """Whether there is any list."""
        return bool(self.tailnets or self.headscales)

    @property
    def tailnet_credentials(self) -> Sequence[Credential]:
        """The credential of each tailnet."""
        credentials = _credentials(self, _OAUTH_SECRETS if self.client_ids else _API_KEYS)
        ids = _for_each(self.client_ids, self.tailnets) or [""] * len(self.tailnets)
        found = _for_each(credentials, self.tailnets)
        return [attrs.evolve(one, client_id=id_) for one, id_ in zip(found, ids, strict=True)]

    @property
    def headscale_credentials(self) -> Sequence[Credential]:
        """The credential of each headscale."""
        return _for_each(_credentials(self, _HEADSCALE_KEYS), self.headscales)

    def __attrs_post_init__(self) -> None:
        """Check the rules between fields. Raises ConfigError."""
        if self.tags and not self.given:
            want = "want -verify-tailnet or -verify-headscale with it"
            raise ConfigError("verify-tailnet-tags", ",".join(self.tags), want)
        if self.client_ids and not (self.client_secrets or self.client_secret_files):
            want = "want -tailnet-client-secret-file with it"
            raise ConfigError("tailnet-client-id", ",".join(self.client_ids), want)
        for name in _OAUTH_SECRETS:
            if getattr(self, name) and not self.client_ids:
                raise ConfigError(_flag(name).name, "", "want -tailnet-client-id with it")
        oauth_or_key = (*_OAUTH_SECRETS, *_API_KEYS)
        want = "want -tailnet-client-id and -tailnet-client-secret-file, or -tailnet-api-key-file"
        self._check("verify-tailnet", self.tailnets, oauth_or_key, want)
        self._check_count("tailnet-client-id", self.client_ids, self.tailnets)
        want = "want -headscale-api-key-file with it"
        self._check("verify-headscale", self.headscales, _HEADSCALE_KEYS, want)

    def _check(self, flag: str, lists: Sequence[str], names: Sequence[str], want: str) -> None:
        """Check that there are secrets for `lists`, in one of the fields `names`."""
        given = [name for name in names if getattr(self, name)]
        if lists and not given:
            raise ConfigError(flag, "", f"{want}, or their variables")
        if given and not lists:
            raise ConfigError(_flag(given[0]).name, "", f"want -{flag} with it")
        if len(given) > 1:
            want = f"want it or -{_flag(given[0]).name}, not both"
            raise ConfigError(_flag(given[1]).name, "", want)
        for name in given:
            self._check_count(_flag(name).name, getattr(self, name), lists)

    def _check_count(self, flag: str, given: Sequence[object], lists: Sequence[str]) -> None:
        if len(given) > 1 and len(given) != len(lists):
            raise ConfigError(
                flag,
                "",
                f"{len(given)} of them; want one, or one for each of the {len(lists)} lists",
            )


_OAUTH_SECRETS: Final = ("client_secrets", "client_secret_files")
_API_KEYS: Final = ("api_keys", "api_key_files")
_HEADSCALE_KEYS: Final = ("headscale_keys", "headscale_key_files")


def _flag(field: str) -> Flag:
    return flags_of(DeviceLists)[field]


def _credentials(lists: DeviceLists, names: tuple[str, str]) -> list[Credential]:
    """Return the credentials in two fields: of values, and of files."""
    wheres = [f"-{flag.name} ({flag.variable})" for flag in map(_flag, names)]
    values, files = (getattr(lists, name) for name in names)
    return [
        *(Credential(where=wheres[0], value=value) for value in values),
        *(Credential(where=wheres[1], path=path) for path in files),
    ]


def _for_each(given: Sequence[T], lists: Sequence[str]) -> list[T]:
    """Return one of `given` for each list; where there is one, it is for all."""
    return [*given] * len(lists) if len(given) == 1 else [*given]
