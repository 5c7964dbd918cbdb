"""What is in the volumes of these tests, and the variables that go with it."""

import json
from datetime import datetime

from tests.container.podman import File
from tests.interop.rawderp import Key
from tests.interop.relay import TestCA

SELF_SIGNED = {"DERP_DOMAIN": "127.0.0.1", "DERP_CERT_MODE": "manual"}
"""A relay that needs nobody, and no files."""

HIGH_PORTS = {"DERP_ADDR": ":8443", "DERP_HTTP_PORT": "8080"}
"""Which anybody may bind."""


def key_file(key: Key) -> bytes:
    """As the Go derper writes it."""
    return json.dumps({"PrivateKey": f"privkey:{key.private.hex()}"}, indent="\t").encode()


def certificate(
    ca: TestCA, name: str, *, owner: int = 0, until: datetime | None = None
) -> dict[str, File]:
    """The files of -certmode manual; the private key is for its owner only."""
    leaf = ca.ca.issue_cert(name, not_after=until)
    chain = b"".join(blob.bytes() for blob in leaf.cert_chain_pems)
    return {
        f"{name}.crt": File(chain, owner, mode=0o644),
        f"{name}.key": File(leaf.private_key_pem.bytes(), owner),
    }
