import logging

import pytest

from derp import log


@pytest.fixture
def events(caplog):
    caplog.set_level(logging.DEBUG, logger="derper")
    return caplog


def test_an_event_has_its_level_message_and_fields(events):
    logger = log.get("client")
    for name in ("debug", "info", "warning", "error"):
        getattr(logger, name)("joined", client="[AbCdE]", message=1, level=2, self=3)
    fields = {"client": "[AbCdE]", "message": 1, "level": 2, "self": 3}
    assert [(event.levelname, event.message, event.fields) for event in events.records] == [
        (level, "joined", fields) for level in ("DEBUG", "INFO", "WARNING", "ERROR")
    ]
    assert {event.name for event in events.records} == {"derper.client"}


def test_an_exception_brings_its_traceback(events):
    error = ValueError("x")
    try:
        raise error
    except ValueError:
        log.get("client").exception("bug", client="[AbCdE]")
    assert events.records[0].exc_info[1] is error
    assert events.records[0].levelname == "ERROR"
    assert events.records[0].fields == {"client": "[AbCdE]"}


def test_below_the_level_nothing_is_logged(events):
    events.set_level(logging.WARNING, logger="derper")
    log.get("client").info("joined")
    assert events.records == []


def test_a_message_with_percent_signs_is_taken_as_it_is(events):
    log.get("http").info("100% of %s")
    assert events.records[0].message == "100% of %s"
