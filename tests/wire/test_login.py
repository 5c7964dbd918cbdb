import json

import nacl.public
import pytest
from hypothesis import given
from hypothesis import strategies as st

from derp.errors import LoginRefused
from derp.wire import login
from derp.wire.frames import HEADER, MAX_CLIENT_INFO, FrameType

SERVER = nacl.public.PrivateKey(bytes(range(1, 33)))
CLIENT = nacl.public.PrivateKey(bytes(range(2, 34)))


def client_info(message: bytes, key: nacl.public.PrivateKey = CLIENT) -> bytes:
    sealed = nacl.public.Box(key, SERVER.public_key).encrypt(message)
    return bytes(key.public_key) + bytes(sealed)


def test_a_login_both_ways() -> None:
    message = b'{"version":2,"CanAckPings":true,"IsProber":true,"AppName":"x"}'
    key, info, box = login.open_client_info(SERVER, client_info(message))
    assert key == bytes(CLIENT.public_key)
    assert info == login.ClientInfo(2, can_ack_pings=True, is_prober=True, app_name="x")

    frame = login.seal_server_info(box)
    kind, length = HEADER.unpack_from(frame)
    assert (kind, length) == (FrameType.SERVER_INFO, len(frame) - 5)
    opened = nacl.public.Box(CLIENT, SERVER.public_key).decrypt(frame[5:])
    assert opened == b'{"version":2}'


def test_the_token_bucket_is_told_in_the_fields_that_clients_know() -> None:
    _, _, box = login.open_client_info(SERVER, client_info(b"{}"))
    frame = login.seal_server_info(box, 125_000, 65_568)
    opened = nacl.public.Box(CLIENT, SERVER.public_key).decrypt(frame[5:])
    assert json.loads(opened) == {
        "version": 2,
        "TokenBucketBytesPerSecond": 125_000,
        "TokenBucketBytesBurst": 65_568,
    }


def test_a_box_for_another_server_does_not_open() -> None:
    other = nacl.public.PrivateKey.generate()
    with pytest.raises(LoginRefused, match="does not open"):
        login.open_client_info(other, client_info(b"{}"))


@pytest.mark.parametrize("position", [0, 31, 32, 55, 56, -1])
def test_a_flipped_bit_does_not_open(position: int) -> None:
    payload = bytearray(client_info(b"{}"))
    payload[position] ^= 1
    with pytest.raises(LoginRefused):
        login.open_client_info(SERVER, bytes(payload))


@given(st.binary(min_size=56, max_size=200))
def test_any_payload_is_refused(payload: bytes) -> None:
    with pytest.raises(LoginRefused):
        login.open_client_info(SERVER, payload)


@pytest.mark.parametrize("key", [bytes(32), b"\x01" + bytes(31)])
def test_keys_of_low_order_are_refused(key: bytes) -> None:
    with pytest.raises(LoginRefused):
        login.open_client_info(SERVER, key + bytes(60))


@pytest.mark.parametrize("size", [56, 57, MAX_CLIENT_INFO])
def test_the_size_of_the_client_info_is_known_from_its_header(size: int) -> None:
    head = HEADER.pack(FrameType.CLIENT_INFO, size)
    assert login.client_info_size(head) == size + 5
    assert login.client_info_size(head[:4]) is None


@pytest.mark.parametrize(
    ("kind", "size", "message"),
    [
        (FrameType.SEND_PACKET, 100, "first frame has type 0x04"),
        (ord("G"), 0x45542F20, "first frame has type 0x47"),
        (FrameType.CLIENT_INFO, 55, "too short"),
        (FrameType.CLIENT_INFO, MAX_CLIENT_INFO + 1, "too long"),
        (FrameType.CLIENT_INFO, 2**32 - 1, "too long"),
    ],
)
def test_what_begins_wrongly_is_refused_at_once(kind: int, size: int, message: str) -> None:
    with pytest.raises(LoginRefused, match=message):
        login.client_info_size(HEADER.pack(kind, size))


GOOD_MESH_KEY = "ab" * 32


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("{}", login.ClientInfo()),
        ("null", login.ClientInfo()),
        ('{"VERSION":1,"canackpings":true}', login.ClientInfo(1, can_ack_pings=True)),
        ('{"version":null,"AppName":null}', login.ClientInfo()),
        ('{"version":2,"version":null}', login.ClientInfo(2)),
        ('{"CanAc\u212aPings":true}', login.ClientInfo(can_ack_pings=True)),
        ('{"later":[1,{"a":2}],"version":2}', login.ClientInfo(2)),
        (f'{{"meshKey":"{GOOD_MESH_KEY}"}}', login.ClientInfo(mesh_key=b"\xab" * 32)),
        (f'{{"meshKey":"{"0" * 64}"}}', login.ClientInfo()),
    ],
)
def test_client_infos_that_go_takes(message: str, expected: login.ClientInfo) -> None:
    assert login.parse_client_info(message.encode()) == expected


@pytest.mark.parametrize(
    "message",
    [
        "",
        "[]",
        '"x"',
        "1",
        "{",
        '{"version":"2"}',
        '{"version":true}',
        '{"version":"2","version":2}',
        '{"version":2.5}',
        '{"CanAckPings":1}',
        '{"AppName":7}',
        '{"x":NaN}',
        '{"meshKey":""}',
        '{"meshKey":null}',
        '{"meshKey":7}',
        '{"meshKey":"ab"}',
        '{"meshKey":"' + "zz" * 32 + '"}',
        '{"meshKey":"' + "a b " * 16 + '"}',
        "[" * 100_000,
        '{"version":' + "9" * 5000 + "}",
    ],
)
def test_client_infos_that_go_refuses(message: str) -> None:
    with pytest.raises(LoginRefused):
        login.parse_client_info(message.encode())


@given(st.binary(max_size=300))
def test_any_message_gives_a_client_info_or_a_refusal(message: bytes) -> None:
    try:
        info = login.parse_client_info(message)
    except LoginRefused:
        return
    assert isinstance(info, login.ClientInfo)


def test_the_mesh_key_does_not_show() -> None:
    info = login.parse_client_info(f'{{"meshKey":"{GOOD_MESH_KEY}"}}'.encode())
    assert info.mesh_key is not None
    assert "ab" not in repr(info)
    assert "\\xab" not in repr(info)


def test_no_mesh_key_is_kept_after_a_login() -> None:
    common = b'{"version":2,"CanAckPings":true}'
    before = login._parse_common.cache_info().currsize
    login.parse_client_info(f'{{"meshKey":"{GOOD_MESH_KEY}"}}'.encode())
    assert login._parse_common.cache_info().currsize == before
    assert login.parse_client_info(common) is login.parse_client_info(common)
