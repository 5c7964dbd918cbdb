"""Records what the Go derper and Go's client say to each other, into vectors/.

    python record_vectors.py

To be run when the pinned version of tailscale.com changes; it takes a minute, for a keepalive.
What changes from one run to the next are the nonces of the boxes, and ports.
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import trustme

from tests.interop import golang
from tests.interop.relay import (
    Relay,
    TestCA,
    certificate_chain,
    environment,
    running,
    write_key_file,
)
from tests.interop.vectors import KEYS, Meaning, decode, save, split

MESH_KEY = bytes(range(32))


def main() -> None:
    binaries = golang.build()
    go_mod = (golang.HERE / "go.mod").read_text()
    pinned = re.search(r"^\s+tailscale\.com (v\S+)$", go_mod, re.MULTILINE)
    assert pinned
    source = f"tailscale.com/cmd/derper and derphttp, {pinned[1]}"
    derper = [str(binaries["derper"])]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "mesh.key").write_text(MESH_KEY.hex())
        write_key_file(folder / "derper.key", KEYS["relay"].private)
        mesh = ["-mesh-psk-file", str(folder / "mesh.key")]
        with (
            running(Relay("four", derper, folder, tls=False, stun=True, flags=mesh)) as relay,
            running(
                Relay("six", derper, folder, "::1", "[::1]", tls=False, stun=True)
            ) as relay_six,
        ):
            recorded = record(binaries["derpcheck"], relay, relay_six)
        save("frames.json", source, frames(recorded))
        save("transcripts.json", source, transcripts(recorded))
        save("stun.json", source, stun(recorded))
        save("files.json", source, files(derper, folder))


def record(derpcheck: Path, relay: Relay, relay_six: Relay) -> dict[str, dict[str, str]]:
    arguments = [derpcheck, "record", "-plain", relay.url, "-mesh-key", MESH_KEY.hex()]
    for name in ("alice", "bob", "mesh", "nobody"):
        arguments += [f"-{name}", KEYS[name].private.hex()]
    arguments += ["-stun", f"127.0.0.1:{relay.stun_port}", "-stun", f"[::1]:{relay_six.stun_port}"]
    done = subprocess.run(
        arguments, env=environment(), stdout=subprocess.PIPE, text=True, timeout=120, check=True
    )
    recorded: dict[str, dict[str, str]] = json.loads(done.stdout)
    return recorded


def halves(recorded: dict[str, dict[str, str]]) -> list[tuple[str, str, bytes, bytes]]:
    """For each connection and direction: who, which, the HTTP head, and the frames."""
    found = []
    for name in ("alice", "bob", "mesh"):
        for direction in ("sent", "received"):
            stream = bytes.fromhex(recorded[name][direction])
            head, _, rest = stream.partition(b"\r\n\r\n")
            found.append((name, direction, head + b"\r\n\r\n", rest))
    return found


def frames(recorded: dict[str, dict[str, str]]) -> list[Meaning]:
    """Every frame that came once, named after who sent or got it."""
    vectors = []
    for name, direction, _, stream in halves(recorded):
        for number, data in enumerate(split(stream)):
            meaning = decode(data, KEYS[name])
            title = f"{name} {direction} {number}: {meaning['frame']}"
            vectors.append({"name": title, "hex": data.hex(), "meaning": meaning})
    return vectors


def transcripts(recorded: dict[str, dict[str, str]]) -> list[Meaning]:
    """Each direction of each connection from its first byte to its last."""
    return [
        {
            "name": f"{name} {direction}",
            "hex": (head + stream).hex(),
            "meaning": {
                "http": head.decode(),
                "frames": [decode(data, KEYS[name]) for data in split(stream)],
            },
        }
        for name, direction, head, stream in halves(recorded)
    ]


def stun(recorded: dict[str, dict[str, str]]) -> list[Meaning]:
    vectors: list[Meaning] = []
    transaction = b"transaction!".hex()
    for name, exchange in recorded.items():
        if not name.startswith("stun "):
            continue
        address, _, port = exchange["local"].rpartition(":")
        if not vectors:
            meaning: Meaning = {"transaction": transaction}
            vectors.append({"name": "request", "hex": exchange["sent"], "meaning": meaning})
        meaning = {"transaction": transaction, "address": address.strip("[]"), "port": int(port)}
        title = f"response to {address}"
        vectors.append({"name": title, "hex": exchange["received"], "meaning": meaning})
    return vectors


def files(derper: list[str], folder: Path) -> list[Meaning]:
    """What the Go derper makes besides frames: a key file, a metacert, an IP address's own."""
    ca = trustme.CA(key_type=trustme.KeyType.ECDSA)
    TestCA(ca, folder / "unused").issue(folder, "localhost")
    vectors: list[Meaning] = []
    with running(Relay("tls", derper, folder)) as relay:
        meta = certificate_chain(relay)[-1]
    key = KEYS["relay"].public.hex()
    meaning: Meaning = {"common name": f"derpkey{key}", "serial number": 2}
    vectors.append({"name": "metacert", "hex": meta.hex(), "meaning": meaning})
    own = folder / "own"
    own.mkdir()
    with running(Relay("own", derper, own, hostname="127.0.0.1")) as relay:
        leaf = certificate_chain(relay)[0]
        line = relay.wait_for_log(r"\{.*sha256-raw:.*\}")
    meaning = {"address": "127.0.0.1", "derp map node": json.loads(line[0])}
    vectors.append({"name": "self-signed certificate", "hex": leaf.hex(), "meaning": meaning})
    text = (own / "derper.key").read_text()
    meaning = {"private": re.sub(r".*privkey:([0-9a-f]{64}).*", r"\1", text, flags=re.DOTALL)}
    vectors.append({"name": "key file", "hex": text.encode().hex(), "meaning": meaning})
    return vectors


if __name__ == "__main__":
    sys.exit(main())
