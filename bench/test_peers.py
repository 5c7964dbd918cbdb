"""What forbids a figure for the transfer between two tailscaled, and the arithmetic of CPU time."""

import os
import subprocess
import sys
import time

import pytest

from bench import peers

SIZE = 200_000_000
GOOD = {"bytes": SIZE, "sha256": "5eed", "error": ""}
RELAYED = ["alice: pong from bob (100.64.0.2) via DERP(ours) in 1ms"]
GROWN = {"received": SIZE * 1.1, "sent": SIZE * 1.1}


def test_what_went_well_has_no_faults():
    assert peers.faults(GOOD, SIZE, "5eed", RELAYED, GROWN) == []


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"fetched": GOOD | {"error": "timeout"}}, "the transfer failed: timeout"),
        ({"fetched": GOOD | {"bytes": SIZE - 1}}, f"{SIZE - 1} bytes arrived, of {SIZE}"),
        ({"fetched": GOOD | {"sha256": "5eee"}}, "what arrived has another SHA-256"),
        (
            {"paths": [*RELAYED, "bob: pong from alice (100.64.0.1) via 10.88.1.2:41641 in 1ms"]},
            "not the relay's path: bob: pong from alice (100.64.0.1) via 10.88.1.2:41641 in 1ms",
        ),
        (
            {"paths": [f"{RELAYED[0]}, directly at 10.88.1.2:41641"]},
            f"not the relay's path: {RELAYED[0]}, directly at 10.88.1.2:41641",
        ),
        ({"paths": ["bob: no pong"]}, "not the relay's path: bob: no pong"),
        (
            {"grown": GROWN | {"received": 5000.0}},
            f"the relay has received 5000 bytes only, of {SIZE}: it went another way",
        ),
        (
            {"grown": GROWN | {"sent": SIZE - 1.0}},
            f"the relay has sent {SIZE - 1} bytes only, of {SIZE}: it went another way",
        ),
    ],
)
def test_a_fault_is_named(change, fault):
    seen = {"fetched": GOOD, "paths": RELAYED, "grown": GROWN} | change
    assert peers.faults(seen["fetched"], SIZE, "5eed", seen["paths"], seen["grown"]) == [fault]


def test_cpu_time_is_that_of_children_too():
    """Running ones and ended ones."""
    burn = "import time\nwhile time.process_time() < 0.2: pass\n"
    before = peers.cpu_seconds(os.getpid())
    subprocess.run([sys.executable, "-c", burn], check=True, timeout=60)
    ended = peers.cpu_seconds(os.getpid())
    assert ended - before >= 0.19
    with subprocess.Popen(
        [sys.executable, "-c", burn + "print('burnt', flush=True)\ninput()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout.readline() == "burnt\n"
        assert peers.cpu_seconds(child.pid) >= 0.2
        assert peers.cpu_seconds(os.getpid()) - ended >= 0.2
        child.communicate("\n", timeout=60)


def test_cpu_time_is_that_of_the_kernels_clock():
    own = peers.cpu_seconds(os.getpid())
    children = os.times()
    reaped = children.children_user + children.children_system
    assert own == pytest.approx(time.process_time() + reaped, abs=0.25)


def test_a_core_has_been_in_use():
    core = min(os.sched_getaffinity(0))
    assert peers.core_seconds(core) > 0
    assert peers.core_seconds(99_999) == 0
