"""A link that is busy, and those who share it."""

import pytest
from trio.testing import MockClock as Clock

from tests.mesh.other import present
from tests.mesh.test_link import X, disco, fill, linked


@pytest.mark.slow
async def test_one_flooder_silences_nobody(autojump_clock: Clock) -> None:
    """Neither with data, nor with packets that look like disco."""
    async with linked(capacity=5000) as other:
        await other.tell(present(X))
        flooder, honest = await other.relay.login(), await other.relay.login()
        written = await fill(other, flooder)
        for number in range(300):
            for _ in range(20):
                await flooder.send_packet(X, bytes(1400))
                await flooder.send_packet(X, disco() + bytes(1000))
            await flooder.ping()
            await honest.send_packet(X, number.to_bytes(4, "big"))
            await honest.ping()
        for _ in range(written):
            await other.there.forwarded()
        heard = []
        while len(heard) < 300:
            source, _, packet = await other.there.forwarded()
            if source == honest.key:
                heard.append(int.from_bytes(packet, "big"))
        assert heard == list(range(300))
