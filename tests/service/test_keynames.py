"""What an operator may call a client."""

import re

import pytest

from derp.errors import SteeringFailed
from derp.service.keynames import key_named
from derp.wire.keys import node_public_text, short_key

A = bytes.fromhex("abcd" * 16)
B = bytes.fromhex("abce" + "12" * 30)
C, D = bytes([7]) * 32, bytes([8]) * 32
LABELS = {C: "printer", D: "abcd", A: ""}
CONNECTED = {A, B}


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (node_public_text(A), A),
        (node_public_text(C), C),
        (f"nodekey:{A.hex().upper()}", A),
        (node_public_text(bytes(32)), bytes(32)),
        ("abcda", A),
        ("ABCE", B),
        ("nodekey:abce1", B),
        (short_key(B), B),
        # A label need not be that of a client that is connected, and goes before digits.
        ("printer", C),
        ("abcd", D),
        # Nor need the key that a policy has; but those that are connected go first.
        ("nodekey:0707", C),
        ("nodekey:abcd", A),
    ],
)
def test_what_names_a_key(text: str, key: bytes) -> None:
    assert key_named(text, CONNECTED, LABELS) == key


@pytest.mark.parametrize(
    "text", ["", "abc", "09090909", "nodekey:", "Printer", "x" * 10_000, "\x1b[31m", "ab.e"]
)
def test_what_names_none(text: str) -> None:
    with pytest.raises(SteeringFailed, match="derper clients and derper keys list them") as caught:
        key_named(text, CONNECTED, LABELS)
    assert len(str(caught.value)) < 400
    assert "\x1b" not in str(caught.value)


def test_what_names_several() -> None:
    several = {bytes.fromhex("abcd1" + f"{number:059x}") for number in range(9)}
    with pytest.raises(SteeringFailed) as caught:
        key_named("abcd1", several, {})
    assert str(caught.value).startswith("abcd1: the beginning of nodekey:abcd10")
    assert str(caught.value).endswith(" and 4 more; want one of them")
    assert len(re.findall("nodekey:", str(caught.value))) == 5
    with pytest.raises(SteeringFailed) as caught:
        key_named("abc", {A}, {C: "abc", D: "abc"})
    assert str(caught.value) == (
        f"abc: the label of {node_public_text(C)}, {node_public_text(D)}; want one of them"
    )
