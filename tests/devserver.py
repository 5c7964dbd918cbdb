"""What `nox -s dev` runs: a relay on loopback, and what a person needs to try it.

The key and the certificate live in a temporary directory and go with it. Arguments are added to
the relay's own, so `-a 127.0.0.1:4443` moves it.
"""

import json
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from certs.files import pair_files
from certs.manual import load
from derp.cli.main import main
from derp.derpmap import Node, make_region

HOST = "127.0.0.1"
PORT, STUN_PORT = 3340, 3478

TEXT = """
A relay for trying things out. It answers on this machine only; Ctrl-C ends it.

  DERP (TLS)    https://{host}:{port}/derp
  STUN          {host}:{stun_port}/udp
  metrics       https://{host}:{port}/debug/

Is it there?

  curl -k https://{host}:{port}/derp/probe -w '%{{http_code}}\\n'

To use it, add this to "derpMap" in the policy file of a tailnet whose nodes run on this machine:

{region}
"""


def region(certdir: Path) -> dict[str, object]:
    """Make the DERP map entry, with the pin of a certificate made for this run."""
    pair = load(pair_files(certdir, HOST), HOST, datetime.now(UTC))
    node = Node(HOST, pair.pin, PORT, STUN_PORT)
    return {"Regions": {"900": make_region(900, "dev", "dev", node)}}


def run(arguments: list[str]) -> int:
    """Print the instructions and serve; return derper's exit code."""
    with tempfile.TemporaryDirectory(prefix="derper-dev-") as home:
        certdir = Path(home, "certs")
        text = json.dumps(region(certdir), indent=2)
        indented = "\n".join(f"  {line}" for line in text.splitlines())
        print(TEXT.format(host=HOST, port=PORT, stun_port=STUN_PORT, region=indented), flush=True)
        flags = {
            "-c": f"{home}/derper.key",
            "-certmode": "manual",
            "-certdir": f"{certdir}",
            "-hostname": HOST,
            "-a": f"{HOST}:{PORT}",
            "-http-port": "-1",
            "-stun-port": f"{STUN_PORT}",
        }
        return main([*(part for flag in flags.items() for part in flag), *arguments])


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
