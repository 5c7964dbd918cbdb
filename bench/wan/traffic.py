"""What sends and receives over the tailnet: a program, run in a node's network namespace.

    traffic.py sink HOST PORT              take TCP streams in; tell how many bytes had come when
    traffic.py echo HOST PORT              send UDP packets back
    traffic.py push HOST PORT STREAMS      send TCP streams, as fast as goes
    traffic.py ping HOST PORT INTERVAL     send a UDP packet each so many seconds; tell when each
                                           was sent, and how long it took to come back

With --socks HOST:PORT behind these, push and ping go through a SOCKS5 proxy. Each says "ready"
when it listens or is connected, ends when its standard input does, and prints then what it has to
tell, as JSON. Times are those of CLOCK_MONOTONIC, which all processes of a machine share.
"""

import argparse
import contextlib
import ipaddress
import json
import os
import select
import selectors
import socket
import struct
import sys
import threading
import time

BLOCK = 256 * 1024
SAMPLE_SECONDS = 0.05
CONNECT_SECONDS = 20
STRAGGLER_SECONDS = 3.0
"""How long pings that are under way are waited for at the end."""
ENOUGH_PINGS = 1 << 20

NO_AUTHENTICATION, CONNECT, ASSOCIATE, IPV4 = 0, 1, 3, 1
PING = struct.Struct(">Q56x")
"""A number, and what makes it as big as ping's."""

Address = tuple[str, int]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["sink", "echo", "push", "ping"])
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("amount", type=float, nargs="?", default=1)
    parser.add_argument("--socks", metavar="HOST:PORT")
    parser.add_argument("--congestion", metavar="NAME", help="of push's own TCP, without a proxy")
    options = parser.parse_args()
    there = (options.host, options.port)
    host, _, port = (options.socks or "").rpartition(":")
    proxy = (host, int(port)) if host else None
    match options.what:
        case "sink":
            sink(there)
        case "echo":
            echo(there)
        case "push":
            push(there, int(options.amount), proxy, options.congestion)
        case "ping":
            ping(there, options.amount, proxy)


def ready() -> None:
    print("ready", flush=True)


def sink(here: Address) -> None:
    """Count what comes in; print pairs of a time and the bytes that had come by then."""
    samples = [(time.monotonic(), 0)]
    total, scratch = 0, bytearray(BLOCK)
    with selectors.DefaultSelector() as selector, socket.create_server(here) as listener:
        selector.register(listener, selectors.EVENT_READ)
        selector.register(sys.stdin, selectors.EVENT_READ)
        ready()
        while True:
            for key, _ in selector.select(SAMPLE_SECONDS):
                if key.fileobj is sys.stdin:
                    print(json.dumps(samples))
                    return
                if key.fileobj is listener:
                    stream, _ = listener.accept()
                    selector.register(stream, selectors.EVENT_READ)
                    continue
                try:
                    count = key.fileobj.recv_into(scratch)
                except ConnectionError:
                    count = 0
                total += count
                if not count:
                    selector.unregister(key.fileobj)
                    key.fileobj.close()
            if (now := time.monotonic()) - samples[-1][0] >= SAMPLE_SECONDS:
                samples.append((now, total))


def echo(here: Address) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(here)
        ready()
        while True:
            readable, _, _ = select.select([sock, sys.stdin], [], [])
            if sys.stdin in readable:
                return
            data, sender = sock.recvfrom(BLOCK)
            with contextlib.suppress(OSError):
                sock.sendto(data, sender)


def push(there: Address, streams: int, proxy: Address | None, congestion: str | None) -> None:
    sockets = [connected(there, proxy) for _ in range(streams)]
    if congestion and not proxy:
        for sock in sockets:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, congestion.encode())
    ready()
    for sock in sockets:
        threading.Thread(target=pour, args=(sock,), daemon=True).start()
    sys.stdin.read()
    # At once: what is still in the buffers would go on for seconds.
    for sock in sockets:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    os._exit(0)


def pour(sock: socket.socket) -> None:
    block = bytes(BLOCK)
    try:
        while True:
            sock.sendall(block)
    except OSError as error:
        print(f"push: {error}", file=sys.stderr)
        os._exit(1)


def ping(there: Address, interval: float, proxy: Address | None) -> None:
    """Print pairs of the time a packet was sent and the seconds until it was back, or null."""
    with contextlib.ExitStack() as stack:
        sock = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        before = b""
        if proxy:
            control, there, before = associated(there, proxy)
            stack.enter_context(control)
        sock.connect(there)
        sent: list[float] = []
        took: list[float | None] = []
        ready()
        due, end = time.monotonic(), float("inf")
        inputs = [sock, sys.stdin]
        while (now := time.monotonic()) < end:
            if now >= due and sys.stdin in inputs and len(sent) < ENOUGH_PINGS:
                with contextlib.suppress(OSError):
                    sock.send(before + PING.pack(len(sent)))
                sent.append(now)
                took.append(None)
                due = max(due + interval, now)
            until = (due if sys.stdin in inputs else end) - time.monotonic()
            readable, _, _ = select.select(inputs, [], [], max(0.0, until))
            if sock in readable:
                with contextlib.suppress(OSError):
                    data = sock.recv(BLOCK)[len(before) :]
                    (number,) = PING.unpack(data)
                    took[number] = time.monotonic() - sent[number]
            if sys.stdin in readable:
                inputs.remove(sys.stdin)
                end = time.monotonic() + STRAGGLER_SECONDS
            if sys.stdin not in inputs and None not in took:
                break
        print(json.dumps(list(zip(sent, took, strict=True))))


# --- SOCKS5, RFC 1928


def connected(there: Address, proxy: Address | None) -> socket.socket:
    if not proxy:
        sock = socket.create_connection(there, CONNECT_SECONDS)
    else:
        sock, _ = asked(CONNECT, there, proxy)
    sock.settimeout(None)
    return sock


def associated(there: Address, proxy: Address) -> tuple[socket.socket, Address, bytes]:
    """Return what keeps the association, where packets go, and what stands before each."""
    control, relay = asked(ASSOCIATE, ("0.0.0.0", 0), proxy)
    return control, (proxy[0], relay[1]), b"\0\0\0" + packed(there)


def asked(command: int, there: Address, proxy: Address) -> tuple[socket.socket, Address]:
    """Return the connection to the proxy, and the address that it names. Raises OSError."""
    with contextlib.ExitStack() as stack:
        sock = stack.enter_context(socket.create_connection(proxy, CONNECT_SECONDS))
        sock.sendall(bytes([5, 1, NO_AUTHENTICATION]))
        if (method := take(sock, 2)) != bytes([5, NO_AUTHENTICATION]):
            raise OSError(f"the proxy wants to authenticate: {method.hex()}")
        sock.sendall(bytes([5, command, 0]) + packed(there))
        _, reply, _, kind = take(sock, 4)
        if reply or kind != IPV4:
            raise OSError(f"the proxy says {reply}, address type {kind}")
        host, port = struct.unpack(">4sH", take(sock, 6))
        stack.pop_all()
    return sock, (str(ipaddress.IPv4Address(host)), port)


def packed(address: Address) -> bytes:
    host, port = address
    return bytes([IPV4]) + ipaddress.IPv4Address(host).packed + port.to_bytes(2, "big")


def take(sock: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = sock.recv(count - len(data))
        if not more:
            raise OSError("the proxy hung up")
        data += more
    return data


if __name__ == "__main__":
    main()
