"""The HTTP client for other servers: whom it trusts, and through which proxy it goes."""

import ssl
from pathlib import Path

import certifi
import pytest
import trustme

from derp.errors import StartError
from derp.net.outgoing import make_client


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("roots") / "roots.pem"
    trustme.CA(key_type=trustme.KeyType.ECDSA).cert_pem.write_to_path(file)
    return file


def trusted(flag: str = "-flag", bundle: Path | None = None) -> int:
    return make_client(flag, bundle)._context.cert_store_stats()["x509_ca"]


def test_the_machines_roots_and_a_bundle(
    roots: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(roots))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "none"))
    assert trusted() == 1
    other = tmp_path / "other.pem"
    trustme.CA(key_type=trustme.KeyType.ECDSA).cert_pem.write_to_path(other)
    assert trusted(bundle=other) == 2


@pytest.mark.parametrize("is_empty", [True, False])
def test_certifis_where_the_machine_has_none(
    roots: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_empty: bool
) -> None:
    """A directory with certificates is read only when one of them is looked for."""
    directory = tmp_path / "certs"
    directory.mkdir()
    if not is_empty:
        (directory / "0.pem").write_bytes(roots.read_bytes())
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("SSL_CERT_DIR", str(directory))
    monkeypatch.setattr(certifi, "where", lambda: str(roots))
    assert trusted() == int(is_empty)


def test_verifies() -> None:
    context = make_client("-flag", None)._context
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.check_hostname


def test_what_is_no_bundle(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    where = f"-verify-client-url-ca-bundle {file}"
    with pytest.raises(StartError) as caught:
        make_client("-verify-tailnet", file)
    assert str(caught.value) == (
        f"{where}: can't be read (No such file or directory); "
        "want a file with certificates in PEM that vouch for -verify-tailnet"
    )
    file.write_text("none")
    with pytest.raises(StartError) as caught:
        make_client("-verify-tailnet", file)
    assert str(caught.value) == (
        f"{where}: no certificates in PEM; want those that vouch for -verify-tailnet"
    )


def test_a_proxy_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "socks5://127.0.0.1:1080")
    with pytest.raises(StartError, match=r"^-verify-tailnet: the proxy in the environment can't"):
        make_client("-verify-tailnet", None)
