"""Detectors of changed files, and of a new pair in them that may be served.

Files change in many ways: certbot retargets a symlink, Kubernetes replaces a directory, a script
copies one file after the other, another relay renews a shared certificate. So checks compare stat
results of the link targets, and changed files are read once two checks in a row find the same: by
then a copy is complete. A pair that can't be served is reported once, and the old one stays.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TypeVar

from certs import apart
from certs.errors import CertificateError, OutOfDateError
from certs.files import PairFiles, exists
from certs.pair import Pair
from certs.wholefile import state

T = TypeVar("T")
_State = tuple[tuple[int, ...], ...]


class ChangeDetector:
    """A detector of files that have changed and then settled. Its methods block."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = files
        self._last_read: _State | None = None
        self._last_checked: _State | None = None

    def read(
        self, load: Callable[[], T | None], failure: type[Exception], *, at_once: bool
    ) -> T | None:
        """Return what `load` makes of the files if they have changed, else None.

        With `at_once` the files are read in any case. Raises `failure`, as `load` does, once for
        each state of the files; not while they go on changing, unless `at_once`.
        """
        state = self._state()
        settled = state == self._last_checked
        self._last_checked = state
        if not at_once and (state == self._last_read or not settled):
            return None
        self._last_read = state
        try:
            return load()
        except failure:
            if at_once or self._state() == self._last_read:
                raise
            self._last_read = None
            return None

    def _state(self) -> _State:
        return tuple(map(_file_state, self._files))


class PairChanges:
    """A detector of a new pair for `names` in files. `check` blocks.

    With `some`, a pair for some of the names is found, too, as long as there is none for all.
    """

    def __init__(self, files: PairFiles, names: Sequence[str], *, some: bool = False) -> None:
        self.files = files
        self.names = names
        self._some = some
        self._detector = ChangeDetector((files.certificate, files.key))

    def check(self, now: datetime, current: Pair | None, *, at_once: bool = False) -> Pair | None:
        """Return the pair to serve in place of `current`, or None.

        `at_once` reads the files even if they have not changed. `now` is timezone-aware. Raises
        CertificateError for a pair that can't be served, once for each state of the files; without
        a `current` pair, missing files are no error.
        """
        read = partial(self._read, now, current)
        pair = self._detector.read(read, CertificateError, at_once=at_once)
        if pair is None:
            return None
        if current and (pair.chain_der, pair.key_pem) == (current.chain_der, current.key_pem):
            return None
        return pair

    def _read(self, now: datetime, current: Pair | None) -> Pair | None:
        if current is None and not exists(self.files.certificate):
            return None
        some = self._some and (current is None or not all(map(current.covers, self.names)))
        pair = apart.read_pair(self.files, self.names, now, some=some)
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
        return state(file.stat())
    except OSError as error:
        # Reading the file reports the error.
        return (error.errno or 0,)
