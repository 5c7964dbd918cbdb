"""The operator's own pair, looked at again: whether it has changed, and whether it may be served.

Files change in many ways: certbot turns a symlink, Kubernetes swaps a directory, a script copies
one file after the other. So nothing is watched but what the two paths lead to, and a change is
read only once it has lasted from one look to the next: by then a copy is complete. A new pair
that can't be served is told once, and the one in force stays.
"""

from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

from certs.errors import CertificateError, ExpiredError
from certs.files import pair_files, read_pair
from certs.pair import Pair

_State = tuple[tuple[int, ...], ...]


class ManualPair:
    """The pair of `hostname` in `certdir`, of which `current` is in force. Its methods block."""

    def __init__(self, certdir: Path, hostname: str, current: Pair) -> None:
        self.current = current
        self._certdir = certdir
        self._hostname = hostname
        self._files = pair_files(certdir, hostname)
        # The state that was judged last, and the one that the last look found.
        self._judged: _State | None = None
        self._found: _State | None = None

    def look(self, now: datetime, *, at_once: bool = False) -> Pair | None:
        """Return the new pair, which is then in force; None where there is none, or not yet.

        `at_once` reads the files as they are, changed or not. `now` is timezone-aware. Raises
        CertificateError for what can't be served, once for each state of the files.
        """
        state = _state(self._files)
        lasting = state == self._found
        self._found = state
        if not at_once and (state == self._judged or not lasting):
            return None
        self._judged = state
        try:
            pair = self._read(now)
        except CertificateError:
            # What was read while it changed is no judgement on what it has become.
            if not at_once and _state(self._files) != state:
                self._judged = None
                return None
            raise
        if (pair.chain_der, pair.key_pem) == (self.current.chain_der, self.current.key_pem):
            return None
        self.current = pair
        return pair

    def _read(self, now: datetime) -> Pair:
        pair = read_pair(self._certdir, self._hostname, now)
        if now > pair.not_after and pair.chain_der != self.current.chain_der:
            raise ExpiredError(
                f"{self._files[0]}: the new certificate expired on "
                f"{pair.not_after:%Y-%m-%d %H:%M} UTC; put a current one there"
            )
        return pair


def _state(files: Iterable[Path]) -> _State:
    """Return what tells one state of the files from another."""
    return tuple(map(_file_state, files))


def _file_state(file: Path) -> tuple[int, ...]:
    try:
        found = file.stat()
    except OSError as error:
        # Why it can't be read is for who tries to.
        return (error.errno or 0,)
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
