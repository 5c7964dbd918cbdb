"""headscale as a tailnet's control server."""

import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs

from tests.interop.netns import TIMEOUT, Namespace
from tests.interop.rawderp import Key
from tests.interop.relay import environment
from tests.interop.tailnet import CONTROL_PORT, REGION, RELAY_4, background, eventually

URL = f"http://{RELAY_4}:{CONTROL_PORT}"

CONFIG = {
    "server_url": URL,
    "listen_addr": f"{RELAY_4}:{CONTROL_PORT}",
    "metrics_listen_addr": "",
    "grpc_listen_addr": "",
    "noise": {"private_key_path": "noise.key"},
    "prefixes": {"v4": "100.64.0.0/10", "v6": "fd7a:115c:a1e0::/48"},
    "derp": {"urls": [], "paths": ["derp.yaml"], "auto_update_enabled": False},
    "disable_check_updates": True,
    "database": {"type": "sqlite", "sqlite": {"path": "db.sqlite"}},
    "dns": {"magic_dns": False, "override_local_dns": False, "base_domain": "headscale.test"},
    "unix_socket": "headscale.sock",
    "unix_socket_permission": "0700",
}


@attrs.define
class Headscale:
    """One that lets in who has the key of its only user. Its files, of which JSON is YAML too."""

    binary: Path
    folder: Path

    @contextmanager
    def run(self, middle: Namespace, node: Mapping[str, object]) -> Iterator[Sequence[str]]:
        """As a tailnet.Control."""
        self.folder.mkdir()
        (self.folder / "config.yaml").write_text(json.dumps(CONFIG))
        (self.folder / "derp.yaml").write_text(derp_map(node))
        command = [*middle.prefix, *self.command("serve")]
        with background(command, self.folder / "headscale.log", environment()):
            listens = (self.folder / "headscale.sock").exists
            eventually("headscale listens", TIMEOUT, listens)
            self.ask("users", "create", "somebody")
            key = self.ask("preauthkeys", "create", "--user=1", "--reusable")
            yield [f"--auth-key={key['key']}"]

    def delete(self, key: Key) -> None:
        """Delete the node with this key."""
        self.ask("nodes", "delete", f"--identifier={self.number(key)}", "--force")

    def expire(self, key: Key) -> None:
        """Have this key expire now."""
        self.ask("nodes", "expire", f"--identifier={self.number(key)}")

    def number(self, key: Key) -> int:
        """The number of the node with this key."""
        wanted = f"nodekey:{key.public.hex()}"
        (number,) = (n["id"] for n in self.ask("nodes", "list") if n["node_key"] == wanted)
        return int(number)

    def ask(self, *arguments: str) -> Any:
        """Its command line; the answer is JSON."""
        done = subprocess.run(
            self.command(*arguments, "--output=json"),
            env=environment(),
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def command(self, *arguments: str) -> list[str]:
        """All paths are relative to its folder."""
        return [
            "env",
            f"--chdir={self.folder}",
            str(self.binary),
            "--config=config.yaml",
            *arguments,
        ]


def derp_map(node: Mapping[str, object]) -> str:
    """With this DERP node only; headscale spells the names in small letters."""
    here = {name.lower(): value for name, value in node.items()}
    nodes = [{**here, "regionid": 900}]
    region = {"regionid": 900, "regioncode": REGION, "regionname": "ours", "nodes": nodes}
    return f"regions:\n  900: {json.dumps(region)}\n"
