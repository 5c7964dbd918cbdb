"""Calls in a process of their own."""

import io
import pickle
import sys
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path

import pytest

from certs import apart
from certs.acme.authority import Authority
from certs.acme.request import OrderRequest
from certs.errors import CertificateFileError, IssueError
from certs.files import PairFiles, pair_files, read_pair
from certs.generated import is_generated
from certs.selfsigned import write_self_signed
from tests.support.authority import issuer

NOW = datetime.now(UTC)
HOST = "192.0.2.7"


@pytest.fixture
def by_acme(tmp_path: Path) -> Path:
    issuer(tmp_path)("relay.example")
    return tmp_path / "relay.example"


@pytest.fixture
def unloaded(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """As in a relay: with these loaded, the call would be made here."""
    for library in ("cryptography", "acme"):
        monkeypatch.delitem(sys.modules, library, raising=False)
    return monkeypatch


@pytest.fixture
def only_apart(unloaded: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} was imported here")

    unloaded.setattr("importlib.import_module", refuse)


@pytest.mark.slow
@pytest.mark.usefixtures("only_apart")
def test_a_pair_is_made_and_read(tmp_path: Path) -> None:
    files = pair_files(tmp_path, HOST)
    pair = apart.load_manual(files, [HOST], NOW, make=True)
    assert is_generated(pair, ip_address(HOST))
    assert files.key.read_bytes().startswith(b"-----BEGIN EC PRIVATE KEY-----")
    assert apart.read_pair(files, [HOST], NOW) == pair
    assert apart.replace_invalid(files, ip_address(HOST), pair, NOW) is None
    # With this, the library is loaded.
    assert read_pair(files, [HOST], NOW) == pair


@pytest.mark.slow
@pytest.mark.usefixtures("only_apart")
def test_errors_are_those_of_the_function(tmp_path: Path) -> None:
    files = pair_files(tmp_path, HOST)
    with pytest.raises(CertificateFileError) as there:
        apart.read_pair(files, [HOST], NOW)
    with pytest.raises(CertificateFileError) as here:
        read_pair(files, [HOST], NOW)
    assert str(there.value) == str(here.value)


@pytest.mark.slow
def test_an_authority_that_can_t_be_reached(
    by_acme: Path, tmp_path: Path, only_apart: None
) -> None:
    file = by_acme
    pair = apart.read_pair(PairFiles(file, file), ["relay.example"], NOW)
    request = OrderRequest(tmp_path, ("relay.example",), Authority("https://127.0.0.1:1/dir"))
    with pytest.raises(IssueError, match=r"no renewal information for .*127\.0\.0\.1"):
        apart.renewal_info(request, pair, NOW)


@pytest.mark.parametrize("program", ["/does/not/exist", "/bin/false", "/bin/true"])
def test_without_another_process_it_is_called_here(
    tmp_path: Path, unloaded: pytest.MonkeyPatch, program: str
) -> None:
    unloaded.setattr(sys, "executable", program)
    pair = apart.load_manual(pair_files(tmp_path, HOST), [HOST], NOW, make=True)
    assert pair.names == (HOST,)


def test_performs_a_call(tmp_path: Path) -> None:
    files = pair_files(tmp_path, HOST)

    def perform(name: str, *arguments: object) -> object:
        result = io.BytesIO()
        call = pickle.dumps(("certs.files", name, arguments, {}))
        apart.perform(io.BytesIO(call), result)
        return pickle.loads(result.getvalue())

    assert isinstance(perform("read_pair", files, [HOST], NOW), CertificateFileError)
    write_self_signed(files, ip_address(HOST), NOW)
    assert perform("read_pair", files, [HOST], NOW) == read_pair(files, [HOST], NOW)
