"""Which keys are cloned, as connections come and go."""

from hypothesis import given
from hypothesis import strategies as st

from derp.relay.clones import Clones, Sighting

KEY, OTHER = bytes(32), bytes(range(32))
HOME, AWAY, FAR = (bytes([number]) * 16 for number in range(3))
GRACE = 60.0


def test_two_addresses_count_once_both_connections_have_lasted() -> None:
    clones = Clones(GRACE)
    here = [Sighting(KEY, HOME, 0.0), Sighting(KEY, AWAY, 100.0)]
    assert clones.find(here, (), 100.0 + GRACE - 1) == set()
    assert clones.find(here, (), 100.0 + GRACE) == {KEY}
    assert clones.find(here[1:], (), 200.0) == set()


def test_a_client_that_moves_on_and_on_is_none() -> None:
    """Each old connection stays for a while."""
    clones = Clones(GRACE)
    for number in range(20):
        now = 50.0 * number
        here = [
            Sighting(KEY, bytes([each]) * 16, 50.0 * each)
            for each in range(max(0, number - 1), number + 1)
        ]
        assert clones.find(here, (), now) == set()
        assert clones.find(here, (), now + 9.0) == set()


def test_one_address_is_none() -> None:
    here = [Sighting(KEY, HOME, float(number)) for number in range(5)]
    here += [Sighting(OTHER, AWAY, 0.0)]
    assert Clones(GRACE).find(here, [(KEY, HOME), (OTHER, AWAY)], 1000.0) == set()


def test_a_connection_elsewhere_counts_from_when_it_was_seen() -> None:
    clones = Clones(GRACE)
    here = [Sighting(KEY, HOME, 0.0)]
    assert clones.find(here, [(KEY, AWAY)], 500.0) == set()
    assert clones.find(here, [(KEY, AWAY)], 500.0 + GRACE) == {KEY}
    assert clones.find(here, (), 1000.0) == set()
    # It has left, and so begins anew.
    assert clones.find(here, [(KEY, AWAY)], 1010.0) == set()
    assert clones.find(here, [(KEY, FAR)], 1010.0 + GRACE) == set()


KEYS = st.sampled_from([KEY, OTHER])
ADDRESSES = st.sampled_from([HOME, AWAY, FAR])
LOOKS = st.lists(
    st.tuples(
        st.floats(0.0, 100.0),
        st.lists(st.tuples(KEYS, ADDRESSES, st.floats(0.0, 300.0))),
        st.lists(st.tuples(KEYS, ADDRESSES)),
    ),
    max_size=8,
)


@given(LOOKS)
def test_any_comings_and_goings(looks: list) -> None:
    clones, now, seen = Clones(GRACE), 0.0, {}
    for passed, here, elsewhere in looks:
        now += passed
        seen = {pair: seen.get(pair, now) for pair in elsewhere}
        lasting = {(key, address) for key, address, since in here if now - since >= GRACE}
        lasting |= {pair for pair, since in seen.items() if now - since >= GRACE}
        expected = {key for key in (KEY, OTHER) if len({a for k, a in lasting if k == key}) > 1}
        assert clones.find([Sighting(*each) for each in here], elsewhere, now) == expected
    # No more is remembered than was there at the last look.
    assert set(clones._seen) == set(seen)
