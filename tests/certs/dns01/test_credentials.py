import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certs.dns01 import credentials
from certs.dns01.credentials import environment, parse, read, scrubbed
from certs.errors import CertificateFileError

TSIG_KEYGEN = 'key "derper.example" {\n\talgorithm hmac-sha256;\n\tsecret "c2VjcmV0";\n};\n'


@pytest.mark.parametrize(
    ("text", "variables"),
    [
        ("", {}),
        ("\n# NAME=comment\n\n", {}),
        ("A=1\nB_2 = two words \n", {"A": "1", "B_2": "two words"}),
        ("export A=1\r\nA=2\r\n", {"A": "2"}),
        (
            "A='1 # no comment'\nB=\"2\"\nC='3\nD=\n",
            {"A": "1 # no comment", "B": "2", "C": "'3", "D": ""},
        ),
        ("A=b=c\n", {"A": "b=c"}),
        ("key=1", {"key": "1"}),
    ],
)
def test_variables(text: str, variables: dict[str, str]) -> None:
    assert parse(text) == variables


@pytest.mark.parametrize(
    "text", [TSIG_KEYGEN, TSIG_KEYGEN.replace('"', ""), TSIG_KEYGEN.replace("\n", " ")]
)
def test_a_key_file_of_tsig_keygen_s(text: str) -> None:
    assert parse(text) == {
        "RFC2136_TSIG_KEY": "derper.example",
        "RFC2136_TSIG_ALGORITHM": "hmac-sha256",
        "RFC2136_TSIG_SECRET": "c2VjcmV0",
    }


@given(st.text())
def test_any_text_is_variables_or_one_line_without_it(text: str) -> None:
    found, message = {}, ""
    try:
        found = parse(f"TOKEN=12345\n{text}")
    except ValueError as error:
        message = str(error)
    assert re.fullmatch("(line [0-9]+ is not NAME=value)?", message)
    assert "\0" not in "".join(found.values())


def put(folder: Path, content: bytes, mode: int = 0o600) -> Path:
    file = folder / "credentials"
    file.write_bytes(content)
    file.chmod(mode)
    return file


@pytest.mark.parametrize(
    ("content", "mode", "says"),
    [
        (b"A=1", 0o604, "others can use it (mode 0604); run: chmod 600 "),
        (b"A=1", 0o602, "others can use it (mode 0602); run: chmod 600 "),
        (b"A=1\nhunter2", 0o600, "line 2 is not NAME=value; want lines NAME=value"),
        (b"A=\xff", 0o600, "it is not UTF-8; want lines"),
        (b"A=" + b"x" * 65536, 0o600, "it has more than 64 KiB; want lines"),
    ],
)
def test_a_file_that_can_t_be_used(tmp_path: Path, content: bytes, mode: int, says: str) -> None:
    file = put(tmp_path, content, mode)
    with pytest.raises(CertificateFileError) as caught:
        read(file)
    message = str(caught.value)
    assert message.startswith(f"-acme-dns-credentials {file}: {says}")
    assert "\n" not in message
    assert "hunter2" not in message


@pytest.mark.parametrize("name", ["none", "directory", "a\0b"])
def test_no_file(tmp_path: Path, name: str) -> None:
    (tmp_path / "directory").mkdir()
    with pytest.raises(CertificateFileError, match=r"can't be read .*; name a file that"):
        read(tmp_path / name)


def test_a_group_may_read_it(tmp_path: Path) -> None:
    assert read(put(tmp_path, b"A=1", 0o640)) == {"A": "1"}
    assert read(None) == {}


def test_the_file_goes_before_the_environment_and_the_relay_s_own_stays_out(tmp_path: Path) -> None:
    environ = {"PATH": "/bin", "A": "0", "DERP_ACME_EAB_KEY": "x", "TAILSCALE_DERPER_MESH_KEY": "y"}
    file = put(tmp_path, b"A=1\nB=2")
    assert environment(file, environ) == {"PATH": "/bin", "A": "1", "B": "2"}
    assert environment(None)["PATH"] == os.environ["PATH"]


def test_secrets_are_scrubbed() -> None:
    variables = {"X_AUTH_TOKEN": "se cret/1", "API_KEY": "abcd", "REGION": "region", "PASS": "abc"}
    text = "GET /?a=se%20cret%2F1&b=se+cret%2F1 se cret/1 abcd region abc"
    assert scrubbed(text, variables) == "GET /?a=…&b=… … … region abc"
    assert credentials.scrubbed("", variables) == ""
