"""The load of real peers: one tailscaled sends to another, and only the relay joins them.

A program of its own, as the load client is, which run.py pins and starts:

    python -m bench.peers build DIR          build tailscaled and its helper; where that or network
                                             namespaces can't be had, say why, and exit 1
    python -m bench.peers transfer [flags]   start a relay and two tailscaled, send, print the
                                             result as JSON

The network is that of the interop suite (tests/interop/tailnet.py): three network namespaces, no
packet forwarded in the middle, and tailscaled told not to try UDP. The relay runs on the server's
core; both tailscaled, what sends and what receives share the client's, which this inherits.

The CPU time counted is that of the relay's process tree, from just before the transfer until just
after it. There is a figure only if the bytes that arrived have the right SHA-256, if tailscaled
says before and after that its way is the relay, and if the relay's own counters grew by no less
than what was sent.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

import trustme

from bench.usage import core_seconds, cpu_seconds
from tests.interop import golang
from tests.interop.netns import NoNamespacesError, check_possible
from tests.interop.relay import TestCA, die_with_parent
from tests.interop.tailnet import REGION, Tailnet, eventually, tailnet

PACKAGES = ("derpcheck", "tailscaled")
TOOLS = ("ip", "unshare", "nsenter", "taskset", "env")
PING_SECONDS = 60
UNCOUNTED_SECONDS = 0.03
"""Three ticks are not held against anybody: the kernel counts no closer."""


def build(into: Path, needs: Collection[str] = ()) -> None:
    """Build what a transfer needs, inlined as any release is, which the interop suite's is not.

    `needs` are features of tailscaled that are left out otherwise (golang.OMIT).
    Raises NoNamespacesError and golang.NoGoError for what is missing here, and RuntimeError with
    the compiler's last words.
    """
    check_possible(TOOLS)
    go = golang.find_go()
    omit = ",ts_omit_".join(name for name in golang.OMIT.split() if name not in needs)
    done = subprocess.run(
        [go, "build", f"-tags=ts_include_cli,ts_omit_{omit}", "-o", f"{into}/"]
        + [golang.PACKAGES[name] for name in PACKAGES],
        cwd=golang.HERE,
        env=golang.go_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=golang.BUILD_TIMEOUT,
        preexec_fn=die_with_parent,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"go build: {' '.join(done.stdout.split())[-200:]}")
    # tailscaled answers to this name, too.
    if not (into / "tailscale").is_symlink():
        (into / "tailscale").symlink_to("tailscaled")


def transfer(options: argparse.Namespace) -> dict[str, Any]:
    """Start everything, send once, and return what the load client would, as far as it applies.

    Raises AssertionError for what did not come up.
    """
    binaries = {name: options.binaries / name for name in (*PACKAGES, "tailscale")}
    pem = options.folder / "ca.pem"
    ca = trustme.CA(key_type=trustme.KeyType.ECDSA)
    ca.cert_pem.write_to_path(pem)
    command = ["env", f"--chdir={options.directory}"]
    command += ["taskset", "--cpu-list", str(options.server_core), *options.command]
    with tailnet(
        command, binaries, TestCA(ca, pem), options.folder, blob_size=options.bytes
    ) as net:
        assert net.relay.process
        pid = net.relay.process.pid
        print(f"{options.name} is process {pid}", file=sys.stderr, flush=True)
        eventually("a ping comes back", PING_SECONDS, lambda: net.alice.ping(net.bob) is not None)
        before = path_and_counters(net)
        begin = used(pid, options)
        fetched = net.fetch()
        end = used(pid, options)
        net.relay.check_alive()
        after = path_and_counters(net)
    seconds, server, client, server_core, client_core = (
        last - first for first, last in zip(begin, end, strict=True)
    )
    grown = {name: after[name] - before[name] for name in ("received", "sent")}
    others = max(server_core - server, client_core - client) - UNCOUNTED_SECONDS
    paths = before["paths"] + after["paths"]
    return {
        "errors": faults(fetched, options.bytes, net.checksum, paths, grown),
        "seconds": seconds,
        "server_cpu": server / seconds,
        "client_busy": client / seconds,
        "others": max(0.0, others) / seconds,
        "extra": {
            "cpu_per_gb": server / options.bytes * 1e9,
            "mb_per_s": fetched["bytes"] / fetched["seconds"] / 1e6,
            **{f"relay_{name}": value for name, value in grown.items()},
        },
        "paths": paths,
    }


def used(relay: int, options: argparse.Namespace) -> tuple[float, ...]:
    """Return the time, the CPU time of the relay and of all else from here, and of each core."""
    server = cpu_seconds(relay)
    return (
        time.monotonic(),
        server,
        cpu_seconds(os.getpid()) - server,
        core_seconds(options.server_core),
        core_seconds(options.client_core),
    )


def path_and_counters(net: Tailnet) -> dict[str, Any]:
    """Ask tailscaled at both ends which way it goes, and the relay what it has relayed."""
    paths = []
    for one, other in ((net.alice, net.bob), (net.bob, net.alice)):
        peer = one.peer(other)
        direct = f", directly at {peer['CurAddr']}" if peer["CurAddr"] else ""
        paths.append(f"{one.name}: {one.ping(other) or 'no pong'}{direct}")
    return {
        "paths": paths,
        "received": net.varz("derp_bytes_received"),
        "sent": net.varz("derp_bytes_sent"),
    }


def faults(
    fetched: dict[str, Any], size: int, checksum: str, paths: list[str], grown: dict[str, float]
) -> list[str]:
    """Return what forbids to count this transfer; nothing where all is well."""
    found = []
    if fetched["error"]:
        found.append(f"the transfer failed: {fetched['error']}")
    if fetched["bytes"] != size:
        found.append(f"{fetched['bytes']} bytes arrived, of {size}")
    if fetched["sha256"] != checksum:
        found.append("what arrived has another SHA-256")
    found += [
        f"not the relay's path: {path}"
        for path in paths
        if f" via DERP({REGION}) " not in path or ", directly " in path
    ]
    found += [
        f"the relay has {name} {grown[name]:.0f} bytes only, of {size}: it went another way"
        for name in ("received", "sent")
        if grown[name] < size
    ]
    return found


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.peers")
    actions = parser.add_subparsers(dest="action", required=True)
    make = actions.add_parser("build")
    make.add_argument("into", type=Path)
    move = actions.add_parser("transfer")
    move.add_argument("--binaries", type=Path, required=True)
    move.add_argument("--folder", type=Path, required=True, help="for keys, state and logs; empty")
    move.add_argument(
        "--directory", type=Path, required=True, help="where the relay's command runs"
    )
    move.add_argument("--server-core", type=int, required=True)
    move.add_argument("--client-core", type=int, required=True)
    move.add_argument("--bytes", type=int, required=True)
    move.add_argument("--name", default="the relay")
    move.add_argument("command", nargs="+", help="the relay, without flags")
    return parser.parse_args(arguments)


def main() -> None:
    options = parse(sys.argv[1:])
    try:
        if options.action == "build":
            build(options.into)
        else:
            print(json.dumps(transfer(options)))
    except (
        AssertionError,
        RuntimeError,
        OSError,
        subprocess.SubprocessError,
        NoNamespacesError,
        golang.NoGoError,
    ) as error:
        lines = str(error).strip().splitlines()
        # Many bring a log along: its last line says most.
        sys.exit(" ".join(line[:200] for line in (lines[:1] + lines[1:][-1:])) or repr(error))


if __name__ == "__main__":
    main()
