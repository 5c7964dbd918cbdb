"""Log lines with fields, and the level of each in either kind of process."""

import logging
from collections.abc import Callable
from ipaddress import ip_address
from types import SimpleNamespace
from typing import Any, cast

import pytest

from certs.errors import CertificateError, UnusablePairError
from certs.pair import Pair
from certs.tasks.plan import CertificateSpec
from certs.tasks.report import FOLLOWS, RENEWS, logger
from derp import log
from derp.log.formats import Logfmt

Log = Callable[[Any], None]


def failing(logger: Any) -> None:
    try:
        ip_address("no")
    except ValueError:
        logger.exception("100 % of it", names="a b")


@pytest.mark.parametrize(
    "event",
    [
        lambda logger: logger.debug("seen", name="x"),
        lambda logger: logger.info("new certificate", names="a b", expires="soon", pin=None),
        lambda logger: logger.warning("100 % %s of it"),
        lambda logger: logger.error("failed", reason='"', next_try_in_seconds=5),
        failing,
    ],
)
def test_a_line_is_that_of_derp_log(event: Log, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    event(logger)
    event(log.get("certificates"))
    ours, theirs = caplog.records
    assert ours.name == theirs.name
    theirs.created = ours.created
    assert Logfmt().format(ours) == Logfmt().format(theirs)


def test_a_process_that_follows_logs_at_debug_level(
    certificate: CertificateSpec, a_pair: Callable[[], Pair], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    for report, levels in (
        (RENEWS, [logging.INFO, logging.INFO, logging.ERROR]),
        (FOLLOWS, [logging.DEBUG, logging.DEBUG]),
    ):
        caplog.clear()
        report.replaced(a_pair())
        report.unchanged(certificate)
        report.failed(certificate, "no", None, in_force=True)
        assert [record.levelno for record in caplog.records] == levels


def test_an_unservable_pair_is_raised_by_the_process_that_renews_and_logged_by_others(
    certificate: CertificateSpec, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(CertificateError):
        RENEWS.unservable(certificate, UnusablePairError("damaged"))
    FOLLOWS.unservable(certificate, UnusablePairError("damaged"))
    (record,) = caplog.records
    assert record.getMessage() == "this process has no certificate to serve"


def test_all_warnings_of_a_pair_are_logged_by_the_process_that_renews(
    caplog: pytest.LogCaptureFixture,
) -> None:
    warnings = {"warnings": ("it ends soon",), "swap_warnings": ("others own it",)}
    faulty = cast("Pair", SimpleNamespace(**warnings))
    FOLLOWS.warnings(faulty)
    assert not caplog.messages
    RENEWS.warnings(faulty)
    assert caplog.messages == ["it ends soon", "others own it"]
