"""Secrets in files and values: read anew each time, and in no message."""

import logging
from pathlib import Path

import pytest

from derp.devices.secret import Secret
from derp.errors import StartError

WHERE = "-tailnet-api-key-file (DERP_TAILNET_API_KEY_FILE)"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = tmp_path / "key"
    made.write_text(" tskey-api-1 \n")
    made.chmod(0o600)
    return made


def test_a_file_that_is_replaced(file: Path) -> None:
    secret = Secret(WHERE, path=file)
    assert secret.read(at_start=True) == "tskey-api-1"
    file.write_text("tskey-api-2")
    assert secret.read() == "tskey-api-2"


def test_a_value_is_in_no_repr() -> None:
    secret = Secret("-tailnet-api-key", "tskey-api-1")
    assert secret.read() == "tskey-api-1"
    assert "tskey" not in repr(secret)


@pytest.mark.parametrize("content", ["", "\n", "two words", "two\nlines", "schlüssel", "x" * 5000])
def test_what_is_no_secret(file: Path, content: str) -> None:
    file.write_text(content)
    with pytest.raises(StartError) as caught:
        Secret(WHERE, path=file).read()
    assert str(caught.value) == (
        f"{WHERE} '{file}': want nothing in it but the secret, in one line of ASCII"
    )


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(StartError) as caught:
        Secret(WHERE, path=tmp_path / "none").read()
    assert str(caught.value) == (
        f"{WHERE} '{tmp_path / 'none'}': can't be read (No such file or directory); "
        "want a file with the secret"
    )
    with pytest.raises(StartError, match="not a regular file"):
        Secret(WHERE, path=tmp_path).read()
    with pytest.raises(StartError, match="can't be read"):
        Secret(WHERE, path=Path("a\0b")).read()


def test_others_who_could_use_it(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    file.chmod(0o644)
    with caplog.at_level(logging.WARNING, "derper"):
        Secret(WHERE, path=file).read(at_start=True)
        Secret(WHERE, path=file).read()
    said = [each for each in caplog.records if each.msg == "others can use the file of a secret"]
    assert [each.__dict__["fields"]["mode"] for each in said] == ["0644"]
    assert "tskey" not in caplog.text
