"""What deploy/proxies/ says of the relay: its flags; the suite tests/field runs the proxies."""

import re
import shlex
from ipaddress import ip_address
from pathlib import Path

import pytest

from derp.config import Config, flag_table, goflags
from derp.relay.networks import is_in
from tests.deploy.files import DEPLOY

PASS_TLS = {"nginx-stream.conf", "haproxy-tcp.cfg", "frpc.toml", "Caddyfile-layer4"}
FILES = sorted((DEPLOY / "proxies").iterdir())


def relay_of(path: Path) -> Config:
    """The relay that stands in the file's first comment."""
    comment = re.sub(r"\\\n#", "", path.read_text("utf-8"))
    (command,) = re.findall(r"^# +derper (.*)$", comment, re.MULTILINE)
    table = flag_table({"HOME": "/root"}, root=True)
    return Config.from_settings(goflags.parse(table, shlex.split(command), {}).settings)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_the_relay_lists_the_proxy_and_serves_where_it_connects(path: Path) -> None:
    config, text = relay_of(path), path.read_text("utf-8")
    passes_tls = path.name in PASS_TLS
    assert config.serve_tls == passes_tls
    listed = config.proxies.with_header if passes_tls else config.proxies.trusted
    assert listed == config.proxies.all
    (address,) = config.listening.addresses
    assert is_in(address.host, listed)
    assert ip_address(address.host).is_loopback
    assert text.count(str(address)) > 1 or f"localPort = {address.port}" in text
    assert config.tls.hostname in text
    assert "UDP" in text or "STUN" in text
    if "UDP 3478 goes past" in text:
        assert all(address.is_wildcard for address in config.stun_addresses)
    if passes_tls:
        assert config.listening.http_port == -1
        assert config.serve_acme
