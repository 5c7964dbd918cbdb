"""The command and its certificates, as a process; the authorities here are dead or silent."""

import http.client
import ipaddress
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme

from certs.acme.network import REQUEST_TIMEOUT
from certs.selfsigned import make_self_signed
from tests.patience import PATIENCE
from tests.process import Derper, derper, insecure

HOST = "relay.example"


@pytest.fixture
def silent() -> Iterator[int]:
    """The port of an authority that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def by_acme(port: int, *more: str) -> tuple[str, ...]:
    directory = f"https://127.0.0.1:{port}/dir"
    return ("-certmode", "letsencrypt", "-acme-directory", directory, "-hostname", HOST, *more)


def alert(port: int, name: str | None) -> str:
    """Return the alert that a TLS client gets."""
    with (
        socket.create_connection(("127.0.0.1", port), PATIENCE) as tcp,
        pytest.raises(ssl.SSLError) as caught,
    ):
        insecure().wrap_socket(tcp, server_hostname=name)
    return str(caught.value.reason)


def get(relay: Derper, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", relay.port("HTTP"), timeout=PATIENCE)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def served(port: int) -> bytes | None:
    """Return the certificate that is served to those who connect now."""
    with (
        socket.create_connection(("127.0.0.1", port), PATIENCE) as tcp,
        insecure().wrap_socket(tcp, server_hostname=HOST) as tls,
    ):
        return tls.getpeercert(binary_form=True)


def test_while_there_is_no_certificate(tmp_path: Path, silent: int) -> None:
    with derper(tmp_path, *by_acme(silent)) as relay:
        relay.wait_for(f"ordering a certificate.*names={HOST}.*challenge=http-01")
        assert alert(relay.port("HTTPS"), HOST) == "TLSV1_ALERT_INTERNAL_ERROR"
        assert alert(relay.port("HTTPS"), None) == "TLSV1_ALERT_INTERNAL_ERROR"
        relay.wait_for(f"refused.*there is no certificate for {HOST} yet")
        status, page = get(relay, "/debug/")
        assert status == 200
        assert "none yet" in page
        assert get(relay, "/.well-known/acme-challenge/token")[0] == 404
        _, metrics = get(relay, "/debug/varz")
        assert f'derper_certificate_expiry_seconds{{name="{HOST}"}} 0\n' in metrics
        # An order that gets no answer delays no stop: it ends long before the request would.
        relay.signal(signal.SIGTERM)
        assert relay.process.wait(0.8 * REQUEST_TIMEOUT) == 0
        relay.wait()
        assert not any("Traceback" in line for line in relay.log)


def test_an_authority_that_can_t_be_reached(tmp_path: Path, silent: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        dead = listener.getsockname()[1]
    with derper(tmp_path, *by_acme(dead)) as relay:
        relay.wait_for(rf"no certificate yet.*127\.0\.0\.1:{dead} can't be reached.*next_try_in")
        _, page = get(relay, "/debug/")
        assert "can&#x27;t be reached" in page or "can't be reached" in page
        relay.signal(signal.SIGHUP)
        relay.wait_for("ordering a certificate")


def test_a_certificate_that_is_there_is_served_whatever_the_authority_does(
    tmp_path: Path, silent: int
) -> None:
    issued = trustme.CA().issue_cert(HOST)
    (tmp_path / "certs").mkdir()
    file = tmp_path / "certs" / HOST
    chain = b"".join(blob.bytes() for blob in issued.cert_chain_pems)
    file.write_bytes(issued.private_key_pem.bytes() + chain)
    file.chmod(0o600)
    with derper(tmp_path, *by_acme(silent)) as relay:
        leaf = ssl.PEM_cert_to_DER_cert(issued.cert_chain_pems[0].bytes().decode())
        assert served(relay.port("HTTPS")) == leaf
        assert alert(relay.port("HTTPS"), "other.example") == "TLSV1_UNRECOGNIZED_NAME"


def test_files_of_the_operators_own(tmp_path: Path) -> None:
    authority = trustme.CA()
    for turn in ("1", "2"):
        issued = authority.issue_cert(HOST)
        (tmp_path / turn).mkdir()
        issued.cert_chain_pems[0].write_to_path(tmp_path / turn / "fullchain.pem")
        key = tmp_path / turn / "privkey.pem"
        issued.private_key_pem.write_to_path(key)
        key.chmod(0o600)
    (tmp_path / "live").symlink_to("1")
    chain, key = tmp_path / "live/fullchain.pem", tmp_path / "live/privkey.pem"
    flags = ("-hostname", HOST, "-tls-cert", str(chain), "-tls-key", str(key), "-certdir=")
    with derper(tmp_path, *flags) as relay:
        first = served(relay.port("HTTPS"))
        (tmp_path / "new").symlink_to("2")
        os.rename(tmp_path / "new", tmp_path / "live")  # noqa: PTH104 -- it is one system call
        relay.wait_for("new certificate")
        second = served(relay.port("HTTPS"))
        assert second == ssl.PEM_cert_to_DER_cert(chain.read_text())
        assert second != first


def test_a_file_of_the_operators_own_that_is_missing(tmp_path: Path) -> None:
    arguments = ["-a", "127.0.0.1:0", "-http-port=-1", "-stun=false", "-c", str(tmp_path / "key")]
    arguments += ["-certmode", "manual", "-hostname", "192.0.2.7"]
    arguments += ["-tls-cert", str(tmp_path / "a.pem"), "-tls-key", str(tmp_path / "b.pem")]
    done = subprocess.run(
        [sys.executable, "-m", "derp", *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"derper: {tmp_path}/a.pem: no such file; put the certificate of")
    assert line.endswith("or point -tls-cert elsewhere")
    assert not list(tmp_path.iterdir())


def test_a_self_signed_pair_that_has_expired_is_replaced_loudly(tmp_path: Path) -> None:
    certdir = tmp_path / "certs"
    certdir.mkdir()
    long_ago = datetime.now(UTC) - timedelta(days=400)
    chain, key = make_self_signed(ipaddress.ip_address("127.0.0.1"), long_ago)
    (certdir / "127.0.0.1.crt").write_bytes(chain)
    (certdir / "127.0.0.1.key").write_bytes(key)
    (certdir / "127.0.0.1.key").chmod(0o600)
    with derper(tmp_path) as relay:
        notice = relay.wait_for(r"level=warning.*was replaced; clients refuse.*CertName (\S+)\"")
        node = json.loads(relay.wait_for(r'^  (\{"Name":"900a".*\})$')[1])
        assert node["CertName"] == notice[1]
        assert (certdir / "127.0.0.1.crt.old").read_bytes() == chain
