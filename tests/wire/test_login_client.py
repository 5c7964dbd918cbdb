"""The client's half of the login, held against the server's."""

import json

import nacl.public
import pytest
from hypothesis import given
from hypothesis import strategies as st

from derp.errors import LoginRefused
from derp.wire import login
from derp.wire.frames import HEADER, MAGIC, FrameType

SERVER = nacl.public.PrivateKey(bytes(range(1, 33)))
CLIENT = nacl.public.PrivateKey(bytes(range(2, 34)))
SERVER_KEY, CLIENT_KEY = bytes(SERVER.public_key), bytes(CLIENT.public_key)

INFOS = st.builds(
    login.ClientInfo,
    version=st.integers(0, 9),
    can_ack_pings=st.booleans(),
    is_prober=st.booleans(),
    app_name=st.text(max_size=9),
    mesh_key=st.none() | st.binary(min_size=32, max_size=32).filter(any),
)


@given(INFOS)
def test_what_a_client_says_a_server_understands(info: login.ClientInfo):
    box = login.client_box(CLIENT, SERVER_KEY)
    sealed = login.seal_client_info(box, CLIENT_KEY, info)
    kind, length = HEADER.unpack_from(sealed)
    assert (kind, length) == (FrameType.CLIENT_INFO, len(sealed) - 5)
    key, understood, back = login.open_client_info(SERVER, sealed[5:])
    assert (key, understood) == (CLIENT_KEY, info)
    login.check_server_info(box, login.seal_server_info(back)[5:])


def test_the_json_of_the_go_client():
    box = login.client_box(CLIENT, SERVER_KEY)
    info = login.ClientInfo(version=2, can_ack_pings=False, mesh_key=b"\xab" * 32)
    sealed = login.seal_client_info(box, CLIENT_KEY, info)
    message = nacl.public.Box(SERVER, CLIENT.public_key).decrypt(sealed[5 + 32 :])
    assert message == b'{"meshKey":"%s","version":2,"CanAckPings":false}' % (b"ab" * 32)


def test_a_server_key():
    assert login.parse_server_key(MAGIC + SERVER_KEY) == SERVER_KEY
    assert login.parse_server_key(MAGIC + SERVER_KEY + b"more") == SERVER_KEY


@pytest.mark.parametrize(
    "payload", [b"", MAGIC, MAGIC + SERVER_KEY[1:], b"X" + MAGIC[1:] + SERVER_KEY, SERVER_KEY * 2]
)
def test_what_is_no_server_key(payload: bytes):
    with pytest.raises(LoginRefused, match=r"^the greeting is not that of a DERP server$"):
        login.parse_server_key(payload)


@pytest.mark.parametrize("key", [bytes(32), b"\1" + bytes(31)])
def test_a_server_key_of_low_order(key: bytes):
    with pytest.raises(LoginRefused, match=r"^the server's key is no public key$"):
        login.client_box(CLIENT, key)


@pytest.mark.parametrize("position", [0, 23, 24, -1])
def test_a_server_info_of_somebody_else(position: int):
    box = login.client_box(CLIENT, SERVER_KEY)
    message = json.dumps({"version": 2}).encode()
    payload = bytearray(nacl.public.Box(SERVER, CLIENT.public_key).encrypt(message))
    login.check_server_info(box, bytes(payload))
    payload[position] ^= 1
    with pytest.raises(LoginRefused, match="does not open with the server's key"):
        login.check_server_info(box, bytes(payload))


@given(st.binary(max_size=100))
def test_any_server_info_is_refused(payload: bytes):
    with pytest.raises(LoginRefused):
        login.check_server_info(login.client_box(CLIENT, SERVER_KEY), payload)
