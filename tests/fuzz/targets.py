"""What is fuzzed: each target takes any bytes, and raises only where the program is wrong.

A target lets the errors pass that the parser documents, and checks what must hold besides: that
bytes mean the same however they are split, and that what was parsed can be built again.
"""

import contextlib
import ipaddress
import itertools
import json
import math
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Final

import h11
import trio
import trio.testing
from nacl.public import PrivateKey

from certs.acme.ari import parse_renewal_info
from certs.errors import CertificateError
from certs.parse import make_pair
from certs.retryafter import parse_retry_after
from derp.admission import allowlist
from derp.admission.listedit import ListChange
from derp.admission.url import read_allow
from derp.cli import tailnetstatus
from derp.devices import answers, kept
from derp.devices.jsonarray import AnswerFormError, ArrayReader
from derp.errors import (
    ConnectionEnd,
    ControlRefused,
    LoginRefused,
    ProtocolViolation,
    ProxyHeaderFailed,
)
from derp.files import meshkey, nodekey, ratelimit
from derp.http import forwarded
from derp.http.message import BadRequest
from derp.http.routes import route
from derp.http.server import serve
from derp.net.address import Endpoint
from derp.net.httpclient import response_head
from derp.policy import document
from derp.policy.change import Change
from derp.policy.edit import NotEditable, edited
from derp.wire import clienthello, control, login, proxyprotocol, trains
from derp.wire.forwarding import next_forwarded
from derp.wire.frames import HEADER_LENGTH, KEY_LENGTH
from derp.wire.gojson import JSONFormError, read_fields
from derp.wire.keys import KeyFormatError, parse_node_public
from derp.wire.linkframes import LinkFrames
from derp.wire.records import whole_records
from derp.wire.websocket import FrameParser
from stun import message as stun
from tests.http.sites import make_backend
from tests.memory_transport import memory_pair
from tests.wire.test_trains import SOURCE, obvious, scanned

Target = Callable[[bytes], None]

MAX_INPUT: Final = 4096
"""Most bytes of an input: enough for several frames, and few enough for many inputs a second."""

_ADDRESS: Final = ipaddress.IPv4Address("192.0.2.1")
_SERVER_KEY: Final = PrivateKey(bytes(range(32)))
_KNOWN_CLIENT: Final = PrivateKey(bytes(range(1, 33)))


def split(data: bytes) -> tuple[bytes, list[bytes]]:
    """Take sizes of pieces off the front of `data`; return the rest, whole and in those pieces.

    The first byte is the number of sizes (three at most), and each size a byte.
    """
    count = data[0] % 4 if data else 0
    sizes, rest = data[1 : 1 + count], data[1 + count :]
    edges = [*itertools.accumulate((0, *sizes)), len(rest)]
    return rest, [rest[start:stop] for start, stop in itertools.pairwise(edges)]


def frames_of_clients(data: bytes) -> None:
    """Trains of packets, and other frames of a client: as a slow and obvious parser finds them."""
    is_mesh = data[:1] >= b"\x80"
    whole, pieces = split(data[1:])
    assert scanned(pieces, is_mesh) == scanned([whole], is_mesh) == obvious(whole, is_mesh)


def forwarded_packets(data: bytes) -> None:
    """ForwardPacket frames: nothing of the packets is lost or changed."""
    start = 0
    while len(data) - start >= HEADER_LENGTH:
        try:
            kind, stop, *_ = trains.next_train(bytearray(data), start, len(data), SOURCE, mesh=True)
        except ConnectionEnd:
            return
        if kind is not trains.Kind.FORWARD_PACKET:
            return
        stop, source, _destination, packets, train, _disco = next_forwarded(data, start, len(data))
        overhead = packets * (HEADER_LENGTH + KEY_LENGTH)
        assert len(train) == stop - start - packets * KEY_LENGTH
        assert len(train) >= overhead
        assert train[HEADER_LENGTH:].startswith(source)
        start = stop


def frames_of_links(data: bytes) -> None:
    """Frames from another relay: the same however the bytes are split."""
    whole, pieces = split(data)
    assert _read_link(pieces) == _read_link([whole])


def _read_link(pieces: list[bytes]) -> tuple[list[tuple[int, bytes]], bool]:
    found: list[tuple[int, bytes]] = []
    reader = LinkFrames()
    try:
        for piece in pieces:
            found.extend(reader.feed(piece))
    except ProtocolViolation:
        return found, True
    return found, False


