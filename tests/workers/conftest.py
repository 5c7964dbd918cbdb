"""What tests with processes share."""

import signal

import pytest


@pytest.fixture
def patience():
    """No test takes longer, whatever hangs."""
    with_alarm = signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, with_alarm)
