"""For all tests: how hypothesis works."""

from hypothesis import settings

# A busy machine must not fail a test that is right.
settings.register_profile("default", deadline=None)
settings.load_profile("default")
