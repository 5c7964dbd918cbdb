"""What is asked and answered is plain data."""

import pytest

from derp.admission.question import Answer, Outcome, Question, Source


def test_outcomes_are_labels_of_metrics() -> None:
    assert [outcome.value for outcome in Outcome] == [
        *("allowed", "refused", "unknown", "unreachable", "late", "no_room"),
    ]


def test_an_answer_needs_no_reason() -> None:
    assert Answer(Outcome.ALLOWED) == Answer(Outcome.ALLOWED, "")


def test_equal_questions_are_one_key() -> None:
    one, other = Question(b"\1" * 32, "192.0.2.1"), Question(b"\1" * 32, "192.0.2.2")
    assert {one: 1}[Question(b"\1" * 32, "192.0.2.1")] == 1
    assert one != other


@pytest.mark.parametrize(
    ("source", "network"),
    [
        ("192.0.2.1", "192.0.2.0/24"),
        ("192.0.3.255", "192.0.3.0/24"),
        ("2001:db8::1", "2001:db8::/64"),
        ("2001:db8:0:1::1", "2001:db8:0:1::/64"),
    ],
)
def test_the_network_of_who_asks(source: str, network: str) -> None:
    assert Question(bytes(32), source).network == network


async def test_anything_with_a_name_that_can_be_asked_is_a_source() -> None:
    class Everybody:
        name = "everybody"

        async def ask(self, question: Question) -> Answer:
            return Answer(Outcome.ALLOWED)

    source: Source = Everybody()
    answer = await source.ask(Question(bytes(32), "192.0.2.1"))
    assert answer.outcome is Outcome.ALLOWED
