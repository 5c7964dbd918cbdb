"""Answers that came late, each for the next try of one client."""

from derp.admission.cache import SHORT_TTL
from derp.admission.lateanswers import KEPT_FOR, MAX_KEPT, LateAnswers
from derp.admission.model import Outcome, Question, Verdict

YES, NO = Verdict(Outcome.ALLOWED, "url"), Verdict(Outcome.REFUSED, "url", "does not allow it")


def client(number: int) -> Question:
    return Question(number.to_bytes(32, "big"), "192.0.2.1")


def test_an_answer_is_given_once_and_to_its_client() -> None:
    late = LateAnswers()
    late.put(client(1), YES, 0.0)
    assert late.take(client(2), 1.0) is None
    assert late.take(Question(client(1).key, "192.0.2.2"), 1.0) is None
    assert late.take(client(1), 1.0) is YES
    assert late.take(client(1), 1.0) is None


def test_the_newer_answer_counts() -> None:
    late = LateAnswers()
    late.put(client(1), YES, 0.0)
    late.put(client(1), NO, 1.0)
    assert late.take(client(1), 2.0) is NO
    assert late.take(client(1), 2.0) is None


def test_a_refusal_is_kept_for_a_shorter_time() -> None:
    for verdict, seconds in ((YES, KEPT_FOR), (NO, SHORT_TTL)):
        for after, found in ((seconds - 0.1, verdict), (seconds, None)):
            late = LateAnswers()
            late.put(client(1), verdict, 100.0)
            assert late.take(client(1), 100.0 + after) is found


def test_there_are_no_more_than_that() -> None:
    late = LateAnswers()
    for number in range(MAX_KEPT + 1):
        late.put(client(number), YES, 0.0)
    assert late.take(client(0), 0.0) is None
    assert [late.take(client(number), 0.0) for number in (1, MAX_KEPT)] == [YES, YES]
