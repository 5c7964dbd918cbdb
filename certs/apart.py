"""Calls of functions that need large libraries, in a process of their own.

cryptography takes 9 MiB for as long as a process lives, acme as much again, dnspython 4; a relay
needs them for a moment at its start, and then a few times a day or a year. Each function here makes
its call in a Python process that ends with the call. That process reads its module path and the
arguments from a pipe, and writes the result to another.

If the library is loaded already, or no other process can be started, the call is made in this
process. All functions block.
"""

import importlib
import pickle
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, BinaryIO, Final

from certs.acme.ari import RenewalInfo
from certs.acme.request import OrderRequest
from certs.errors import CertificateError
from certs.files import PairFiles
from certs.hostname import IPAddress
from certs.pair import Pair

_PROGRAM: Final = (
    "import pickle, sys;"
    "sys.path[:] = pickle.load(sys.stdin.buffer);"
    "from certs.apart import perform;"
    "perform(sys.stdin.buffer, sys.stdout.buffer)"
)


def load_manual(files: PairFiles, names: Sequence[str], now: datetime, *, make: bool) -> Pair:
    """Call certs.manual.load."""
    pair: Pair = _call("cryptography", "certs.manual", "load", files, names, now, make=make)
    return pair


def replace_invalid(files: PairFiles, address: IPAddress, pair: Pair, now: datetime) -> str | None:
    """Call certs.manual.replace_invalid."""
    arguments = files, address, pair, now
    notice: str | None = _call("cryptography", "certs.manual", "replace_invalid", *arguments)
    return notice


def read_pair(files: PairFiles, names: Sequence[str], now: datetime, *, some: bool = False) -> Pair:
    """Call certs.files.read_pair."""
    arguments = files, names, now
    pair: Pair = _call("cryptography", "certs.files", "read_pair", *arguments, some=some)
    return pair


def renewal_info(request: OrderRequest, pair: Pair, now: datetime) -> RenewalInfo | None:
    """Call certs.acme.order.renewal_info."""
    arguments = request, pair, now
    info: RenewalInfo | None = _call("acme", "certs.acme.order", "renewal_info", *arguments)
    return info


def check_tsig(variables: Mapping[str, str]) -> None:
    """Call certs.dns01.rfc2136.check_settings."""
    _call("dns", "certs.dns01.rfc2136", "check_settings", dict(variables))


def perform(source: BinaryIO, target: BinaryIO) -> None:
    """Read a call from `source` and make it; write its result or CertificateError to `target`."""
    module, name, args, kwargs = pickle.load(source)  # noqa: S301 - from the parent process
    result: object
    try:
        result = getattr(importlib.import_module(module), name)(*args, **kwargs)
    except CertificateError as error:
        result = error
    pickle.dump(result, target)


def _call(library: str, module: str, name: str, *args: Any, **kwargs: Any) -> Any:
    if library not in sys.modules:
        # -I and -S: the path is given, and nothing of the environment or of `site` is needed.
        command = [sys.executable, "-I", "-S", "-c", _PROGRAM]
        call = pickle.dumps(sys.path) + pickle.dumps((module, name, args, kwargs))
        try:
            done = subprocess.run(  # noqa: S603 - our own program
                command, input=call, capture_output=True, check=True
            )
            result = pickle.loads(done.stdout)  # noqa: S301 - from the process just run
        except (OSError, subprocess.SubprocessError, pickle.UnpicklingError, EOFError):
            # The process was not allowed, or killed for lack of memory, or its program is missing.
            pass
        else:
            if isinstance(result, CertificateError):
                raise result
            return result
    return getattr(importlib.import_module(module), name)(*args, **kwargs)
