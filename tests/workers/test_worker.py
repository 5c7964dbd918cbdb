"""What a worker refuses to start with."""

import json
import re
import socket

import attrs
import pytest

from derp.errors import StartError, UsageError
from derp.files.ratelimit import NO_LIMIT
from derp.net.listenaddress import Address
from derp.workers import worker
from derp.workers.handover import Handover, this_code
from derp.workers.rpc import send_first
from tests.support.config import make_config

CONFIG = make_config(dev=True, a=Address("127.0.0.1", 0))
HANDOVER = Handover(
    code=this_code(),
    index=1,
    workers=2,
    node_key=bytes(range(32)),
    mesh_key=bytes(range(1, 33)),
    worker_key=bytes(range(2, 34)),
    main=(5, 6),
    plain=(),
    stun=(7,),
    peer_socket=8,
    peer_addresses=(b"\x0000001", b"\x0000002"),
    rate_limit=NO_LIMIT,
    has_admission=True,
    has_policy=True,
    certificates={"challenges": []},
)


def test_a_handover_is_the_same_on_the_other_side() -> None:
    for handover in (
        HANDOVER,
        attrs.evolve(
            HANDOVER, mesh_key=None, certificates=None, has_admission=False, has_policy=False
        ),
    ):
        text = json.dumps(handover.to_json())
        found = Handover.from_json(json.loads(text))
        assert json.dumps(found.to_json()) == text
        assert found.descriptors == [5, 6, 7, 8]
    for secret in (HANDOVER.node_key, HANDOVER.mesh_key, HANDOVER.worker_key):
        assert repr(secret) not in repr(HANDOVER)


def test_a_supervisor_of_another_version() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        # Of which nothing else may be known.
        send_first(ours, {"code": "trio-derper 0.0 in /elsewhere"})
        wanted = f"this is {this_code()}, and its supervisor trio-derper 0.0 in /elsewhere; restart"
        with pytest.raises(StartError, match=re.escape(wanted)):
            worker.run(theirs, CONFIG)


def test_a_supervisor_that_is_gone() -> None:
    ours, theirs = socket.socketpair()
    ours.close()
    with theirs, pytest.raises(StartError, match="worker: the other process ended before"):
        worker.run(theirs, CONFIG)


@pytest.mark.parametrize("words", [[], ["x"], ["-1"], ["999"], ["9" * 30], ["0x3"], [""]])
def test_no_control_connection(words: list[str]) -> None:
    with pytest.raises(UsageError, match="only derper itself starts workers"):
        worker.adopt_rpc_socket(words)
