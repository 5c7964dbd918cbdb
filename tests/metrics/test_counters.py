import pytest
from hypothesis import given
from hypothesis import strategies as st

from derp.errors import TLSFailed, WriteTimeout
from derp.metrics import DropReason, Histogram, Metrics


def test_a_misspelt_counter_is_an_error():
    with pytest.raises(AttributeError):
        Metrics().packets_recieved = 1  # type: ignore[attr-defined]


def test_two_servers_share_no_counter():
    one, other = Metrics(), Metrics()
    one.drop(DropReason.QUEUE_HEAD, disco=False, packets=1, nbytes=1)
    one.ended(None)
    one.round_trip(0.001)
    one.buffered_write_frames.observe(3)
    assert sum(other.packets_dropped.values()) == 0
    assert sum(other.connection_ends.values()) == 0
    assert other.tcp_rtt == {}
    assert other.buffered_write_frames.sum == 0


def test_drops_are_counted_by_reason_and_kind():
    metrics = Metrics()
    metrics.drop(DropReason.QUEUE_HEAD, disco=False, packets=3, nbytes=4200)
    metrics.drop(DropReason.QUEUE_HEAD, disco=False, packets=1, nbytes=100)
    metrics.drop(DropReason.QUEUE_HEAD, disco=True, packets=1, nbytes=62)
    assert metrics.packets_dropped[DropReason.QUEUE_HEAD, False] == 4
    assert metrics.bytes_dropped[DropReason.QUEUE_HEAD, False] == 4300
    assert metrics.packets_dropped[DropReason.QUEUE_HEAD, True] == 1
    assert metrics.packets_dropped[DropReason.QUEUE_TAIL, False] == 0


def test_connection_ends_have_every_reason_from_the_start():
    ends = Metrics().connection_ends
    assert set(ends.values()) == {0}
    assert {"closed", "peer_vanished", "tls_failed", "login_refused", "write_timeout"} <= set(ends)


def test_connection_ends_are_counted_by_reason():
    metrics = Metrics()
    metrics.ended(None)
    metrics.ended(WriteTimeout())
    metrics.ended(WriteTimeout())
    counted = {reason: count for reason, count in metrics.connection_ends.items() if count}
    assert counted == {"closed": 1, "write_timeout": 2}


def test_an_end_of_a_kind_not_known_at_the_start_is_counted_under_its_own_reason():
    class HelloGarbled(TLSFailed):
        reason = "hello_garbled"

    metrics = Metrics()
    metrics.ended(HelloGarbled())
    assert metrics.connection_ends["hello_garbled"] == 1


@pytest.mark.parametrize(
    ("tls_version", "label"),
    [("TLSv1.2", "1.2"), ("TLSv1.3", "1.3"), ("TLSv1.4", "unknown")],
)
def test_a_tls_request_is_counted_and_active_until_it_ends(tls_version, label):
    metrics = Metrics()
    metrics.tls_request(tls_version)
    metrics.tls_request(tls_version)
    assert metrics.tls_active == {label: 0}
    with metrics.tls_active_while(tls_version):
        assert metrics.tls_active == {label: 1}
    with pytest.raises(ZeroDivisionError), metrics.tls_active_while(tls_version):
        raise ZeroDivisionError
    assert metrics.tls_requests == {label: 2}
    assert metrics.tls_active == {label: 0}


def test_a_request_without_tls_is_no_tls_request():
    metrics = Metrics()
    metrics.tls_request(None)
    with metrics.tls_active_while(None):
        pass
    assert metrics.tls_requests == metrics.tls_active == {}


@pytest.mark.parametrize(
    ("seconds", "label"),
    [
        (0.0, "10ms"),
        (0.010, "10ms"),
        (0.0101, "20ms"),
        (0.050, "50ms"),
        (0.1, "100ms"),
        (0.15, "150ms"),
        (0.25, "250ms"),
        (0.5, "500ms"),
        (0.51, "inf"),
    ],
)
def test_round_trip_times_have_the_go_derpers_labels(seconds, label):
    metrics = Metrics()
    metrics.round_trip(seconds)
    assert metrics.tcp_rtt == {label: 1}


def test_connections_without_a_round_trip_time():
    metrics = Metrics()
    metrics.no_round_trip(tcp=False)
    metrics.no_round_trip(tcp=True)
    assert metrics.tcp_rtt == {"non-tcp": 1, "error": 1}


def test_queue_time_moves_a_tenth_of_the_way_with_each_packet():
    metrics = Metrics()
    metrics.queued(100)
    assert metrics.average_queue_duration_ms == pytest.approx(10)
    metrics.queued(0)
    assert metrics.average_queue_duration_ms == pytest.approx(9)


@given(st.floats(0, 1e6), st.floats(0, 1e6), st.integers(0, 200))
def test_queue_time_of_a_run_is_that_of_its_packets(before, milliseconds, packets):
    run, singly = Metrics(), Metrics()
    run.average_queue_duration_ms = singly.average_queue_duration_ms = before
    run.queued(milliseconds, packets)
    for _ in range(packets):
        singly.queued(milliseconds)
    # To a nanosecond: a difference of large numbers is rounded.
    expected = pytest.approx(singly.average_queue_duration_ms, abs=1e-6)
    assert run.average_queue_duration_ms == expected


@given(st.lists(st.integers(0, 300)))
def test_histogram_buckets_count_what_is_up_to_their_bound(values):
    histogram = Histogram(0, 1, 5, 100)
    for value in values:
        histogram.observe(value)
    assert histogram.cumulative() == [
        ("0", sum(value <= 0 for value in values)),
        ("1", sum(value <= 1 for value in values)),
        ("5", sum(value <= 5 for value in values)),
        ("100", sum(value <= 100 for value in values)),
        ("+Inf", len(values)),
    ]
    assert histogram.sum == sum(values)
