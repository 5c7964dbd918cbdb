"""Each file that is trusted is looked at when it is read, and the operator told once."""

from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path

import pytest

from certs import ownership
from certs.acme.store import ACCOUNT_FILE
from certs.files import pair_files, read_pair
from certs.selfsigned import write_self_signed
from certs.tasks.load import load
from derp.admission import allowlist
from derp.admission.make import make_checker
from derp.config.certplan import make_plan
from derp.files import meshkey, nodekey, ratelimit
from derp.metrics import Metrics
from derp.net.listenaddress import Address
from derp.policy import file as policy
from tests.support.config import make_config

ADDRESS = Address("", 8080)
NOW = datetime.now(UTC)


@pytest.fixture(autouse=True)
def nobody_is_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Anybody could swap any file; and nothing has been said about that so far."""

    def swap_warning(file: Path) -> str:
        return f"{file}: could be swapped"

    monkeypatch.setattr(ownership, "swap_warning", swap_warning)
    monkeypatch.setattr("certs.files.swap_warning", swap_warning)
    monkeypatch.setattr(ownership, "_warned", set())


def warned(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        record.getMessage().partition(":")[0]
        for record in caplog.records
        if record.levelname == "WARNING" and "could be swapped" in record.getMessage()
    ]


def test_the_node_key(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "derper.key"
    nodekey.load_or_make(file)
    nodekey.load_or_make(file)
    assert warned(caplog) == [str(file)]


def test_the_mesh_key(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "mesh.key"
    file.write_text("0f" * 32)
    meshkey.load(make_config(a=ADDRESS, c=tmp_path / "k", mesh_psk_file=file), {})
    assert warned(caplog) == [str(file)]


def test_the_list_once_however_often_it_is_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "nodes"
    file.write_text(f"nodekey:{'0f' * 32}")
    listing = allowlist.AllowList(file, allowlist.load(file))
    file.write_text(f"nodekey:{'1f' * 32}")
    assert listing.read_changed(at_once=True)
    assert warned(caplog) == [str(file)]


def test_the_policy(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "policy.toml"
    file.write_text("[defaults]")
    policy.load(file)
    assert warned(caplog) == [str(file)]


def test_the_rate_limit(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "rate.json"
    file.write_text("{}")
    ratelimit.load(file)
    assert warned(caplog) == [str(file)]


def test_roots_for_urls(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "192.0.2.7.crt"
    write_self_signed(pair_files(tmp_path, "192.0.2.7"), ip_address("192.0.2.7"), NOW)
    config = make_config(
        a=ADDRESS,
        c=tmp_path / "k",
        verify_client_url=("https://control.test/",),
        verify_client_url_ca_bundle=file,
    )
    make_checker(config, Metrics())
    assert warned(caplog) == [str(file)]


def test_where_tailscaled_is_asked(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = make_config(
        a=ADDRESS,
        c=tmp_path / "k",
        verify_clients=True,
        socket=tmp_path / "tailscaled.sock",
    )
    make_checker(config, Metrics())
    assert warned(caplog) == [str(tmp_path)]


def test_a_certificate_and_its_key(tmp_path: Path) -> None:
    files = pair_files(tmp_path, "192.0.2.7")
    write_self_signed(files, ip_address("192.0.2.7"), NOW)
    warnings = read_pair(files, ["192.0.2.7"], NOW).swap_warnings
    assert warnings == tuple(f"{file}: could be swapped" for file in (files.certificate, files.key))


def test_the_account_and_roots_for_the_authority(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = pair_files(tmp_path, "192.0.2.7")
    write_self_signed(files, ip_address("192.0.2.7"), NOW)
    certdir = tmp_path / "certs"
    config = make_config(
        a=Address("", 443),
        c=tmp_path / "k",
        hostname="relay.example",
        certdir=certdir,
        acme_directory="https://ca.test/directory",
        acme_ca_bundle=files.certificate,
    )
    load(make_plan(config), NOW)
    assert warned(caplog) == [str(certdir / ACCOUNT_FILE), str(files.certificate)]


def test_other_things_are_logged_as_they_come_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    reasons = iter(["a: could be swapped", None, "b: could be swapped", "a: could be swapped"])
    monkeypatch.setattr(ownership, "swap_warning", lambda _: next(reasons))
    for _ in range(4):
        ownership.warn_if_swappable(tmp_path)
    assert warned(caplog) == ["a", "b"]