def logins(data: bytes) -> None:
    """A ClientInfo frame as a stranger makes it, and its JSON as one with a key does."""
    try:
        size = login.client_info_size(data)
        if size is not None and size <= len(data):
            login.open_client_info(_SERVER_KEY, data[HEADER_LENGTH:size])
    except LoginRefused:
        pass
    try:
        info = login.parse_client_info(data)
    except LoginRefused:
        return
    box = login.client_box(_KNOWN_CLIENT, bytes(_SERVER_KEY.public_key))
    sealed = bytes(_KNOWN_CLIENT.public_key) + bytes(box.encrypt(data))
    key, opened, _ = login.open_client_info(_SERVER_KEY, sealed)
    assert key == bytes(_KNOWN_CLIENT.public_key)
    assert opened == info


def websocket_frames(data: bytes) -> None:
    """Websocket frames: the same payload however the bytes are split."""
    whole, pieces = split(data)
    assert _read_websocket(pieces) == _read_websocket([whole])


def _read_websocket(pieces: list[bytes]) -> tuple[bytes, bool]:
    parser, payload = FrameParser(), b""
    for piece in pieces:
        rest = memoryview(piece)
        while rest:
            found = parser.receive(rest)
            assert 0 < found.consumed <= len(rest)
            payload += found.payload
            rest = rest[found.consumed :]
            if found.ending is not None:
                return payload, True
    return payload, False


def proxy_headers(data: bytes) -> None:
    """A PROXY header before a connection or a datagram: the same however its bytes are split."""
    whole, pieces = split(data)
    found = _read_proxy_header(pieces)
    assert found == _read_proxy_header([whole])
    try:
        size, client = proxyprotocol.parse_datagram(whole)
    except ProxyHeaderFailed:
        return
    assert 16 <= size <= len(whole)
    assert client is None or _is_client(client)


def _read_proxy_header(pieces: list[bytes]) -> tuple[proxyprotocol.ClientAddress | None, int] | str:
    """Return the client and the header's size, or why there is none."""
    reader, taken = proxyprotocol.HeaderReader(), 0
    for piece in pieces:
        start = 0
        while start < len(piece) and not reader.done:
            seen = piece[start : start + reader.look]
            try:
                used = reader.feed(seen)
            except ProxyHeaderFailed as error:
                _check_line(error)
                return str(error)
            assert reader.done or used == len(seen)
            start += used
        taken += start
    if not reader.done:
        return "it goes on"
    assert reader.client is None or _is_client(reader.client)
    return reader.client, taken


def _is_client(client: tuple[str, int]) -> bool:
    host, port = client
    return str(ipaddress.ip_address(host)) == host and 0 <= port <= 0xFFFF


def forwarded_headers(data: bytes) -> None:
    """What proxies say in HTTP about a client: one that is no proxy, whatever clients add."""
    names = [*forwarded.HEADERS]
    lines = [(names[line[0] % len(names)], line[1:]) for line in data.split(b"\n") if line]
    try:
        client = forwarded.client(lines, lambda host: host.startswith("10."))
    except BadRequest:
        return
    assert client is None or _is_client((client.host, client.port))
    assert client is None or not client.host.startswith("10.")
    for name, line in lines:
        element = b"for=192.0.2.7" if name == b"forwarded" else b"192.0.2.7"
        found = forwarded.client([(name, line + b", " + element)], lambda _: False)
        assert found == Endpoint("192.0.2.7", 0)
        value = b'host="' + line + b'";for=192.0.2.7'
        try:
            found = forwarded.client([(b"forwarded", value)], lambda _: False)
        except BadRequest:
            continue
        assert found == Endpoint("192.0.2.7", 0)


def client_hellos(data: bytes) -> None:
    """A ClientHello: the same however the bytes are split."""
    whole, pieces = split(data)
    assert _read_hello(pieces) == _read_hello([whole])
    clienthello.is_whole(whole)
    clienthello.is_server_hello(whole.ljust(16, b"\0"))


def _read_hello(pieces: list[bytes]) -> clienthello.ClientHello | None:
    reader = clienthello.HelloReader()
    for piece in pieces:
        if piece and (hello := reader.feed(piece)) is not None:
            return hello
    return None


def tls_records(data: bytes) -> None:
    """Where TLS records end: within the bytes, and never beyond the number asked for."""
    most = 1 + (data[0] if data else 0)
    end, records = whole_records(data, 0, len(data), most)
    assert 0 <= end <= len(data)
    assert 0 <= records <= most


