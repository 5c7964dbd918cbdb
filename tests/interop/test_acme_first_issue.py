"""A relay that starts without a certificate and gets one from a real ACME server."""

import re
import stat
from contextlib import ExitStack
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from tests.interop.issuing import (
    INTERNAL_ERROR,
    UNRECOGNIZED_NAME,
    acme_relay,
    issued,
    shake,
    shake_with,
)
from tests.interop.pebble import Pebble
from tests.interop.rawderp import SERVER
from tests.interop.relay import Relay, free_port, running


def test_from_nothing_to_a_certificate_that_stays(
    under_test: list[str], authority: Pebble, tmp_path: Path
) -> None:
    """By the one way that the authority can go, the other leading nowhere."""

    def relay_at(host: str, way: str, **port: int) -> Relay:
        return acme_relay(under_test, tmp_path / way, authority, f"{way}.test", host, **port)

    relays = (
        relay_at("127.0.0.11", "http-01", port=free_port()),
        relay_at("127.0.0.12", "tls-alpn-01", http_port=-1),
    )
    with ExitStack() as stack:
        with authority.held():
            for relay in relays:
                stack.enter_context(running(relay))
                relay.wait_for_log(rf'"ordering a certificate".*{relay.hostname}')
                assert shake_with(relay).alert == INTERNAL_ERROR
        first = [issued(relay, authority) for relay in relays]
        for relay, shaken in zip(relays, first, strict=True):
            address = (relay.host, relay.port)
            assert shake(address, "other.test").alert == UNRECOGNIZED_NAME
            assert f"derpkey{SERVER.public.hex()}".encode() in shaken.metacert
            check_files(relay, authority.directory, shaken.chain[0])
    assert authority.orders == len(relays)
    assert "Attempting to validate w/ HTTP: http://http-01.test" in authority.log
    assert "Attempting to validate w/ HTTP: http://tls-alpn-01.test" not in authority.log

    with authority.held():
        for relay, shaken in zip(relays, first, strict=True):
            with running(relay):
                assert shake_with(relay).chain == shaken.chain
    assert authority.orders == len(relays)


def check_files(relay: Relay, directory: str, leaf: bytes) -> None:
    """Laid out as Go's autocert does, and for nobody else to read."""
    certdir, hostname = relay.certdir, relay.hostname
    assert stat.S_IMODE(certdir.stat().st_mode) == 0o700
    files = {file.name: file for file in certdir.iterdir() if not file.name.startswith(".")}
    assert files.keys() == {"acme_account+key", hostname}
    for file in certdir.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file

    account = files["acme_account+key"].read_bytes()
    assert account.startswith(b"-----BEGIN EC PRIVATE KEY-----\n")
    key = load_pem_private_key(account, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert key.curve.name == "secp256r1"

    text = files[hostname].read_text()
    assert text.startswith(f"ACME directory: {directory}\n-----BEGIN EC PRIVATE KEY-----\n")
    assert text.endswith("-----END CERTIFICATE-----\n")
    kinds = re.findall("-----BEGIN (.*)-----", text)
    assert kinds == ["EC PRIVATE KEY", "CERTIFICATE", "CERTIFICATE"]
    chain = x509.load_pem_x509_certificates(text.encode())
    assert chain[0] == x509.load_der_x509_certificate(leaf)
