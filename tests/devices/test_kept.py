"""The list on disk: what is written is read again, and nothing else is."""

import contextlib
import math
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from derp.devices.kept import KeptFormError, KeptList, decode, encode
from derp.devices.model import Devices

KEY, OTHER = bytes(range(32)), b"o" * 32
NOW = 1_790_000_000.0
TAGS = frozenset({"tag:b", "tag:a"})

lists = st.builds(
    Devices,
    st.dictionaries(
        st.binary(min_size=32, max_size=32), st.just(math.inf) | st.integers(1, 1 << 40).map(float)
    ),
    st.integers(0, int(NOW)).map(float),
)


@given(devices=lists)
def test_what_is_written_is_read(devices: Devices) -> None:
    assert decode(encode(devices, "tailnet:-"), "tailnet:-", NOW) == devices


def test_keys_only(tmp_path: Path) -> None:
    store = KeptList.of(tmp_path, "tailnet:example.com", TAGS)
    devices = Devices({KEY: math.inf, OTHER: NOW + 5.9}, NOW + 0.5)
    store.save(devices)
    assert store.path == tmp_path / "devices-tailnet_example.com"
    assert stat.S_IMODE(store.path.stat().st_mode) == 0o600
    assert store.path.read_text() == (
        "# derper devices 1 of tailnet:example.com?tag:a,tag:b, listed at 1790000000\n"
        f"nodekey:{KEY.hex()} never\n"
        f"nodekey:{OTHER.hex()} 1790000005\n"
    )
    assert store.load(NOW) == Devices({KEY: math.inf, OTHER: NOW + 5}, NOW)


def test_what_had_expired_for_ever_is_not_written() -> None:
    text = encode(Devices({KEY: -math.inf, OTHER: 0.0}, NOW), "a")
    assert decode(text, "a", NOW).expiries == {}


def test_none(tmp_path: Path) -> None:
    assert KeptList.of(tmp_path, "tailnet:-", frozenset()).load(NOW) is None


def test_a_clock_that_was_ahead_does_not_let_a_list_count_for_longer() -> None:
    text = encode(Devices({KEY: math.inf}, NOW + 1e6), "a")
    assert decode(text, "a", NOW).listed_at == NOW


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "not written by derper"),
        ("# my keys\n", "not written by derper"),
        ("# derper devices 2 of a, listed at 5\n", "another version"),
        ("# derper devices 1 of b, listed at 5\n", "another list"),
        ("# derper devices 1 of a?tag:a, listed at 5\n", "narrowed by other tags"),
        ("# derper devices 1 of a, listed at 5", "cut off"),
        (f"# derper devices 1 of a, listed at 5\nnodekey:{KEY.hex()} 17", "cut off"),
        (f"# derper devices 1 of a, listed at 5\nnodekey:{KEY.hex()}\n", "no device"),
        (f"# derper devices 1 of a, listed at 5\nnodekey:{KEY.hex()} soon\n", "no device"),
        (f"# derper devices 1 of a, listed at 5\nnodekey:{KEY.hex()} {'9' * 400}\n", "no device"),
        ("# derper devices 1 of a, listed at 5\nnodekey:12 never\n", "no device"),
        ("# derper devices 1 of a, listed at 5\n\n", "no device"),
    ],
)
def test_what_is_not_the_list(text: str, error: str) -> None:
    with pytest.raises(KeptFormError, match=error):
        decode(text, "a", NOW)


@given(text=st.text())
def test_any_text_at_all(text: str) -> None:
    for whole in (text, f"# derper devices 1 of a, listed at 5\n{text}"):
        with contextlib.suppress(KeptFormError):
            decode(whole, "a", NOW)


def test_a_directory_in_its_place(tmp_path: Path) -> None:
    store = KeptList.of(tmp_path, "headscale:hs.example:8080/x", frozenset())
    assert store.path.name == "devices-headscale_hs.example_8080_x"
    store.path.mkdir()
    with pytest.raises(OSError, match="directory"):
        store.load(NOW)


def test_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("derp.devices.kept.MAX_SIZE", 100)
    store = KeptList.of(tmp_path, "a", frozenset())
    store.save(Devices({KEY: math.inf}, NOW))
    with pytest.raises(KeptFormError, match="too large"):
        store.load(NOW)
