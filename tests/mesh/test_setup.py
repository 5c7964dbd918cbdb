"""From the configuration to the tasks that keep the links."""

import logging

import nacl.public
import pytest
import trio

from derp.config import Config
from derp.config.mesh import MeshRelay
from derp.errors import UsageError
from derp.mesh.setup import announce, keepers, read_auth, socket_options
from derp.net.listenaddress import Address
from derp.net.listener import TCPOptions
from derp.net.socketoptions import DEFAULTS, SocketOptions
from derp.session.state import RelayState
from tests.support.config import make_config

KEY = "ab" * 32
RELAYS = (MeshRelay("derp2"), MeshRelay("derp3", 8443, "10.0.0.3"))


def config(*mesh_with: MeshRelay) -> Config:
    return make_config(dev=True, a=Address("", 0), mesh_with=mesh_with)


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAILSCALE_DERPER_MESH_KEY", KEY)


def announced(caplog: pytest.LogCaptureFixture) -> list[object]:
    records = [record for record in caplog.records if record.name == "derper.mesh"]
    return [record.__dict__["fields"]["relays_dialled"] for record in records]


async def kept(config: Config) -> list[str]:
    auth = read_auth(config)
    async with trio.open_nursery() as nursery:
        state = RelayState(nacl.public.PrivateKey.generate(), nursery, 2.0)
        return [keeper.name for keeper in keepers(config, auth, state, TCPOptions())]


def test_what_links_are_bound_to() -> None:
    more = {"interface": "eth0", "mesh_fwmark": 0x51, "mesh_with": RELAYS}
    chosen = make_config(dev=True, a=Address("", 0), **more)
    assert socket_options(chosen) == SocketOptions("eth0", 0x51)
    assert socket_options(config()) == DEFAULTS


async def test_no_mesh(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.delenv("TAILSCALE_DERPER_MESH_KEY", raising=False)
    auth = read_auth(config())
    assert (auth.key, auth.context) == (None, None)
    assert await kept(config()) == []
    announce(config(), auth)
    assert announced(caplog) == []
    with pytest.raises(UsageError, match=r"^-mesh-with derp2: want the mesh key in "):
        read_auth(config(RELAYS[0]))


async def test_one_that_others_dial(key: None, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    auth = read_auth(config())
    assert auth.key == bytes.fromhex(KEY)
    assert auth.context is None
    assert KEY not in repr(auth)
    assert repr(auth.key) not in repr(auth)
    announce(config(), auth)
    assert announced(caplog) == ["none"]


async def test_one_task_for_each_relay(key: None, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert await kept(config(*RELAYS)) == ["derp2", "derp3:8443/10.0.0.3"]
    announce(config(*RELAYS), read_auth(config(*RELAYS)))
    assert announced(caplog) == ["derp2 derp3:8443/10.0.0.3"]
