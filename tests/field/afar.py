"""A program that passes connections on to a local port, from another address of the loopback.

`python -m tests.field.afar PORT ADDRESS` prints the port on which it takes them.
"""

import contextlib
import sys

import trio

READ = 1 << 16


async def copy(source: trio.SocketStream, sink: trio.SocketStream) -> None:
    async for data in source:
        await sink.send_all(data)
    await sink.send_eof()


async def carry(client: trio.SocketStream) -> None:
    port, address = int(sys.argv[1]), sys.argv[2]
    with contextlib.suppress(OSError, trio.BrokenResourceError):
        server = await trio.open_tcp_stream("127.0.0.1", port, local_address=address)
        async with server:
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(copy, client, server)
                    nursery.start_soon(copy, server, client)
            except* (OSError, trio.BrokenResourceError):
                pass


async def main() -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    print(listener.socket.getsockname()[1], flush=True)
    await trio.serve_listeners(carry, [listener])


if __name__ == "__main__":
    trio.run(main)
