from derp.admission.cache import MAX_REMEMBERED, SHORT, Verdict, VerdictCache
from derp.admission.question import Question

YES = Verdict(admitted=True, source="s")
NO = Verdict(admitted=False, source="s", reason="unknown")
OPEN = Verdict(admitted=True, source="s", certain=False)


def question(number: int = 0, source: str = "192.0.2.1") -> Question:
    return Question(number.to_bytes(32, "big"), source)


def test_a_yes_is_remembered_for_its_time():
    memory = VerdictCache(30.0)
    memory.note(question(), YES, 100.0)
    assert memory.recall(question(), 129.9) is YES
    assert memory.recall(question(), 130.0) is None


def test_anything_else_for_a_shorter_time():
    for verdict in (NO, OPEN):
        memory = VerdictCache(30.0)
        memory.note(question(), verdict, 0.0)
        assert memory.recall(question(), SHORT - 0.1) is verdict
        assert memory.recall(question(), SHORT) is None
    memory = VerdictCache(3.0)
    memory.note(question(), NO, 0.0)
    assert memory.recall(question(), 3.0) is None


def test_another_key_or_address_is_another_question():
    memory = VerdictCache(30.0)
    memory.note(question(1), YES, 0.0)
    assert memory.recall(question(2), 0.0) is None
    assert memory.recall(question(1, "192.0.2.2"), 0.0) is None


def test_the_latest_verdict_counts():
    memory = VerdictCache(30.0)
    for first, second in ((YES, NO), (NO, YES)):
        memory.note(question(), first, 0.0)
        memory.note(question(), second, 1.0)
        assert memory.recall(question(), 2.0) is second


def test_nothing_is_remembered_for_no_time():
    memory = VerdictCache(0.0)
    memory.note(question(), YES, 0.0)
    assert memory.recall(question(), 0.0) is None


def test_strangers_push_out_only_each_other():
    memory = VerdictCache(30.0)
    memory.note(question(0), YES, 0.0)
    for number in range(1, MAX_REMEMBERED + 2):
        memory.note(question(number), NO, 0.0)
    assert memory.recall(question(0), 1.0) is YES
    assert memory.recall(question(1), 1.0) is None
    assert memory.recall(question(2), 1.0) is NO


def test_forgetting():
    memory = VerdictCache(30.0)
    memory.note(question(1), YES, 0.0)
    memory.note(question(2), NO, 0.0)
    memory.forget()
    assert memory.recall(question(1), 0.0) is None
    assert memory.recall(question(2), 0.0) is None
