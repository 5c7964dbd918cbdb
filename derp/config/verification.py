"""The part of the configuration about admission.

-verify-clients, -socket, -verify-client-url and -verify-client-url-fail-open are the Go derper's
(Server.verifyClient), the others additions.
"""

import math
from pathlib import Path

import attrs

from derp.config import checks
from derp.config.field import ConfigError, bool_option, file_option, option
from derp.config.goflags import DURATION, FILE, STRING


@attrs.frozen(kw_only=True)
class Verification:
    """The rules of admission; by default, all clients are admitted."""

    tailscaled: bool = bool_option(
        "verify-clients",
        default="false",
        variable="DERP_VERIFY_CLIENTS",
        usage="Admit only clients that the tailscaled on this machine knows.",
    )
    tailscaled_sockets: tuple[Path, ...] = option(
        "socket",
        FILE,
        checks.socket_paths,
        variable="DERP_SOCKET",
        default_words=str(checks.TAILSCALED_SOCKET),
        separator=checks.PATHS_JOINER,
        usage="The socket of that tailscaled. May be given more than once, or with commas: one "
        "that knows the client is enough.",
    )
    urls: tuple[str, ...] = option(
        "verify-client-url",
        STRING,
        checks.http_urls,
        variable="DERP_VERIFY_CLIENT_URL",
        placeholder="URL",
        separator=" ",
        secret=True,
        usage="Admit only clients that this admission controller allows, such as headscale's "
        "/verify. May be given more than once: one that allows is enough.",
    )
    fail_open: bool = bool_option(
        "verify-client-url-fail-open",
        default="true",
        variable="DERP_VERIFY_CLIENT_URL_FAIL_OPEN",
        usage="Admit clients while no URL can be reached.",
    )
    url_ca_bundle: Path | None = file_option(
        "verify-client-url-ca-bundle",
        variable="DERP_VERIFY_CLIENT_URL_CA_BUNDLE",
        usage="Root certificates in PEM for -verify-client-url, and for APIs that list devices, "
        "besides this machine's.",
    )
    url_authorization: str = option(
        "verify-client-url-authorization",
        STRING,
        checks.header_value,
        variable="DERP_VERIFY_CLIENT_URL_AUTHORIZATION",
        placeholder="VALUE",
        secret=True,
        usage="Authorization header for the URLs, such as 'Bearer TOKEN'.",
    )
    allowlist: Path | None = file_option(
        "verify-client-file",
        variable="DERP_VERIFY_CLIENT_FILE",
        never_empty=True,
        want="want a file with node keys; leave the flag out to have no list",
        usage="Admit clients whose node keys are in this file, one a line, and others only if "
        "-verify-clients or -verify-client-url admit them; read again when it changes.",
    )
    policy: Path | None = file_option(
        "policy",
        variable="DERP_POLICY_FILE",
        never_empty=True,
        want="want a policy file in TOML; leave the flag out to have none",
        usage="TOML file that says, by node key, who is allowed or denied, how fast each may send, "
        "and how much; read again when it changes. What it denies is refused whatever else admits "
        "it.",
    )
    tell_refused: bool = bool_option(
        "tell-refused",
        default="false",
        variable="DERP_TELL_REFUSED",
        usage="Tell clients that are refused why, in words that tailscale status shows there.",
    )
    require_all: bool = bool_option(
        "verify-all",
        default="false",
        variable="DERP_VERIFY_ALL",
        usage="Admit only clients that all of these admit: the list of keys, each list of "
        "devices, each tailscaled and each URL. The policy's word comes before theirs.",
    )
    isolate: bool = bool_option(
        "isolate",
        default="false",
        variable="DERP_ISOLATE",
        usage="Clients that different sources admit, such as two tailnets, or that the policy puts "
        "into different groups, can't reach each other through the relay.",
    )
    remember: float = option(
        "verify-remember",
        DURATION,
        checks.duration_up_to(math.inf, "292 years"),
        default="30s",
        variable="DERP_VERIFY_REMEMBER",
        usage="How long a verdict on a client is remembered; a refusal for 10s at most.",
    )
    recheck_every: float = option(
        "verify-again",
        DURATION,
        checks.repeat_interval,
        default="5m",
        variable="DERP_VERIFY_AGAIN",
        usage="How often connected clients are verified again; 0 for never.",
    )

    @property
    def enabled(self) -> bool:
        """Whether clients are checked by more than policy and device lists."""
        return self.tailscaled or bool(self.urls or self.allowlist)

    def __attrs_post_init__(self) -> None:
        """Check the rules between fields. Raises ConfigError."""
        if self.url_authorization and not self.urls:
            raise ConfigError(
                "verify-client-url-authorization", "", "want -verify-client-url with it"
            )
