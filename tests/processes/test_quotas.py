"""Quotas of a relay as processes: in force within a flush, and kept across restarts."""

from pathlib import Path

import nacl.public
import pytest

from derp.wire.keys import node_public_text
from tests.peers import Peer
from tests.process import derper
from tests.processes.test_accounts import join
from tests.support.derp import HEALTH

SAID = "has used up its quota of 20 kB/month here, and is refused until "


async def last_words(peer: Peer) -> str:
    """What the relay says before it ends the connection."""
    said = ""
    while True:
        try:
            kind, payload = await peer.receive()
        except EOFError:
            return said
        if kind == HEALTH:
            said = payload.decode()


@pytest.mark.parametrize("workers", [1, 2])
async def test_who_was_over_its_quota_is_so_after_a_restart(tmp_path: Path, workers: int) -> None:
    key = nacl.public.PrivateKey.generate()
    policy = tmp_path / "policy.toml"
    name = node_public_text(bytes(key.public_key))
    policy.write_text(f'[clients."{name}"]\nquota = "20 kB/month"\nrefuse = true\n')
    flags = ("-policy", str(policy), "-workers", str(workers))
    flags += ("-accounts", str(tmp_path / "accounts"))
    for packets in (1, 0):
        with derper(tmp_path, *flags, tls=False) as relay:
            peer, end = await join(relay, key)
            async with end.stream:
                for _ in range(packets):
                    await peer.send_packet(peer.key, bytes(15_000))
                    await peer.receive_packet()
                assert SAID in await last_words(peer)
            relay.wait_for("no longer admitted by policy: over its quota for this month")
            assert relay.stop() == 0
            assert not any("count anew" in line for line in relay.log)


def test_quotas_that_a_restart_forgets_are_told(tmp_path: Path) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text('[defaults]\nquota = "5 GB/day"\nthrottle = "1 Mbit/s"\n')
    with derper(tmp_path, "-policy", str(policy), tls=False) as relay:
        relay.wait_for("the quotas count anew at each start of the relay; -accounts FILE keeps")
