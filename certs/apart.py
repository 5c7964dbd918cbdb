"""Calls of functions that need large libraries, in a process of their own.

cryptography takes 9 MiB for as long as a process lives, and acme as much again; a relay needs them
for a moment at its start, and then some times a day or a year. What is called here runs in a
Python that ends with the call. It gets its module path, arguments and result over pipes, and writes
nothing else.

In this process the call is made where the library is loaded anyway, and where no other process can
be started. All functions block.
"""

import importlib
import pickle
import subprocess
import sys
from collections.abc import Sequence
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
    "from certs.apart import answer;"
    "answer(sys.stdin.buffer, sys.stdout.buffer)"
)


def load_manual(files: PairFiles, hostname: str, now: datetime, *, make: bool) -> Pair:
    """Call certs.manual.load."""
    pair: Pair = _call("cryptography", "certs.manual", "load", files, hostname, now, make=make)
    return pair


def replace_refused(files: PairFiles, address: IPAddress, pair: Pair, now: datetime) -> str | None:
    """Call certs.manual.replace_refused."""
    arguments = files, address, pair, now
    notice: str | None = _call("cryptography", "certs.manual", "replace_refused", *arguments)
    return notice


def read_pair(files: PairFiles, names: Sequence[str], now: datetime) -> Pair:
    """Call certs.files.read_pair."""
    pair: Pair = _call("cryptography", "certs.files", "read_pair", files, names, now)
    return pair


def renewal_info(request: OrderRequest, pair: Pair, now: datetime) -> RenewalInfo | None:
    """Call certs.acme.order.renewal_info."""
    arguments = request, pair, now
    info: RenewalInfo | None = _call("acme", "certs.acme.order", "renewal_info", *arguments)
    return info


def answer(questions: BinaryIO, answers: BinaryIO) -> None:
    """Make the call that `questions` holds; write its result, or its CertificateError."""
    module, name, args, kwargs = pickle.load(questions)  # noqa: S301 - from the process above
    result: object
    try:
        result = getattr(importlib.import_module(module), name)(*args, **kwargs)
    except CertificateError as error:
        result = error
    pickle.dump(result, answers)


def _call(library: str, module: str, name: str, *args: Any, **kwargs: Any) -> Any:
    if library not in sys.modules:
        # -I and -S: the path is given, and nothing of the environment or of `site` is needed.
        command = [sys.executable, "-I", "-S", "-c", _PROGRAM]
        question = pickle.dumps(sys.path) + pickle.dumps((module, name, args, kwargs))
        try:
            done = subprocess.run(  # noqa: S603 - our own program
                command, input=question, capture_output=True, check=True
            )
            result = pickle.loads(done.stdout)  # noqa: S301 - from the process just run
        except (OSError, subprocess.SubprocessError, pickle.UnpicklingError, EOFError):
            # It was not allowed, or killed for lack of memory, or there is no such program.
            pass
        else:
            if isinstance(result, CertificateError):
                raise result
            return result
    return getattr(importlib.import_module(module), name)(*args, **kwargs)
