import logging

import pytest

from derp.config import environment
from derp.errors import UsageError
from derp.service.interpreter import logging_started

QUEUE_DEPTH = "TS_DEBUG_DERP_PER_CLIENT_SEND_QUEUE_DEPTH"


@pytest.mark.parametrize(
    ("environ", "debug"),
    [
        ({}, False),
        ({"DERP_DEBUG_LOGS": ""}, False),
        ({"DERP_DEBUG_LOGS": "0"}, False),
        ({"DERP_DEBUG_LOGS": "true"}, True),
    ],
)
def test_debug_logs(environ: dict[str, str], debug: bool) -> None:
    assert environment.debug_logs(environ) is debug


@pytest.mark.parametrize(("value", "level"), [("true", logging.DEBUG), ("", logging.INFO)])
def test_debug_logs_are_in_the_log(value: str, level: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DERP_DEBUG_LOGS", value)
    with logging_started():
        assert logging.getLogger("derper").getEffectiveLevel() == level


def test_debug_logs_that_are_no_bool() -> None:
    with pytest.raises(UsageError, match=r"^DERP_DEBUG_LOGS='a b': want true or false$"):
        environment.debug_logs({"DERP_DEBUG_LOGS": "a b"})


@pytest.mark.parametrize(
    "environ",
    [
        {"DERP_PROBER_DEBUG_LOGS": "true"},
        {"TS_DEBUG_VERBOSE_DROPS": "nodekey:00"},
        {QUEUE_DEPTH: "64"},
        {"TS_DERP_DISABLE_RTT_STATS": "1"},
    ],
)
def test_a_knob_without_effect_is_told_of(environ: dict[str, str]) -> None:
    (warning,) = environment.warnings(environ)
    assert warning.startswith(f"{next(iter(environ))} is set, and has no effect here: ")


def test_a_knob_that_is_turned_off_is_not() -> None:
    assert environment.warnings({"DERP_PROBER_DEBUG_LOGS": "false", QUEUE_DEPTH: ""}) == []
    assert environment.warnings({"DERP_DEBUG_LOGS": "true", "HOME": "/root"}) == []
