"""A pair in files, looked at again: whether it has changed, and whether it may be served.

Files change in many ways: certbot turns a symlink, Kubernetes swaps a directory, a script copies
one file after the other, another relay renews what both have. So nothing is watched but what the
paths lead to, and a change is read only once it has lasted from one look to the next: by then a
copy is complete. A new pair that can't be served is told once, and the one in force stays.
"""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from certs.errors import CertificateError, OutOfDateError
from certs.files import PairFiles, exists, read_pair
from certs.pair import Pair

_State = tuple[tuple[int, ...], ...]


class Lasting:
    """Tells that files have changed, once they no longer do. Its methods block."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = files
        # The state that was judged last, and the one that the last look found.
        self._judged: _State | None = None
        self._found: _State | None = None

    def look(self, *, at_once: bool) -> bool:
        """Return whether to read the files now; `at_once`: as they are, changed or not."""
        state = self._state()
        lasting = state == self._found
        self._found = state
        if not at_once and (state == self._judged or not lasting):
            return False
        self._judged = state
        return True

    def goes_on(self, *, at_once: bool) -> bool:
        """Tell whether they have changed again since that look, which then was in vain.

        What was read while it changed is no judgement on what it has become.
        """
        if at_once or self._state() == self._judged:
            return False
        self._judged = None
        return True

    def _state(self) -> _State:
        return tuple(map(_file_state, self._files))


class WatchedFiles:
    """The files in which the pair for `names` is. `look` blocks."""

    def __init__(self, files: PairFiles, names: Sequence[str]) -> None:
        self.files = files
        self.names = names
        self._change = Lasting((files.certificate, files.key))

    def look(self, now: datetime, current: Pair | None, *, at_once: bool = False) -> Pair | None:
        """Return the pair to serve in place of `current`; None where there is none, or not yet.

        While there is no `current`, files that don't exist are awaited in silence. `at_once`
        reads the files as they are, changed or not. `now` is timezone-aware. Raises
        CertificateError for what can't be served, once for each state of the files.
        """
        if not self._change.look(at_once=at_once):
            return None
        try:
            if current is None and not exists(self.files.certificate):
                return None
            pair = self._read(now, current)
        except CertificateError:
            if self._change.goes_on(at_once=at_once):
                return None
            raise
        if current and (pair.chain_der, pair.key_pem) == (current.chain_der, current.key_pem):
            return None
        return pair

    def _read(self, now: datetime, current: Pair | None) -> Pair:
        pair = read_pair(self.files, self.names, now)
        if current is None or pair.chain_der == current.chain_der:
            return pair
        if now > pair.not_after:
            raise OutOfDateError(
                f"{self.files.certificate}: the new certificate expired on "
                f"{pair.not_after:%Y-%m-%d %H:%M} UTC; put a current one there"
            )
        if now < pair.not_before and current.not_before <= now <= current.not_after:
            raise OutOfDateError(
                f"{self.files.certificate}: the new certificate is not valid before "
                f"{pair.not_before:%Y-%m-%d %H:%M} UTC; check this machine's clock"
            )
        return pair


def _file_state(file: Path) -> tuple[int, ...]:
    try:
        found = file.stat()
    except OSError as error:
        # Why it can't be read is for who tries to.
        return (error.errno or 0,)
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