def stun_requests(data: bytes) -> None:
    """A STUN request, whose answer must be one that a client accepts; and an answer."""
    is_from_client = stun.is_client_request(data)
    try:
        transaction = stun.parse_binding_request(data)
    except stun.StunError:
        assert not is_from_client
    else:
        answer = stun.build_binding_response(transaction, _ADDRESS, 4242)
        assert stun.parse_binding_response(answer) == (
            transaction,
            stun.MappedAddress(_ADDRESS, 4242),
        )
    try:
        stun.parse_binding_response(data)
    except stun.StunError:
        return


def http_requests(data: bytes) -> None:
    """Requests to the HTTP front end: each gets a well-formed answer, or the connection ends."""
    _whole, pieces = split(data)
    trio.run(_visit, [*filter(None, pieces)], clock=trio.testing.MockClock(autojump_threshold=0))


async def _visit(pieces: list[bytes]) -> None:
    client, transport = memory_pair(capacity=1 << 20)
    source = make_backend()

    async def serving() -> None:
        try:
            await serve(transport, partial(route, source), memoryview(bytearray(1 << 16)))
        except ConnectionEnd:
            pass
        finally:
            transport.close()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serving)
        for piece in pieces:
            if transport.closed:
                break
            client.write(piece)
        client.send_eof()
        answer = b""
        try:
            while received := await client.receive():
                answer += received
        except ConnectionEnd:
            return
        finally:
            nursery.cancel_scope.deadline = trio.current_time() + 100
    assert answer == b"" or answer.startswith(b"HTTP/1.1 ")


