from derp.admission.cache import MAX_ENTRIES, SHORT_TTL, VerdictCache
from derp.admission.model import Outcome, Question, Verdict

YES = Verdict(Outcome.ALLOWED, "s")
NO = Verdict(Outcome.REFUSED, "s", "unknown")
OPEN = Verdict(Outcome.LATE, "s", failed_open=True)


def question(number: int = 0, address: str = "192.0.2.1") -> Question:
    return Question(number.to_bytes(32, "big"), address)


def test_a_yes_is_cached_for_its_time():
    cache = VerdictCache(30.0)
    cache.put(question(), YES, 100.0)
    assert cache.get(question(), 129.9) is YES
    assert cache.get(question(), 130.0) is None


def test_anything_else_for_a_shorter_time():
    for verdict in (NO, OPEN):
        cache = VerdictCache(30.0)
        cache.put(question(), verdict, 0.0)
        assert cache.get(question(), SHORT_TTL - 0.1) is verdict
        assert cache.get(question(), SHORT_TTL) is None
    cache = VerdictCache(3.0)
    cache.put(question(), NO, 0.0)
    assert cache.get(question(), 3.0) is None


def test_another_key_or_address_is_another_question():
    cache = VerdictCache(30.0)
    cache.put(question(1), YES, 0.0)
    assert cache.get(question(2), 0.0) is None
    assert cache.get(question(1, "192.0.2.2"), 0.0) is None


def test_the_latest_verdict_counts():
    cache = VerdictCache(30.0)
    for first, second in ((YES, NO), (NO, YES)):
        cache.put(question(), first, 0.0)
        cache.put(question(), second, 1.0)
        assert cache.get(question(), 2.0) is second


def test_nothing_is_cached_for_no_time():
    cache = VerdictCache(0.0)
    cache.put(question(), YES, 0.0)
    assert cache.get(question(), 0.0) is None


def test_unknown_clients_evict_only_each_other():
    cache = VerdictCache(30.0)
    cache.put(question(0), YES, 0.0)
    for number in range(1, MAX_ENTRIES + 2):
        cache.put(question(number), NO, 0.0)
    assert cache.get(question(0), 1.0) is YES
    assert cache.get(question(1), 1.0) is None
    assert cache.get(question(2), 1.0) is NO


def test_forgetting():
    cache = VerdictCache(30.0)
    cache.put(question(1), YES, 0.0)
    cache.put(question(2), NO, 0.0)
    cache.clear()
    assert cache.get(question(1), 0.0) is None
    assert cache.get(question(2), 0.0) is None
