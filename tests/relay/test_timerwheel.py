from hypothesis import given
from hypothesis import strategies as st

from derp.relay.timerwheel import TimerWheel


def test_members_are_due_in_the_second_after_their_time() -> None:
    wheel: TimerWheel[str] = TimerWheel()
    wheel.set("a", 10.2)
    wheel.set("b", 11.0)
    assert list(wheel.due(10.9)) == []
    assert sorted(wheel.due(11.0)) == ["a", "b"]
    assert list(wheel.due(100.0)) == []


def test_a_member_is_due_once_at_its_latest_time() -> None:
    wheel: TimerWheel[str] = TimerWheel()
    wheel.set("a", 5.0)
    wheel.set("a", 8.0)
    assert list(wheel.due(7.0)) == []
    assert list(wheel.due(8.0)) == ["a"]
    assert len(wheel) == 0


def test_who_is_discarded_is_never_due() -> None:
    wheel: TimerWheel[str] = TimerWheel()
    wheel.set("a", 1.0)
    wheel.discard("a")
    wheel.discard("a")
    assert list(wheel.due(10.0)) == []


def test_setting_again_while_due_does_not_go_round_for_ever() -> None:
    wheel: TimerWheel[str] = TimerWheel()
    wheel.set("a", 1.0)
    seen = []
    for member in wheel.due(3.0):
        seen.append(member)
        wheel.set(member, 2.0)
    assert seen == ["a"]
    assert list(wheel.due(4.0)) == ["a"]


def test_discarding_others_while_due() -> None:
    wheel: TimerWheel[str] = TimerWheel()
    for member in "abc":
        wheel.set(member, 1.0)
    seen = []
    for member in wheel.due(1.0):
        seen.append(member)
        for other in "abc":
            wheel.discard(other)
    assert len(seen) == 1


@given(
    st.lists(
        st.tuples(st.sampled_from(["set", "discard", "due"]), st.integers(0, 5), st.floats(0, 9))
    )
)
def test_against_a_dictionary(actions: list[tuple[str, int, float]]) -> None:
    wheel: TimerWheel[int] = TimerWheel()
    times: dict[int, float] = {}
    now = 0.0
    for action, member, amount in actions:
        if action == "set":
            wheel.set(member, now + amount)
            times[member] = now + amount
        elif action == "discard":
            wheel.discard(member)
            times.pop(member, None)
        else:
            now += amount
            due = set(wheel.due(now))
            # Nobody is early, and nobody is more than a second late (and a look).
            assert all(times[member] <= now for member in due)
            assert all(time > now - 1 for other, time in times.items() if other not in due)
            for seen in due:
                del times[seen]
        assert len(wheel) == len(times)
