import pytest
from hypothesis import settings

from derp.http.routes import Site
from tests.http.sites import make_site

# No test here measures time, and the machine may be busy.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")


@pytest.fixture
def site() -> Site:
    return make_site()
