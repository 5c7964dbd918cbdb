import pytest

from derp.http.routes import Site
from tests.http.sites import make_site


@pytest.fixture
def site() -> Site:
    return make_site()
