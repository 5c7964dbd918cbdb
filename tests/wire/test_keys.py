import base64
import copy
import logging
import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st

from derp.wire import keys

# Made with Go's types/key from SHA-256 of one byte 0, 1, 2 and 3: private, public, short form.
GO_KEYS = [
    (
        "privkey:6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "nodekey:e500eab1ea22fee959eb818af78bbf61beb96d8f6b87636d3813756dd61cb36d",
        "[5QDqs]",
    ),
    (
        "privkey:4bf5122f344554c53bde2ebb8cd2b7e3d1600ad631c385a5d7cce23c7785459a",
        "nodekey:1fbecfcede5636a406600be3ab8b8dd8c087f8850910ef08be5e64ba5ce5f503",
        "[H77Pz]",
    ),
    (
        "privkey:dbc1b4c900ffe48d575b5da5c638040125f65db0fe3e24494b76ea986457d986",
        "nodekey:ecd1cb8bb5a2d0bed303b753a421ffdbf206b2addd48c76227834f07c9fb3d00",
        "[7NHLi]",
    ),
    (
        "privkey:084fed08b978af4d7d196a7446a86b58009e636b611db16211b65a9aadff29c5",
        "nodekey:bfd7bb86bad1328ade491f84422fa0d899a632f44778eaccda5b72588fa6087e",
        "[v9e7h]",
    ),
]

raw_keys = st.binary(min_size=32, max_size=32).filter(any)


@pytest.mark.parametrize(("private", "public", "short"), GO_KEYS)
def test_go_keys(private: str, public: str, short: str):
    key = keys.NodePrivate.parse(private)
    assert key.secret_text() == private
    assert keys.node_public_text(key.public) == public
    assert keys.parse_node_public(public) == key.public
    assert keys.short_key(key.public) == short


def test_short_form_of_odd_keys():
    assert keys.short_key(bytes(32)) == ""
    assert keys.short_key(b"\xff" * 32) == "[/////]"
    assert keys.short_key(bytes(4) + b"\xff" * 28) == "[AAAAA]"


@given(st.binary(min_size=32, max_size=32))
def test_public_text_round_trip(raw: bytes):
    text = keys.node_public_text(raw)
    assert text == "nodekey:" + raw.hex()
    assert keys.parse_node_public(text) == raw
    assert keys.parse_node_public("nodekey:" + raw.hex().upper()) == raw
    if any(raw):
        assert keys.short_key(raw)[1:-1] == base64.standard_b64encode(raw)[:5].decode()


@given(raw_keys)
def test_private_text_round_trip(raw: bytes):
    key = keys.NodePrivate(raw)
    assert keys.NodePrivate.parse(key.secret_text()).raw == raw
    assert keys.NodePrivate.parse(key.secret_text()).public == key.public


DIGITS = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nodekey:",
        DIGITS,
        "nodekey:" + DIGITS[:-1],
        "nodekey:" + DIGITS + "0",
        "nodekey:" + DIGITS[:-1] + "g",
        "nodekey:" + DIGITS[:-2] + " 0",
        "nodekey:" + DIGITS[:-1] + "\n",
        "nodekey:" + DIGITS + "\n",
        "nodekey:" + DIGITS[:-1] + "٣",
        "NodeKey:" + DIGITS,
        "privkey:" + DIGITS,
        "discokey:" + DIGITS,
        " nodekey:" + DIGITS,
    ],
)
def test_bad_public_text(text: str):
    with pytest.raises(keys.KeyFormatError) as caught:
        keys.parse_node_public(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nodekey:" + DIGITS,
        DIGITS,
        "privkey:" + DIGITS[2:],
        "privkey:" + "0" * 64,
        "privkey:" + DIGITS[:-2] + "zz",
        "privkey:" + DIGITS * 2,
    ],
)
def test_bad_private_text_is_not_repeated(text: str):
    with pytest.raises(keys.KeyFormatError) as caught:
        keys.NodePrivate.parse(text)
    shown = "".join(traceback.format_exception(caught.value))
    assert DIGITS[2:20] not in shown


@given(st.text())
def test_any_text_parses_or_is_refused(text: str):
    for parse in (
        keys.parse_node_public,
        keys.NodePrivate.parse,
    ):
        with pytest.raises(keys.KeyFormatError):
            parse(text)


@given(st.binary().filter(lambda raw: len(raw) != 32))
def test_wrong_length(raw: bytes):
    with pytest.raises(keys.KeyFormatError):
        keys.NodePrivate(raw)
    with pytest.raises(keys.KeyFormatError):
        keys.NodePrivate.generate(raw)


@given(st.binary(min_size=32, max_size=32))
def test_generated_keys_are_clamped(entropy: bytes):
    raw = keys.NodePrivate.generate(entropy).raw
    number = int.from_bytes(raw, "little")
    assert 2**254 <= number < 2**255
    assert number % 8 == 0
    assert raw[1:31] == entropy[1:31]


def test_generated_keys_differ():
    assert keys.NodePrivate.generate().raw != keys.NodePrivate.generate().raw


def test_private_key_never_shows(caplog: pytest.LogCaptureFixture):
    key = keys.NodePrivate.parse(GO_KEYS[0][0])
    logging.getLogger("test").warning("%s %r", key, key)
    shown = f"{key} {key!r} {[key]} {caplog.text}"
    assert shown.count("[5QDqs]") == 5
    assert key.raw.hex() not in shown
    assert repr(key.raw) not in shown


def test_private_keys_are_equal_only_to_themselves():
    key = keys.NodePrivate.parse(GO_KEYS[0][0])
    assert key == key  # noqa: PLR0124
    assert key != keys.NodePrivate(key.raw)
    assert copy.copy(key).public == key.public
