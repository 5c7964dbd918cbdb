"""How many examples of hypothesis's a test has that wants another number than the usual one."""

from hypothesis import settings


def examples(number: int) -> int:
    """Return `number`, or what the profile has, if that is one with fewer than usual."""
    usual, here = settings.get_profile("default").max_examples, settings().max_examples
    return number if here >= usual else min(number, here)
