"""The log of certificates: constant messages, with fields as the record's `fields`."""

import logging
from collections.abc import MutableMapping
from typing import Any, Final

import attrs

from certs.errors import CertificateError
from certs.pair import Pair
from certs.tasks.plan import CertificateSpec


class _WithFields(logging.LoggerAdapter[logging.Logger]):
    """A standard logger that takes fields by keyword."""

    def process(
        self, msg: Any, kwargs: MutableMapping[str, Any]
    ) -> tuple[Any, MutableMapping[str, Any]]:
        """Move all keywords but `exc_info` to the attribute `fields` of the record."""
        exc_info = kwargs.pop("exc_info", None)
        return msg, {"exc_info": exc_info, "extra": {"fields": kwargs}}


logger: Final = _WithFields(logging.getLogger("derper.certificates"))


@attrs.frozen
class Reporter:
    """The log of changes to certificates."""

    follows: bool = False
    """Whether another process renews them and logs for the relay: this one logs less."""

    def unservable(self, certificate: CertificateSpec, error: CertificateError) -> None:
        """Log that the files' pair can't be served, or raise `error` if nothing replaces it."""
        if self.follows:
            message = "this process has no certificate to serve"
            logger.error(message, names=certificate.names_text, reason=str(error))
        elif certificate.acme is None:
            raise error
        else:
            message = "a certificate can't be served and is ordered anew"
            logger.warning(message, reason=str(error))

    def warnings(self, pair: Pair) -> None:
        """Log the warnings of a pair that is served."""
        if not self.follows:
            for warning in (*pair.warnings, *pair.swap_warnings):
                logger.warning(warning)

    def replaced(self, pair: Pair) -> None:
        """Log a new pair, which is served from now on."""
        self.warnings(pair)
        log = logger.debug if self.follows else logger.info
        expires = f"{pair.not_after:%Y-%m-%dT%H:%MZ}"
        log("new certificate", names=" ".join(pair.names), expires=expires, pin=pair.pin)

    def unchanged(self, certificate: CertificateSpec) -> None:
        """Log that a check on request found no new pair in the files."""
        if not self.follows:
            logger.info("the certificate has not changed", names=certificate.names_text)

    def failed(
        self, certificate: CertificateSpec, reason: str, next_try: float | None, *, in_force: bool
    ) -> None:
        """Log a failure; `next_try` is in seconds, `in_force` whether a certificate is served."""
        what = "the old certificate stays in force" if in_force else "no certificate yet"
        seconds = None if next_try is None else round(next_try)
        log = logger.debug if self.follows else logger.error
        log(what, names=certificate.names_text, reason=reason, next_try_in_seconds=seconds)


RENEWS: Final = Reporter()
FOLLOWS: Final = Reporter(follows=True)
