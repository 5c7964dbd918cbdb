import gzip
import socket
import ssl
import threading
from datetime import UTC, datetime, timedelta

import attrs
import pytest

from certs.acme.authority import Authority
from certs.acme.explain import explained
from certs.acme.network import Network
from certs.errors import Failure, IssueError


@pytest.fixture
def connect(fake, now):
    """Return a Network; its requests are made as the rest of the package makes them."""
    networks = []

    def connect(authority=None, now=now, timeout=60.0):
        networks.append(Network(authority or fake.authority, None, now, timeout))
        return networks[-1]

    yield connect
    for network in networks:
        network.session.close()


def complaint(network, path="/dir"):
    scheme = "https" if network.host == "localhost" else "http"
    url = f"{scheme}://{network.host}{path}" if path.startswith("/") else path
    with pytest.raises(IssueError) as caught, explained(network):
        network.get(url)
    assert caught.value.failure is Failure.TRANSIENT
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{network.host} ")
    return message.removeprefix(f"{network.host} ")


def test_the_size_limit_of_a_response(connect, fake):
    fake.say("/dir", 200, b'"' + b"a" * ((1 << 20) - 2) + b'"')
    assert len(connect().get(fake.authority.directory).json()) == (1 << 20) - 2
    fake.say("/dir", 200, b'"' + b"a" * ((1 << 20) - 1) + b'"')
    assert complaint(connect()).startswith("sent a response of more than 1024 KiB; ")


@pytest.mark.slow
def test_the_size_limit_counts_decompressed_bytes(connect, fake):
    fake.say("/dir", 200, gzip.compress(b"a" * (1 << 26)), Content_Encoding="gzip")
    assert complaint(connect()).startswith("sent a response of more than 1024 KiB; ")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirection_is_not_followed(connect, fake, status):
    fake.say("/dir", status, Location="https://elsewhere.example/\x1bdirectory")
    assert complaint(connect()) == (
        r"redirects to 'https://elsewhere.example/\x1bdirectory', which is not followed; "
        r"give -acme-directory the URL of the directory itself"
    )


@pytest.mark.parametrize("days", [-400, -1.01, 1.01, 400])
def test_a_clock_that_is_wrong(connect, fake, now, days):
    message = complaint(connect(now=now + timedelta(days=days)))
    assert message.startswith(f"says that it is {now:%Y-%m-%d}")
    assert message.endswith("; set the clock")


@pytest.mark.parametrize("days", [-0.98, 0, 0.98])
def test_a_clock_that_is_right_enough(connect, fake, now, days):
    connect(now=now + timedelta(days=days)).get(fake.authority.directory)


@pytest.mark.parametrize("date", ["", "yesterday", "Tue, 99 Jan 2030 00:00:00 GMT"])
def test_a_malformed_date(connect, fake, date):
    fake.say("/dir", 200, {}, Date=date)
    connect().get(fake.authority.directory)


def test_the_local_clock_may_be_stepped_during_an_order(connect, fake, clock):
    """Only the time passed counts, by a clock that nobody sets."""
    start = datetime(2030, 1, 1, tzinfo=UTC)
    network = connect(now=start, timeout=1e6)
    clock.sleep(3 * 86400.0)
    fake.say("/dir", 200, {}, Date="Fri, 04 Jan 2030 00:00:00 GMT")
    network.get(fake.authority.directory)
    assert network.now == start + timedelta(days=3)


def test_time_is_up(connect, fake, clock):
    network = connect(timeout=90.0)
    clock.sleep(89.0)
    network.get(fake.authority.directory)
    clock.sleep(1.0)
    asked = len(fake.asked)
    assert complaint(network) == "was not done within 90 s; the relay tries again later"
    assert len(fake.asked) == asked


def test_time_is_up_while_a_response_arrives(connect, fake, clock):
    network = connect(timeout=90.0)
    fake.heard = lambda path: clock.sleep(90.0)
    assert complaint(network) == "was not done within 90 s; the relay tries again later"


@pytest.mark.parametrize(
    ("header", "slept"), [({}, 1.0), ({"Retry_After": "5"}, 5.0), ({"Retry_After": "0"}, 0.1)]
)
def test_pauses(connect, fake, clock, header, slept):
    fake.say("/dir", 200, {}, **header)
    network = connect()
    network.get(fake.authority.directory)
    network.pause()
    assert clock.slept == [slept]


