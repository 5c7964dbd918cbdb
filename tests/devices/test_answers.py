"""What the answers of both APIs say of each device, of tokens, and of when to ask again."""

import json
import math
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from derp.devices.answers import (
    DEFAULT_TOKEN_SECONDS,
    read_headscale,
    read_tailscale,
    read_token,
)
from derp.devices.jsonarray import AnswerFormError
from tests.support.deviceapis import ZERO_TIME, device

KEY = bytes(range(32))
NODE = f"nodekey:{KEY.hex()}"
NO_TAGS = frozenset[str]()
WHEN = "2033-05-30T04:44:05Z"
UNIX = datetime(2033, 5, 30, 4, 44, 5, tzinfo=UTC).timestamp()

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@pytest.mark.parametrize(
    ("changes", "expires"),
    [
        ({}, UNIX),
        ({"expires": WHEN.replace("Z", ".999999999Z")}, UNIX + 0.999999),
        ({"expires": "2033-05-30T06:44:05+02:00"}, UNIX),
        ({"keyExpiryDisabled": True}, math.inf),
        ({"keyExpiryDisabled": True, "expires": "2001-01-01T00:00:00Z"}, math.inf),
        ({"expires": ZERO_TIME}, math.inf),
        ({"expires": ""}, math.inf),
        # What is no time has passed: a mistake must not admit for ever.
        ({"expires": "soon"}, -math.inf),
        ({"expires": 7}, -math.inf),
        ({"expires": "2033-05-30T04:44:05"}, -math.inf),
        ({"keyExpiryDisabled": "true", "expires": "soon"}, -math.inf),
        ({"isExternal": True, "machineKey": "", "created": ""}, UNIX),
    ],
)
def test_until_when_a_device_may_use_the_relay(changes: dict[str, Any], expires: float) -> None:
    assert read_tailscale(device(KEY, **changes), NO_TAGS) == (KEY, expires)


@pytest.mark.parametrize(
    "changes",
    [
        {"authorized": False},
        {"authorized": None},
        {"authorized": "true"},
        {"tailnetLockError": "the node is not signed"},
        {"nodeKey": ""},
        {"nodeKey": "nodekey:test"},
        {"nodeKey": None},
        {"nodeKey": NODE.replace("node", "disco")},
    ],
)
def test_who_may_not(changes: dict[str, Any]) -> None:
    assert read_tailscale(device(KEY, **changes), NO_TAGS) is None


@pytest.mark.parametrize(
    ("own", "may"),
    [
        (["tag:relay"], True),
        (["tag:other", "tag:relay"], True),
        (["tag:other"], False),
        ([], False),
        (None, False),
        ("tag:relay", False),
        ([["tag:relay"]], False),
        ({"tag:relay": 1}, False),
    ],
)
def test_tags_narrow(own: Any, may: bool) -> None:
    tags = frozenset({"tag:relay", "tag:more"})
    assert (read_tailscale(device(KEY, tags=own), tags) is not None) == may
    assert (read_headscale({"nodeKey": NODE, "tags": own}, tags) is not None) == may


@pytest.mark.parametrize(
    ("node", "expires"),
    [
        ({"nodeKey": NODE}, math.inf),
        ({"nodeKey": NODE, "expiry": None}, math.inf),
        ({"nodeKey": NODE, "expiry": ZERO_TIME}, math.inf),
        ({"nodeKey": NODE, "expiry": WHEN, "online": False, "id": "1"}, UNIX),
    ],
)
def test_a_node_of_headscales(node: dict[str, Any], expires: float) -> None:
    assert read_headscale(node, NO_TAGS) == (KEY, expires)


@pytest.mark.parametrize("name", ["tags", "forcedTags", "validTags"])
def test_where_headscale_has_had_tags(name: str) -> None:
    node = {"nodeKey": NODE, name: ["tag:a"]}
    assert read_headscale(node, frozenset({"tag:a"})) is not None
    assert read_headscale(node, frozenset({"tag:b"})) is None


@given(
    element=json_values
    | st.fixed_dictionaries(
        {},
        optional=dict.fromkeys(
            ("nodeKey", "expires", "expiry", "tags", "authorized", "keyExpiryDisabled"),
            json_values | st.just(True) | st.just(NODE) | st.just(WHEN),
        ),
    ),
    tags=st.frozensets(st.text(), max_size=2),
)
def test_any_element_at_all(element: Any, tags: frozenset[str]) -> None:
    for read in (read_tailscale, read_headscale):
        found = read(element, tags)
        if found is not None:
            assert found[0] == KEY
            assert isinstance(found[1], float)


def test_a_token() -> None:
    token = read_token(b'{"access_token":"tskey-api-k","token_type":"Bearer","expires_in":1200}')
    assert (token.text, token.seconds) == ("tskey-api-k", 1200)
    assert "tskey" not in repr(token)


@pytest.mark.parametrize("seconds", ["null", "0", "-5", '"60"', "true", "NaN"])
def test_a_token_without_a_life_has_the_usual_one(seconds: str) -> None:
    body = f'{{"access_token":"k","expires_in":{seconds}}}'.encode()
    assert read_token(body).seconds == DEFAULT_TOKEN_SECONDS


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"access_token":""}', b'{"access_token":"a\\r\\nb"}', b"[" * 9999]
)
def test_what_is_no_token(body: bytes) -> None:
    with pytest.raises(AnswerFormError):
        read_token(body)


@given(body=st.binary(max_size=100) | json_values.map(lambda value: json.dumps(value).encode()))
def test_any_answer_for_a_token(body: bytes) -> None:
    try:
        token = read_token(body)
    except AnswerFormError:
        return
    assert token.text.isprintable()
    assert 0 < token.seconds < math.inf
