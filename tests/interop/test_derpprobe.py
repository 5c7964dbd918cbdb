"""Tailscale's own prober, run once: TLS, STUN and a packet through the relay."""

import json
import re
import subprocess
from pathlib import Path

from tests.interop.relay import Relay, TestCA, environment

REGION, NODE = "test", "900a"

PROBES = {
    "derpmap-probe",
    f"derp/{REGION}/{NODE}/tls",
    f"derp/{REGION}/{NODE}/udp",
    f"derp/{REGION}/{NODE}/{NODE}/mesh",
    f"derp/{REGION}/{NODE}/{NODE}/bw",
}
"""All that there is to probe. One that did not run is not listed, and that is a failure too."""


def derpprobe(
    program: Path, ca: TestCA, relay: Relay, folder: Path
) -> tuple[set[str], list[str], str]:
    """Run it once on a relay with STUN; return the good probes, the bad ones, and all it said."""
    node = {
        "Name": NODE,
        "RegionID": 900,
        "HostName": relay.hostname,
        "IPv4": relay.host,
        "DERPPort": relay.port,
        "STUNPort": relay.stun_port,
    }
    region = {"RegionID": 900, "RegionCode": REGION, "RegionName": REGION, "Nodes": [node]}
    derp_map = folder / "derpmap.json"
    derp_map.write_text(json.dumps({"Regions": {"900": region}}))
    probed = subprocess.run(
        # -bw-interval adds a probe that pushes a megabyte of full-size packets through.
        [program, "-once", f"-derp-map=file://{derp_map}", "-bw-interval=15s", "-spread=false"],
        env=environment(SSL_CERT_FILE=str(ca.pem)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    good = set(re.findall(r" good: ([^:]+): ", probed.stdout))
    bad = re.findall(r" bad: (.*)", probed.stdout)
    assert bad or probed.returncode == 0, probed.stdout
    relay.check_alive()
    return good, bad, probed.stdout


def test_derpprobe_finds_all_good(
    binaries: dict[str, Path], test_ca: TestCA, tls_relay: Relay, tmp_path: Path
) -> None:
    good, bad, output = derpprobe(binaries["derpprobe"], test_ca, tls_relay, tmp_path)
    assert not bad, output
    assert good == PROBES, output