@pytest.mark.parametrize(
    ("header", "slept"), [({}, 4.0), ({"Retry_After": "5"}, 5.0), ({"Retry_After": "0"}, 4.0)]
)
def test_pauses_may_be_longer(connect, fake, clock, header, slept):
    fake.say("/dir", 200, {}, **header)
    network = connect()
    network.get(fake.authority.directory)
    network.pause(4.0)
    assert clock.slept == [slept]


def test_a_pause_beyond_the_end_is_not_made(connect, fake, clock):
    fake.say("/dir", 200, {}, Retry_After="60")
    network = connect(timeout=60.0)
    network.get(fake.authority.directory)
    with pytest.raises(IssueError, match="was not done within 60 s") as caught:
        network.pause()
    assert caught.value.retry_after == 60
    assert clock.slept == []


def closed_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def test_a_refused_connection(connect):
    network = connect(Authority(f"http://127.0.0.1:{closed_port()}/dir"))
    assert complaint(network) == (
        "can't be reached (Connection refused); the relay tries again later"
    )


def test_a_name_that_is_not_known(connect, monkeypatch):
    def unknown(*args, **kwargs):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    network = connect(Authority("http://ca.example/dir"))
    assert complaint(network) == (
        "can't be reached (Name or service not known); the relay tries again later"
    )


@pytest.fixture
def serve():
    """Answer each connection on loopback with some bytes, or hold it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer_all(answer, context):
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    try:
                        if context:
                            connection = context.wrap_socket(connection, server_side=True)
                        connection.recv(65536)
                        connection.sendall(answer)
                    except OSError:
                        pass
                    finally:
                        connection.close()

        threads = []

        def serve(answer, context=None):
            threads.append(threading.Thread(target=answer_all, args=(answer, context)))
            threads[-1].start()
            return listener.getsockname()[1]

        yield serve
        listener.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join()


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"hello\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000,
        b"HTTP/1.1 200 OK\r\n" + b"X: x\r\n" * 1000 + b"\r\n",
    ],
)
def test_a_response_that_is_not_http(connect, serve, answer):
    network = connect(Authority(f"http://127.0.0.1:{serve(answer)}/dir"))
    message = complaint(network)
    assert message.startswith(("can't be reached (", "sends a response that is not ACME; "))


def test_no_answer_in_time(connect, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        network = connect(Authority(f"http://127.0.0.1:{port}/dir"), timeout=0.1)
        assert "can't be reached (no answer in time)" in complaint(network)


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


@pytest.fixture
def tls(authority):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


def test_only_the_bundle_is_trusted(connect, serve, tls, authority, tmp_path):
    ours = Authority(f"https://127.0.0.1:{serve(OK, tls)}/dir", tmp_path / "ca.pem")
    authority.cert_pem.write_to_path(ours.ca_bundle)
    connect(ours).get(ours.directory)
    message = complaint(connect(attrs.evolve(ours, ca_bundle=None)), ours.directory)
    assert message.startswith("has a certificate that can't be verified (unable to get")
    assert "give -acme-ca-bundle its root" in message
    assert message.endswith("check this machine's clock")


def test_a_certificate_for_another_name(connect, serve, tls, authority, tmp_path):
    ours = Authority(f"https://localhost:{serve(OK, tls)}/dir", tmp_path / "ca.pem")
    authority.cert_pem.write_to_path(ours.ca_bundle)
    message = complaint(connect(ours), ours.directory)
    assert message.startswith("has a certificate that can't be verified (Hostname mismatch")


def test_a_server_without_tls(connect, fake):
    directory = fake.authority.directory.replace("http:", "https:")
    message = complaint(connect(Authority(directory)), directory)
    assert message.startswith("can't be reached (")


@pytest.mark.parametrize(
    ("directory", "shown"),
    [
        ("https://ca.example/dir", "ca.example"),
        ("https://ca.example:14000/dir", "ca.example:14000"),
        ("https://user:secret@ca.example/dir", "ca.example"),
        ("https://user:sec@ret@[::1]:14000/dir", "[::1]:14000"),
        ("https://user:secret@/dir", "the authority"),
        ("user:secret@ca.example", "ca.example"),
        ("//user:secret@[", "["),
        ("https:user:secret@", "the authority"),
    ],
)
def test_no_message_shows_userinfo(connect, directory, shown):
    assert connect(Authority(directory)).host == shown


@pytest.mark.parametrize("directory", ["ca.example", "gopher://ca.example/", "http://", "http://["])
def test_a_directory_that_is_no_url(connect, directory):
    network = connect(Authority(directory))
    message = complaint(network, directory)
    assert message.endswith("check that -acme-directory is the URL of an ACME server")
