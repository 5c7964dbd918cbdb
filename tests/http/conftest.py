import pytest

from derp.http.statussource import StatusSource
from tests.http.sites import make_status_source


@pytest.fixture
def site() -> StatusSource:
    return make_status_source()
