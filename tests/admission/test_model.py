"""Questions and verdicts are plain data."""

import pytest

from derp.admission.model import UNAVAILABLE, Outcome, Question, Source, Verdict


def test_outcomes_are_labels_of_metrics() -> None:
    assert [outcome.value for outcome in Outcome] == [
        *("allowed", "refused", "unknown", "unreachable", "late", "slow", "no_room"),
    ]


@pytest.mark.parametrize("failed_open", [False, True])
@pytest.mark.parametrize("outcome", Outcome)
def test_what_follows_from_an_outcome(outcome: Outcome, failed_open: bool) -> None:
    verdict = Verdict(outcome, "url", failed_open=failed_open)
    answered = outcome in {Outcome.ALLOWED, Outcome.REFUSED}
    assert verdict.admitted == (outcome is Outcome.ALLOWED or failed_open)
    assert verdict.authoritative == answered
    assert verdict.cacheable == (answered or failed_open)


def test_no_outcome_that_unknown_clients_bring_about_may_fail_open() -> None:
    assert set(UNAVAILABLE) == {Outcome.UNREACHABLE, Outcome.LATE, Outcome.UNKNOWN}


def test_equal_questions_are_one_key() -> None:
    one, other = Question(b"\1" * 32, "192.0.2.1"), Question(b"\1" * 32, "192.0.2.2")
    assert {one: 1}[Question(b"\1" * 32, "192.0.2.1")] == 1
    assert one != other


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.1", "192.0.2.0/24"),
        ("192.0.3.255", "192.0.3.0/24"),
        ("2001:db8::1", "2001:db8::/64"),
        ("2001:db8:0:1::1", "2001:db8:0:1::/64"),
    ],
)
def test_the_network_of_who_asks(address: str, network: str) -> None:
    assert Question(bytes(32), address).network == network


async def test_anything_with_a_name_that_can_be_asked_is_a_source() -> None:
    class Everybody:
        name = "everybody"

        async def ask(self, question: Question) -> Verdict:
            return Verdict(Outcome.ALLOWED, self.name)

    source: Source = Everybody()
    verdict = await source.ask(Question(bytes(32), "192.0.2.1"))
    assert verdict.outcome is Outcome.ALLOWED
