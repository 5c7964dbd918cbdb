from hypothesis import given
from hypothesis import strategies as st

from derp.relay.coalescing import (
    FIRST_BACKOFF,
    LARGE_READ,
    MAX_BACKOFF,
    MAX_MISSES,
    SMALL_READ,
    STREAM_READS,
    STREAM_TIME,
    ReadCoalescing,
)


class Stream:
    """Reads that come at an even pace, until they gather."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.moderation = ReadCoalescing()

    def read(self, joined: int = 0, size: int = 1400, after: float = 1e-4) -> bool:
        self.now += after
        return self.moderation.note_read(joined, size, lambda: self.now)

    def reads_until_a_try(self, most: int, after: float = 1e-4) -> int | None:
        return next((n for n in range(1, most + 1) if self.read(after=after)), None)


def test_a_fast_stream_of_small_reads_gathers() -> None:
    stream = Stream()
    # The first count has no beginning.
    assert stream.reads_until_a_try(1000) == 2 * STREAM_READS
    assert all(stream.read(joined=4, size=7000, after=5e-4) for _ in range(1000))


def test_a_slow_stream_does_not() -> None:
    assert Stream().reads_until_a_try(10_000, after=STREAM_TIME / STREAM_READS * 1.01) is None


def test_large_reads_do_not() -> None:
    stream = Stream()
    assert not any(stream.read(joined=19, size=SMALL_READ + 1) for _ in range(1000))


def test_it_ends_where_the_stream_ends() -> None:
    stream = Stream()
    stream.reads_until_a_try(1000)
    assert [stream.read(joined=0, size=0) for _ in range(MAX_MISSES)][-1] is False
    assert not stream.read()


def test_it_ends_where_packets_come_for_many_in_turn() -> None:
    stream = Stream()
    stream.reads_until_a_try(1000)
    assert [stream.read(joined=0, size=28_000) for _ in range(MAX_MISSES)][-1] is False


def test_what_has_paid_for_a_while_is_tried_again_soon() -> None:
    stream = Stream()
    for _ in range(6):
        assert stream.reads_until_a_try(1_000_000) is not None
        for _ in range(MAX_MISSES):
            stream.read()
    assert stream.reads_until_a_try(1_000_000) is not None
    for _ in range(STREAM_READS):
        assert stream.read(joined=4, size=7000)
    for _ in range(MAX_MISSES):
        stream.read()
    start = stream.now
    assert stream.reads_until_a_try(1_000_000) is not None
    assert stream.now - start < FIRST_BACKOFF * 1.2


def test_it_ends_where_there_is_plenty_and_comes_back_at_once() -> None:
    stream = Stream()
    stream.reads_until_a_try(1000)
    assert not stream.read(joined=99, size=LARGE_READ + 1)
    assert stream.reads_until_a_try(1000) == STREAM_READS


def test_who_waits_for_answers_is_left_alone_ever_longer() -> None:
    stream = Stream()
    stream.reads_until_a_try(1000)
    backoff = FIRST_BACKOFF
    for _ in range(10):
        assert [stream.read() for _ in range(MAX_MISSES)] == [True] * (MAX_MISSES - 1) + [False]
        start = stream.now
        assert stream.reads_until_a_try(1_000_000) is not None
        assert backoff <= stream.now - start <= backoff + 2 * STREAM_READS * 1e-4
        backoff = min(2 * backoff, MAX_BACKOFF)


def test_a_single_read_without_company_is_no_miss_yet() -> None:
    stream = Stream()
    stream.reads_until_a_try(1000)
    for _ in range(100):
        assert stream.read(joined=0)
        assert stream.read(joined=1)


@given(st.lists(st.tuples(st.integers(0, 100), st.integers(0, 1 << 18), st.floats(0, 0.01))))
def test_it_never_gathers_after_a_plentiful_read(
    reads: list[tuple[int, int, float]],
) -> None:
    stream = Stream()
    stream.reads_until_a_try(1000)
    for joined, size, after in reads:
        gathered = stream.read(joined, size, after)
        assert not (gathered and size > LARGE_READ)
