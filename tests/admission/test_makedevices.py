"""Lists of devices as they are configured, with what is kept on disk of them."""

import logging
import math
import time
from pathlib import Path
from typing import Any

import pytest

from derp.admission.make import announce, make_checker
from derp.admission.makedevices import make_device_lists
from derp.config import Config
from derp.devices.fetch import Fetcher
from derp.devices.kept import KeptList
from derp.devices.model import Devices
from derp.errors import StartError
from derp.metrics import Metrics
from derp.net.listenaddress import Address
from derp.service.debugrows import admission_rows
from tests.support.config import make_config

KEY = b"k" * 32
NAME = "tailnet:example.com"
HEADSCALE = {"verify_headscale": "https://h", "headscale_api_key": "h"}


def configured(folder: Path, **flags: Any) -> Config:
    flags = {"verify_tailnet": "example.com", "tailnet_api_key": "tskey-api-s3cret", **flags}
    return make_config(a=Address("127.0.0.1", 0), c=folder / "derper.key", **flags)


def lines(caplog: pytest.LogCaptureFixture, event: str) -> list[dict[str, Any]]:
    return [each.__dict__["fields"] for each in caplog.records if each.msg == event]


def test_each_list_in_the_order_of_the_flags(tmp_path: Path) -> None:
    config = configured(
        tmp_path,
        verify_tailnet="a.com,b.com",
        verify_tailnet_api="https://api.test/",
        tailnet_api_key="",
        tailnet_client_id="i",
        tailnet_client_secret="s,t",
        verify_tailnet_tags="tag:a",
        verify_headscale="https://hs.example",
        headscale_api_key="h",
    )
    lists = make_device_lists(config)
    assert [each.name for each in lists] == [
        "tailnet:a.com",
        "tailnet:b.com",
        "headscale:hs.example",
    ]
    fetchers = [each.fetcher for each in lists]
    asked = [each.api for each in fetchers if isinstance(each, Fetcher)]
    assert [each.url.text for each in asked] == [
        "https://api.test/api/v2/tailnet/a.com/devices",
        "https://api.test/api/v2/tailnet/b.com/devices",
        "https://hs.example/api/v1/node",
    ]
    assert [each.secret.value for each in asked] == ["s", "t", "h"]
    assert [each.oauth and each.oauth.identity for each in asked] == ["i", "i", None]
    assert {each.tags for each in asked} == {frozenset({"tag:a"})}
    assert [each.store and each.store.path.parent for each in lists] == [tmp_path] * 3


def test_what_is_kept_counts_from_the_start(tmp_path: Path) -> None:
    devices = Devices({KEY: math.inf}, float(int(time.time()) - 60))
    KeptList.of(tmp_path, NAME, frozenset()).save(devices)
    (made,) = make_device_lists(configured(tmp_path))
    assert made.devices == devices
    checker = make_checker(configured(tmp_path), Metrics())
    (row,) = (each.value for each in admission_rows(checker) if each.name == f"Devices of {NAME}")
    assert row.startswith("1, listed 20")


def test_a_file_that_is_another_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "devices-tailnet_example.com").write_text("hello")
    (made,) = make_device_lists(configured(tmp_path))
    assert made.devices is None
    (said,) = lines(caplog, "the kept list of devices is not used")
    assert said["reason"] == "it was not written by derper, or by another version"


def test_without_a_key_file_nothing_is_kept() -> None:
    config = make_config(
        dev=True, a=Address("127.0.0.1", 0), verify_tailnet="-", tailnet_api_key="k"
    )
    (made,) = make_device_lists(config)
    assert made.store is None


def test_a_secret_that_can_not_be_read_is_an_error_at_the_start(tmp_path: Path) -> None:
    config = configured(tmp_path, tailnet_api_key="", tailnet_api_key_file=[tmp_path / "none"])
    with pytest.raises(StartError, match=r"^-tailnet-api-key-file \(DERP_TAILNET_API_KEY_FILE\)"):
        make_checker(config, Metrics())


@pytest.mark.parametrize(
    ("url", "is_told"),
    [("http://hs.example", True), ("https://hs.example", False), ("http://127.0.0.1:8080", False)],
)
def test_a_key_that_goes_unencrypted_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, url: str, is_told: bool
) -> None:
    make_device_lists(configured(tmp_path, verify_headscale=url, headscale_api_key="h"))
    said = lines(caplog, "whoever is on the way can read the credential; want https://")
    assert len(said) == int(is_told)


@pytest.mark.parametrize(
    ("require_all", "how_many", "then"), [(False, "one", ", or"), (True, "each", " and")]
)
def test_several_sources(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    require_all: bool,
    how_many: str,
    then: str,
) -> None:
    caplog.set_level(logging.INFO, "derper")
    config = configured(
        tmp_path,
        verify_clients=True,
        socket="/a.sock,/b.sock",
        verify_client_url="https://a/verify",
        verify_all=require_all,
        isolate=require_all,
    )
    checker = make_checker(config, Metrics())
    assert checker is not None
    assert checker.sources.require_all == checker.sources.is_ordered == require_all
    announce(config, checker)
    assert lines(caplog, "clients are checked")[0]["admitted"] == (
        f"in tailnet:example.com{then} known to {how_many} of tailscaled:/a.sock, "
        "tailscaled:/b.sock and allowed by -verify-client-url"
    )
    said = lines(caplog, "clients of different sources or groups can't reach each other")
    assert len(said) == int(require_all)


def test_the_start_says_who_is_in(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "derper")
    config = configured(
        tmp_path, verify_clients=True, verify_headscale="https://h", headscale_api_key="h"
    )
    announce(config, make_checker(config, Metrics()))
    (said,) = lines(caplog, "clients are checked")
    assert said["admitted"] == ("in tailnet:example.com, or in headscale:h, or known to tailscaled")
    assert "s3cret" not in caplog.text