def http_answers(data: bytes) -> None:
    """An answer of a server that the relay asks, such as tailscaled or an admission URL."""
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method="GET", target="/", headers=[("Host", "a")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(data)
    connection.receive_data(b"")
    try:
        if response_head(connection) is None:
            return
        while isinstance(connection.next_event(), h11.Data):
            pass
    except h11.RemoteProtocolError:
        return


def admission_answers(data: bytes) -> None:
    """The body of an admission server's answer: only a JSON object whose Allow is true admits."""
    if read_allow(data):
        assert b"true" in data


def json_objects(data: bytes) -> None:
    """JSON objects as Go reads them: what is accepted is JSON, and no more is returned."""
    names = ("Allow", "version")
    try:
        fields = read_fields(data, names)
    except JSONFormError as error:
        _check_line(error)
        return
    assert isinstance(json.loads(data.decode("utf-8", "replace")), dict | None)
    assert fields.keys() <= {*names}
    assert None not in fields.values()


def key_lists(data: bytes) -> None:
    """A list of node keys."""
    try:
        keys = allowlist.parse(data.decode("utf-8", "replace"))
    except allowlist.ListFormError as error:
        _check_line(error)
        return
    assert all(len(key) == KEY_LENGTH for key in keys)
    text, key = data.decode("utf-8", "replace"), bytes(range(32))
    assert allowlist.parse(ListChange({key: "x"}).applied_to(text)) == keys | {key: "x"}
    assert key not in allowlist.parse(ListChange(remove=[key]).applied_to(text))


def tailnet_statuses(data: bytes) -> None:
    """What tailscale status --json may print: keys, with labels that a list takes."""
    try:
        keys = tailnetstatus.parse(data)
    except ValueError as error:
        _check_line(error)
        return
    text = ListChange({key: label or None for key, label in keys.items()}).applied_to("")
    assert allowlist.parse(text) == keys


def device_lists(data: bytes) -> None:
    """The answer of an API that lists devices: as json reads it whole, however it is split."""
    whole, pieces = split(data)
    found = _read_devices(pieces)
    assert found == _read_devices([whole])
    if found is not None:
        for read in (answers.read_tailscale, answers.read_headscale):
            usable = [each for element in found if (each := read(element, frozenset())) is not None]
            assert all(len(key) == KEY_LENGTH for key, _ in usable)
        # Of names that come twice, json keeps the last, and a list of devices the devices of all.
        names = [name for name, _ in json.loads(whole, object_pairs_hook=list)]
        if names.count("devices") == 1:
            # By their text: what is no number is not equal to itself.
            assert json.dumps(found) == json.dumps(json.loads(whole)["devices"] or [])


def _read_devices(pieces: list[bytes]) -> list[object] | None:
    reader = ArrayReader("devices")
    try:
        found = [element for piece in pieces for element in reader.feed(piece)]
        return [*found, *reader.finish()]
    except AnswerFormError as error:
        _check_line(error)
        return None


def tokens(data: bytes) -> None:
    """The answer to an OAuth client, and the header that says when to ask again."""
    with contextlib.suppress(AnswerFormError):
        token = answers.read_token(data)
        assert token.text.isascii()
        assert token.text.isprintable()
        assert 0 < token.seconds < math.inf
    seconds = parse_retry_after(data.decode("latin-1"), datetime.fromtimestamp(0, UTC))
    assert seconds is None or seconds >= 0


def kept_lists(data: bytes) -> None:
    """A list of devices on disk: what is read can be written, and is read again."""
    try:
        devices = kept.decode(data.decode("ascii", "replace"), "tailnet:-", 1e10)
    except kept.KeptFormError as error:
        _check_line(error)
        return
    again = kept.decode(kept.encode(devices, "tailnet:-"), "tailnet:-", 1e10)
    assert again.expiries == {key: when for key, when in devices.expiries.items() if when > 0}


def key_files(data: bytes) -> None:
    """Key files, keys, and the rate limit's file."""
    for parse, errors in (
        (nodekey.decode, (JSONFormError, KeyFormatError)),
        (ratelimit.parse, (JSONFormError,)),
        (lambda content: meshkey.parse(content.decode("latin-1")), (meshkey.MeshKeyFormatError,)),
        (lambda content: parse_node_public(content.decode("latin-1")), (KeyFormatError,)),
    ):
        try:
            parse(data)
        except errors as error:
            _check_line(error)


def policies(data: bytes) -> None:
    """A policy file: a policy, or one line that names the line of the file."""
    try:
        document.parse(data)
    except document.PolicyFormError as error:
        _check_line(error)


_CHANGES: Final = (
    Change(bytes(range(32)), allowed=False),
    Change(bytes(range(32)), rate="1 MB/s"),
    Change(bytes(range(32)), rate=None),
    Change(bytes(range(32)), allowed=True, label='a "label"'),
)


def policy_changes(data: bytes) -> None:
    """A policy file in which an operator changes one entry: that is changed, and nothing else."""
    try:
        before = document.parse(data)
    except document.PolicyFormError:
        return
    for change in _CHANGES:
        try:
            text = edited(data.decode("utf-8-sig"), change.key, change.assignments)
            after = document.parse(text.encode())
        except NotEditable as error:
            _check_line(error)
        except document.PolicyFormError as error:
            _check_line(error)  # the relay does not write it, either
        else:
            assert change.explains(before, after)


def control_requests(data: bytes) -> None:
    """What comes over the control socket: the same however the bytes are split."""
    whole, pieces = split(data)
    assert _read_control(pieces) == _read_control([whole])


def _read_control(pieces: list[bytes]) -> tuple[list[control.Request], bool]:
    lines, found = control.Lines(200), []
    try:
        for piece in pieces:
            lines.feed(piece)
            while (line := lines.next()) is not None:
                request = control.Request.from_line(line)
                assert control.Request.from_line(request.to_line()) == request
                found.append(request)
    except ControlRefused as error:
        _check_line(error)
        return found, True
    return found, False


def certificates(data: bytes) -> None:
    """A certificate file and a key file, as one and as two."""
    chain, _, key = data.partition(b"\0")
    try:
        make_pair(chain, key or chain, chain_from="the chain", key_from="the key")
    except CertificateError as error:
        _check_line(error)


def acme_answers(data: bytes) -> None:
    """What an authority says about when to renew (RFC 9773)."""
    try:
        answer = json.loads(data)
    except (ValueError, RecursionError):
        return
    try:
        info = parse_renewal_info(answer, None)
    except (ValueError, TypeError, LookupError):
        return
    assert info.window[0] <= info.window[1]


def _check_line(error: Exception) -> None:
    """Check that an operator gets one line."""
    assert "\n" not in str(error)


def planted(data: bytes) -> None:
    """A fault put in on purpose, so that the session knows that it would find one."""
    if data[:1] == b"\x02":
        assert data[1:2] != b"\x05", "found"


TARGETS: Final[dict[str, Target]] = {
    target.__name__: target
    for target in (
        frames_of_clients,
        forwarded_packets,
        frames_of_links,
        logins,
        websocket_frames,
        proxy_headers,
        forwarded_headers,
        client_hellos,
        tls_records,
        stun_requests,
        http_requests,
        http_answers,
        admission_answers,
        json_objects,
        key_lists,
        tailnet_statuses,
        device_lists,
        tokens,
        kept_lists,
        key_files,
        policies,
        policy_changes,
        control_requests,
        certificates,
        acme_answers,
    )
}
"""All that the session runs, by name."""
