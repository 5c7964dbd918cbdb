"""Construction of the HTTP client for other servers: root certificates, and the proxies in use."""

import math
import ssl
from pathlib import Path

import certifi

from derp.errors import StartError
from derp.net import httpclient
from derp.net.oserrors import os_errors


def make_client(
    flag: str, ca_bundle: Path | None, connect_timeout: float = math.inf
) -> httpclient.Client:
    """Return a client that verifies servers by this machine's root certificates and `ca_bundle`.

    `flag`: the flag that needs it, for messages; `connect_timeout`: in seconds. Blocks.
    Raises StartError.
    """
    try:
        proxies = httpclient.environment_proxies()
    except ValueError as error:
        raise StartError(
            f"{flag}: the proxy in the environment can't be used ({error}); "
            f"want http:// or https:// in HTTP_PROXY, HTTPS_PROXY and ALL_PROXY"
        ) from error
    return httpclient.Client(_tls_context(flag, ca_bundle), proxies, connect_timeout)


def explain(error: Exception) -> str:
    """Return the reason why a server can't be asked."""
    causes = list(os_errors(error))
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return (
                f"has a certificate that can't be verified ({cause.verify_message}); give "
                "-verify-client-url-ca-bundle its root if you have an authority of your own"
            )
    strerror = next((cause.strerror for cause in reversed(causes) if cause.strerror), None)
    return f"can't be asked ({strerror or str(error) or type(error).__name__})"


def _tls_context(flag: str, ca_bundle: Path | None) -> ssl.SSLContext:
    where = f"-verify-client-url-ca-bundle {ca_bundle}"
    try:
        context = ssl.create_default_context()
        if not _has_roots():
            context.load_verify_locations(certifi.where())
        if ca_bundle is not None:
            context.load_verify_locations(ca_bundle)
    except ssl.SSLError as error:
        raise StartError(
            f"{where}: no certificates in PEM; want those that vouch for {flag}"
        ) from error
    except OSError as error:
        raise StartError(
            f"{where}: can't be read ({error.strerror}); "
            f"want a file with certificates in PEM that vouch for {flag}"
        ) from error
    return context


def _has_roots() -> bool:
    """Return whether this machine has root certificates; images without ca-certificates have none.

    OpenSSL reads the directory only when it looks for one of them.
    """
    paths = ssl.get_default_verify_paths()
    places: tuple[str | None, ...] = (paths.cafile, paths.capath)
    if places[0] is not None or places[1] is None:
        return places[0] is not None
    return any(Path(places[1]).iterdir())
