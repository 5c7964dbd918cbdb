"""The program of a process of its own: one call of dns-lexicon.

Standard input has a JSON object with the call, standard output gets one with the result. All that
dns-lexicon or a provider's own library prints goes to standard error.
"""

import contextlib
import json
import os
import sys
from argparse import ArgumentParser
from collections.abc import Mapping
from typing import Any, Final

from certs.dns01.credentials import scrubbed
from certs.errors import causes, printable

_URL: Final = r"(https?://[^\s/?#'\"]+)[^\s'\"]*"
"""A URL, and its host: paths and queries of some providers have secrets."""

Json = dict[str, Any]


def main() -> None:
    """Make the call in standard input."""
    call = json.load(sys.stdin)
    with os.fdopen(os.dup(1), "w") as output:
        os.dup2(2, 1)
        result = _describe(call) if call["action"] == "describe" else _change(call, os.environ)
        json.dump(result, output)


def _describe(call: Json) -> Json:
    """Return the options of a provider, and whether its own libraries are missing."""
    from lexicon._private.discovery import (  # noqa: PLC0415 - a large library
        find_providers,
        load_provider_module,
    )

    known, provider = find_providers(), call["provider"]
    if provider not in known:
        return {"known": sorted(set(known) - {"auto"})}
    if not known[provider]:
        return {"missing": f"dns-lexicon[{provider}]"}
    module = load_provider_module(provider)
    parser = ArgumentParser(add_help=False)
    module.Provider.configure_parser(parser)
    return {"options": [action.dest for action in parser._actions]}  # noqa: SLF001 - no other way


def _change(call: Json, environ: Mapping[str, str]) -> Json:
    """Set or remove a record; return {} or {"error": …}."""
    import dns.resolver  # noqa: PLC0415 - as above
    import requests  # noqa: PLC0415 - as above
    from lexicon.client import Client  # noqa: PLC0415 - as above
    from lexicon.config import ConfigResolver  # noqa: PLC0415 - as above

    if call["resolvers"]:
        resolver = dns.resolver.Resolver(configure=False)
        resolver.nameservers = [host for host, _ in call["resolvers"]]
        resolver.nameserver_ports = dict(call["resolvers"])
        dns.resolver.default_resolver = resolver
    settings = {"provider_name": call["provider"], "domain": call["zone"]}
    # The zone is known. Without this, a list of all registries' domains would be fetched.
    settings["resolve_zone_name"] = "true"
    config = ConfigResolver().with_dict(settings).with_env()
    record = {"rtype": "TXT", "name": call["name"], "content": call["value"]}
    try:
        with Client(config) as operations:
            if call["action"] == "set":
                done = operations.create_record(**record)
            else:
                done = operations.delete_record(**record)
    except requests.HTTPError as error:
        return _http_error(error, environ)
    except (requests.ConnectionError, requests.Timeout) as error:
        # Their texts have the URL.
        reasons = [each.strerror for each in causes(error) if isinstance(each, OSError)]
        reason = next((text for text in reversed(reasons) if text), type(error).__name__)
        return {"error": f"can't be reached ({_shown(reason, environ)})", "transient": True}
    except Exception as error:  # noqa: BLE001 - providers raise what they like; all is told
        said = _shown(str(error), environ) or type(error).__name__
        return {"error": f"says {said!r}"}
    return {} if done else {"error": "says that it was not done, and not why"}


def _http_error(error: Any, environ: Mapping[str, str]) -> Json:
    status, body = 0, ""
    with contextlib.suppress(AttributeError):
        status, body = error.response.status_code, error.response.content.decode(errors="replace")
    said = _shown(body, environ)
    told = f" and says {said!r}" if said else ""
    transient = status == 429 or status >= 500
    return {"error": f"answers with HTTP status {status}{told}", "transient": transient}


def _shown(text: str, environ: Mapping[str, str]) -> str:
    import re  # noqa: PLC0415 - loaded anyway

    return printable(scrubbed(re.sub(_URL, r"\1/…", text), environ), 200)
