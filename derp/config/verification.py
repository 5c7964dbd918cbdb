"""The part of the configuration that says who may use the relay.

-verify-clients, -socket, -verify-client-url and -verify-client-url-fail-open are those of the Go
derper (Server.verifyClient), the others are ours.
"""

import math
from pathlib import Path
from typing import Final

import attrs

from derp.config import checks
from derp.config.field import ConfigError, option
from derp.config.goflags import BOOL, DURATION, STRING

# ruff: noqa: RUF009 - option is attrs.field with a check

VERIFY: Final = "Who may use the relay"


@attrs.frozen(kw_only=True, slots=False)
class VerifyOptions:
    """What the operator decides about clients. Without any of it all of them may."""

    verify_clients: bool = option(
        "verify-clients",
        BOOL,
        "false",
        bool,
        group=VERIFY,
        variable="DERP_VERIFY_CLIENTS",
        usage="Admit only clients that the tailscaled on this machine knows.",
    )
    socket: Path = option(
        "socket",
        STRING,
        "",
        checks.socket,
        group=VERIFY,
        variable="DERP_SOCKET",
        placeholder="FILE",
        default_words=str(checks.TAILSCALED_SOCKET),
        usage="The socket of that tailscaled.",
    )
    verify_client_url: tuple[str, ...] = option(
        "verify-client-url",
        STRING,
        "",
        checks.urls,
        group=VERIFY,
        variable="DERP_VERIFY_CLIENT_URL",
        placeholder="URL",
        repeatable=True,
        secret=True,
        usage="Admit only clients that this admission controller allows, such as headscale's "
        "/verify. May be given more than once: one that allows is enough.",
    )
    verify_client_url_fail_open: bool = option(
        "verify-client-url-fail-open",
        BOOL,
        "true",
        bool,
        group=VERIFY,
        variable="DERP_VERIFY_CLIENT_URL_FAIL_OPEN",
        usage="Admit clients while no URL can be reached.",
    )
    verify_client_url_ca_bundle: Path | None = option(
        "verify-client-url-ca-bundle",
        STRING,
        "",
        checks.path,
        group=VERIFY,
        variable="DERP_VERIFY_CLIENT_URL_CA_BUNDLE",
        placeholder="FILE",
        usage="Certificates in PEM that vouch for the URLs, where the usual ones don't.",
    )
    verify_client_url_authorization: str = option(
        "verify-client-url-authorization",
        STRING,
        "",
        checks.header_value,
        group=VERIFY,
        variable="DERP_VERIFY_CLIENT_URL_AUTHORIZATION",
        placeholder="VALUE",
        secret=True,
        usage="Authorization header for the URLs, such as 'Bearer TOKEN'.",
    )
    verify_client_file: Path | None = option(
        "verify-client-file",
        STRING,
        "",
        checks.path,
        group=VERIFY,
        variable="DERP_VERIFY_CLIENT_FILE",
        placeholder="FILE",
        never_empty=True,
        want="want a file with node keys; leave the flag out to have no list",
        usage="Admit clients whose node keys are in this file, one a line, and others only if "
        "-verify-clients or -verify-client-url admit them; read again when it changes.",
    )
    verify_remember: float = option(
        "verify-remember",
        DURATION,
        "30s",
        checks.seconds(math.inf, "292 years"),
        group=VERIFY,
        variable="DERP_VERIFY_REMEMBER",
        usage="How long a verdict on a client is remembered; a refusal for 10s at most.",
    )
    verify_again: float = option(
        "verify-again",
        DURATION,
        "5m",
        checks.interval,
        group=VERIFY,
        variable="DERP_VERIFY_AGAIN",
        usage="How often clients that are connected are asked about again; 0 for never.",
    )

    @property
    def verifies(self) -> bool:
        """Clients are checked at all."""
        return self.verify_clients or bool(self.verify_client_url or self.verify_client_file)

    def check_verification(self) -> None:
        """Check the rules that concern more than one field. Raises ConfigError."""
        if self.verify_client_url:
            return
        if self.verify_client_url_authorization:
            want = "want -verify-client-url with it"
            raise ConfigError("verify-client-url-authorization", "", want)
        if self.verify_client_url_ca_bundle is not None:
            bundle = self.verify_client_url_ca_bundle
            raise ConfigError(
                "verify-client-url-ca-bundle", bundle, "want -verify-client-url with it"
            )
