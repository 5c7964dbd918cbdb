"""For all tests: how hypothesis works."""

from hypothesis import HealthCheck, settings

# A busy machine must not fail a test that is right.
settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("default")
