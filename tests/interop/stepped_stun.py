"""A STUN server on all addresses, whose clock is moved by hand.

`python -m tests.interop.stepped_stun` prints its port, and what it logs. Each line of standard
input is a number of seconds: the clock jumps so far, and `jumped` is printed. With the argument
`container` it takes itself to be in one.
"""

import logging
import sys
from functools import partial
from pathlib import Path

import trio
import trio.testing

from stun import proxy_detector
from stun.server import open_sockets, serve
from stun.stats import Stats


async def main(clock: trio.testing.MockClock) -> None:
    sockets = open_sockets("", 0)
    async with trio.open_nursery() as nursery:
        for sock in sockets:
            nursery.start_soon(serve, sock, Stats())
        print(f"port {sockets[0].getsockname()[1]}", flush=True)
        while line := await trio.to_thread.run_sync(sys.stdin.readline):
            # What came in before is dealt with before.
            await trio.testing.wait_all_tasks_blocked()
            clock.jump(float(line))
            print("jumped", flush=True)
        nursery.cancel_scope.cancel()
    for sock in sockets:
        sock.close()


if __name__ == "__main__":
    # Wherever this test may run.
    proxy_detector.CONTAINERS = (Path("/"),) if "container" in sys.argv else ()
    logging.basicConfig(stream=sys.stdout, format="%(levelname)s %(message)s")
    clock = trio.testing.MockClock()
    trio.run(partial(main, clock), clock=clock)
