"""The keys that were refused last: how many, from where, and of all workers."""

import json

from derp.admission.refusals import MAX_REFUSED, Refusal, Refusals, merged

KEY, OTHER = bytes(32), bytes([1]) * 32


def test_the_last_try_of_a_key_counts() -> None:
    refusals = Refusals()
    refusals.note(KEY, 1.0, "192.0.2.1", "file", "not in the list")
    refusals.note(OTHER, 2.0, "192.0.2.1", "file", "not in the list")
    refusals.note(KEY, 3.0, "2001:db8::1", "policy", "denied")
    assert refusals.latest() == [
        Refusal(KEY, 2, 3.0, "2001:db8::1", "policy", "denied"),
        Refusal(OTHER, 1, 2.0, "192.0.2.1", "file", "not in the list"),
    ]


def test_strangers_with_ever_new_keys_take_no_more_memory() -> None:
    refusals = Refusals()
    for number in range(3 * MAX_REFUSED):
        refusals.note(number.to_bytes(32, "big"), float(number), "192.0.2.1", "file", "")
    found = refusals.latest()
    assert len(found) == MAX_REFUSED
    assert found[0].last == 3 * MAX_REFUSED - 1


def test_those_of_several_processes() -> None:
    one = [Refusal(KEY, 2, 5.0, "a", "file", "x"), Refusal(OTHER, 1, 4.0, "a", "file", "x")]
    two = [Refusal(OTHER, 3, 6.0, "b", "file", "y")]
    through = [Refusal.from_json(json.loads(json.dumps(each.to_json()))) for each in [*one, *two]]
    assert merged(through) == [Refusal(OTHER, 4, 6.0, "b", "file", "y"), one[0]]
    many = [Refusal(number.to_bytes(32, "big"), 1, 0.0, "", "", "") for number in range(999)]
    assert len(merged(many)) == MAX_REFUSED
