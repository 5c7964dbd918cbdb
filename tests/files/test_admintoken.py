import logging
from pathlib import Path

import pytest

from derp.errors import StartError
from derp.files.admintoken import AdminToken, load_token

TOKEN = "0123456789abcdef"


def write(path: Path, content: bytes | str, mode: int = 0o600) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    path.chmod(mode)
    return path


def test_white_space_around_it_does_not_count(tmp_path: Path) -> None:
    token = load_token(write(tmp_path / "token", f" {TOKEN}\n"))
    assert token.value == TOKEN.encode()
    assert TOKEN not in repr(token)


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o640])
def test_a_group_may_have_it(tmp_path: Path, mode: int) -> None:
    assert load_token(write(tmp_path / "token", TOKEN, mode)).value


def test_without_a_file_there_is_none() -> None:
    assert load_token(None).value == b""


@pytest.mark.parametrize(
    ("content", "mode", "said"),
    [
        (b"", 0o600, "it is empty"),
        (TOKEN[1:].encode(), 0o600, "want 16 to 4096 ASCII characters"),
        (f"{TOKEN} {TOKEN}".encode(), 0o600, "not a token"),
        (f"{TOKEN}\n{TOKEN}".encode(), 0o600, "not a token"),
        (TOKEN.encode() + b"\xc3\xa9", 0o600, "not a token"),
        (b"x" * 4097, 0o600, "want at most 4096 bytes"),
        (TOKEN.encode(), 0o604, "others can use it (mode 0604); run chmod 600 on it"),
        (TOKEN.encode(), 0o602, "others can use it"),
    ],
)
def test_what_can_not_be_used(
    tmp_path: Path, content: bytes, mode: int, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path / "token", content, mode)
    with pytest.raises(StartError) as raised:
        load_token(path)
    told = str(raised.value)
    assert told.startswith(f"-admin-token-file {str(path)!r}: ")
    assert said in told
    assert "\n" not in told
    assert TOKEN not in told
    # While the relay runs, the token ends.
    running = AdminToken(path)
    running.value = TOKEN.encode()
    running.read()
    running.read()
    assert running.value == b""
    (warned,) = (record for record in caplog.records if record.name == "derper.http")
    assert warned.levelno == logging.WARNING
    assert "nobody may steer clients on /debug/" in warned.message


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="No such file or directory; make it, in mode 600, with"):
        load_token(tmp_path / "token")
    with pytest.raises(StartError, match="not a regular file"):
        load_token(tmp_path)


def test_a_new_one_counts(tmp_path: Path) -> None:
    path = write(tmp_path / "token", TOKEN)
    token = load_token(path)
    write(path, TOKEN[::-1])
    token.read()
    assert token.value == TOKEN[::-1].encode()
