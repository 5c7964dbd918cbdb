"""The mesh key: where it is looked for, and what is no key."""

import logging
import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from derp.config import Config
from derp.config.mesh import KeyFile, MeshRelay
from derp.errors import StartError, UsageError
from derp.files import meshkey
from derp.files.meshkey import MeshKeyFormatError, load, parse
from derp.net.listenaddress import Address
from tests.support.config import make_config

DIGITS = "0123456789abcdef" * 4
KEY = bytes.fromhex(DIGITS)
OTHER = "f" * 64
WANT = "want 64 hex digits, as openssl rand -hex 32 prints them, the same for all relays"
OTHERS = (MeshRelay("derp2", 8443), MeshRelay("derp3", 443, "10.0.0.3"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "derp-mesh.key"


@pytest.fixture(autouse=True)
def default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put the default file of the Go derper somewhere else."""
    path = tmp_path / "default" / "derp-mesh.key"
    monkeypatch.setattr(meshkey, "_DEFAULT", str(path))
    path.parent.mkdir()
    return path


def config(
    mesh_psk_file: Path | KeyFile | None = KeyFile.AUTO,
    *,
    derp: bool = True,
    mesh_with: tuple[MeshRelay, ...] = (),
) -> Config:
    return make_config(
        a=Address("", 8080),
        c=Path("/k"),
        mesh_psk_file=mesh_psk_file,
        derp=derp,
        mesh_with=mesh_with,
    )


def dev(
    mesh_psk_file: Path | KeyFile | None = KeyFile.AUTO, mesh_with: tuple[MeshRelay, ...] = ()
) -> Config:
    address = Address("", 0)
    return make_config(dev=True, a=address, mesh_psk_file=mesh_psk_file, mesh_with=mesh_with)


def write(path: Path, data: bytes | str, mode: int = 0o600) -> Path:
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    path.chmod(mode)
    return path


def start_error(path: Path) -> str:
    with pytest.raises(StartError) as caught:
        load(config(path), {})
    message = str(caught.value)
    assert message.isprintable()
    assert message.startswith(f"-mesh-psk-file {str(path)!r}: ")
    assert DIGITS[:16] not in message
    return message.partition("': ")[2]


def warnings(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [
        record
        for record in caplog.records
        if record.name == "derper.mesh" and record.levelno >= logging.WARNING
    ]


# --- what is a key ---


@given(st.binary(min_size=32, max_size=32).filter(any), st.text(" \t\r\n\v\f\u00a0", max_size=5))
def test_any_32_bytes_but_zeros(key: bytes, space: str):
    assert parse(f"{space}{key.hex()}{space}") == key
    assert parse(key.hex().upper()) == key


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        (" \n", "empty"),
        (DIGITS[:-1], "not a mesh key"),
        (DIGITS + "0", "not a mesh key"),
        (DIGITS[:-1] + "g", "not a mesh key"),
        (DIGITS[:32] + "\n" + DIGITS[32:], "not a mesh key"),
        (f"{DIGITS}\n{DIGITS}", "not a mesh key"),
        (f"privkey:{DIGITS}", "not a mesh key"),
        (f"0x{DIGITS[2:]}", "not a mesh key"),
        ("٣" * 64, "not a mesh key"),
        ("0" * 64, "nothing but zeros is not a mesh key"),
    ],
)
def test_what_is_no_key(text: str, message: str):
    with pytest.raises(MeshKeyFormatError) as caught:
        parse(text)
    assert str(caught.value) == message


# --- the file ---


@pytest.mark.parametrize("data", [DIGITS, f"{DIGITS}\n", f" \n{DIGITS.upper()}\r\n"])
def test_the_file_that_is_named(path: Path, data: str, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    assert load(config(write(path, data)), {}) == KEY
    assert not warnings(caplog)
    (record,) = caplog.records
    assert record.getMessage() == "mesh key read"
    assert record.__dict__["fields"] == {"path": str(path)}


def test_a_link_to_the_file(path: Path, tmp_path: Path):
    (tmp_path / "link").symlink_to(write(path, DIGITS))
    assert load(config(tmp_path / "link"), {}) == KEY


@pytest.mark.parametrize("mode", [0o604, 0o644, 0o602])
def test_a_file_for_others_is_a_warning(path: Path, mode: int, caplog: pytest.LogCaptureFixture):
    assert load(config(write(path, DIGITS, mode)), {}) == KEY
    (record,) = warnings(caplog)
    assert record.getMessage() == "others can use the file of the mesh key"
    fields = {"path": str(path), "mode": f"{mode:04o}", "cure": "run chmod 600 on it"}
    assert record.__dict__["fields"] == fields


def test_a_file_for_the_group_is_none(path: Path, caplog: pytest.LogCaptureFixture):
    load(config(write(path, DIGITS, 0o640)), {})
    assert not warnings(caplog)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("", f"empty; {WANT}"),
        (DIGITS[:-1], f"not a mesh key; {WANT}"),
        (b"\xff" * 64, f"not a mesh key; {WANT}"),
        ("0" * 64, f"nothing but zeros is not a mesh key; {WANT}"),
        (" " * 4033 + DIGITS, f"too large for a mesh key; {WANT}"),
    ],
)
def test_a_file_without_a_key(path: Path, data: bytes | str, message: str):
    assert start_error(write(path, data)) == message


def test_a_file_of_the_most_bytes(path: Path):
    assert load(config(write(path, " " * 4032 + DIGITS)), {}) == KEY


def test_a_file_that_can_not_be_read(path: Path, tmp_path: Path):
    want = "want a file with the key"
    assert start_error(path) == f"can't be read (No such file or directory); {want}"
    assert start_error(tmp_path) == "not a regular file; want the path of a file"
    os.mkfifo(path)
    assert start_error(path) == "not a regular file; want the path of a file"
    # Python 3.13 says it in other words.
    assert re.fullmatch(rf"can't be read \(.*embedded null .*\); {want}", start_error(Path("a\0b")))


# --- where it is looked for ---


def test_no_key_at_all(tmp_path: Path):
    assert load(config(), {}) is None
    assert load(config(), {"HOME": str(tmp_path)}) is None
    assert load(config(None), {"HOME": str(tmp_path)}) is None


def test_the_default_files(default: Path, tmp_path: Path):
    environ = {"HOME": str(tmp_path)}
    write(tmp_path / "keys" / "derp-mesh.key", OTHER)
    assert load(config(), environ) == bytes.fromhex(OTHER)
    assert load(config(), {}) is None
    write(default, DIGITS)
    assert load(config(), environ) == KEY
    assert load(config(None), environ) is None


def test_a_default_file_that_is_broken(default: Path):
    write(default, "x")
    with pytest.raises(StartError, match=rf"^-mesh-psk-file '{default}': not a mesh key; "):
        load(config(), {})


def test_a_default_directory_that_is_closed_to_us(default: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "stat", refuse)
    assert load(config(), {}) is None


def test_no_home_is_not_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "keys" / "derp-mesh.key", DIGITS)
    assert load(config(), {"HOME": ""}) is None


def test_without_relaying_none_is_read(path: Path):
    assert load(config(path, derp=False), {}) is None


# --- the variable ---


def test_the_variable_counts_in_development_mode_only(default: Path):
    environ = {"TAILSCALE_DERPER_MESH_KEY": f"{OTHER}\n"}
    write(default, DIGITS)
    assert load(dev(), environ) == bytes.fromhex(OTHER)
    assert load(config(), environ) == KEY
    assert load(dev(), {}) is None
    assert load(dev(), {"TAILSCALE_DERPER_MESH_KEY": ""}) is None


def test_a_file_may_be_named_in_development_mode(path: Path):
    assert load(dev(write(path, DIGITS)), {}) == KEY
    environ = {"TAILSCALE_DERPER_MESH_KEY": OTHER}
    assert load(dev(path), environ) == bytes.fromhex(OTHER)


def test_a_variable_without_a_key():
    with pytest.raises(UsageError) as caught:
        load(dev(), {"TAILSCALE_DERPER_MESH_KEY": DIGITS[1:]})
    assert str(caught.value) == f"TAILSCALE_DERPER_MESH_KEY: not a mesh key; {WANT}"


# --- other relays without a key ---


def test_other_relays_without_a_key(path: Path):
    with pytest.raises(UsageError) as caught:
        load(config(mesh_with=OTHERS), {})
    listed = "-mesh-with derp2:8443,derp3/10.0.0.3"
    assert str(caught.value) == f"{listed}: want the mesh key in -mesh-psk-file"
    with pytest.raises(UsageError) as caught:
        load(dev(mesh_with=OTHERS), {})
    want = "want the mesh key in -mesh-psk-file or TAILSCALE_DERPER_MESH_KEY"
    assert str(caught.value) == f"{listed}: {want}"
    assert load(config(write(path, DIGITS), mesh_with=OTHERS), {}) == KEY
