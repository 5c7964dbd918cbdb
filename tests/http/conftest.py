import pytest

from derp.http.backend import Backend
from tests.http.sites import make_backend


@pytest.fixture
def site() -> Backend:
    return make_backend()
