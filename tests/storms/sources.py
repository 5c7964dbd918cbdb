"""What a relay asks who may use it, for one storm: started, told who belongs, and counted."""

import contextlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.hostile.measure import child
from tests.interop.deviceapi import DeviceAPI
from tests.storms.storms import Asked, Storm
from tests.support.deviceapis import API_KEY, HEADSCALE_KEY, TAILNET, device


@dataclass(frozen=True)
class Count:
    """How often a source was asked, and how often at once at most."""

    asked: int
    most: int


@dataclass(frozen=True)
class Sources:
    """The flags that have a relay ask, and what counts how often it did."""

    flags: Sequence[str]
    counts: Callable[[], Sequence[Count]]


NONE = Sources((), lambda: ())


@contextlib.contextmanager
def sources(storm: Storm, keys: Sequence[bytes], load: Path, folder: Path) -> Iterator[Sources]:
    """Run what the relay of a storm asks; those with `keys` belong."""
    with contextlib.ExitStack() as stack:
        yield stack.enter_context(MAKE[storm.asked](storm, keys, load, folder))


@contextlib.contextmanager
def nothing(*_: object) -> Iterator[Sources]:
    yield NONE


@contextlib.contextmanager
def list_file(_storm: Storm, keys: Sequence[bytes], _load: Path, folder: Path) -> Iterator[Sources]:
    path = folder / "keys"
    path.write_text("".join(f"nodekey:{key.hex()}\n" for key in keys))
    yield Sources(("-verify-client-file", str(path)), lambda: ())


@contextlib.contextmanager
def policy(_storm: Storm, keys: Sequence[bytes], _load: Path, folder: Path) -> Iterator[Sources]:
    path = folder / "policy.toml"
    entries = "".join(f'[clients."nodekey:{key.hex()}"]\nallow = true\n' for key in keys)
    path.write_text(f"[defaults]\ndeny = true\n{entries}")
    path.chmod(0o600)
    yield Sources(("-policy", str(path)), lambda: ())


@contextlib.contextmanager
def tailscaled(_storm: Storm, keys: Sequence[bytes], load: Path, folder: Path) -> Iterator[Sources]:
    path = folder / "tailscaled.sock"
    with stub(load, keys, "-socket", str(path)) as (_, counts):
        yield Sources(("-verify-clients", "-socket", str(path)), counts)


@contextlib.contextmanager
def url(storm: Storm, keys: Sequence[bytes], load: Path, _folder: Path) -> Iterator[Sources]:
    how = ["-takes", storm.takes, *(["-one-by-one"] if storm.one_by_one else [])]
    with stub(load, keys, *how) as (where, counts):
        yield Sources(("-verify-client-url", f"http://{where}/verify"), counts)


@contextlib.contextmanager
def tailnet(_storm: Storm, keys: Sequence[bytes], _load: Path, folder: Path) -> Iterator[Sources]:
    with device_api("tailscale") as api:
        api.say(devices=[device(key) for key in keys])
        secret = secret_file(folder, API_KEY)
        flags = ("-verify-tailnet", TAILNET, "-verify-tailnet-api", api.url)
        yield Sources((*flags, "-tailnet-api-key-file", secret), counter(api))


@contextlib.contextmanager
def headscale(_storm: Storm, keys: Sequence[bytes], _load: Path, folder: Path) -> Iterator[Sources]:
    with device_api("headscale") as api:
        api.say(nodes=[{"nodeKey": f"nodekey:{key.hex()}", "expiry": None} for key in keys])
        secret = secret_file(folder, HEADSCALE_KEY)
        flags = ("-verify-headscale", api.url, "-headscale-api-key-file", secret)
        yield Sources(flags, counter(api))


@contextlib.contextmanager
def both(storm: Storm, keys: Sequence[bytes], load: Path, folder: Path) -> Iterator[Sources]:
    with (
        tailnet(storm, keys, load, folder) as one,
        url(storm, keys, load, folder) as other,
    ):
        flags = (*one.flags, *other.flags, "-verify-all")
        yield Sources(flags, lambda: (*one.counts(), *other.counts()))


MAKE = {
    Asked.NOTHING: nothing,
    Asked.FILE: list_file,
    Asked.POLICY: policy,
    Asked.TAILSCALED: tailscaled,
    Asked.URL: url,
    Asked.TAILNET: tailnet,
    Asked.HEADSCALE: headscale,
    Asked.ALL: both,
}


@contextlib.contextmanager
def stub(
    load: Path, keys: Sequence[bytes], *how: str
) -> Iterator[tuple[str, Callable[[], Sequence[Count]]]]:
    """Run `load sources`; yield where it listens, and what ends and counts it."""
    with child([str(load), "sources", *how]) as asked:
        for key in keys:
            asked.say(key.hex())
        asked.say("begin")
        where = asked.line()

        def counts() -> Sequence[Count]:
            asked.say("end")
            return (Count(**json.loads(asked.line())),)

        yield where, counts


@contextlib.contextmanager
def device_api(kind: str) -> Iterator[DeviceAPI]:
    with child([sys.executable, "-m", "tests.interop.deviceapi_process", kind]) as process:
        yield DeviceAPI(int(process.line()))


def counter(api: DeviceAPI) -> Callable[[], Sequence[Count]]:
    return lambda: (Count(len([asked for asked in api.asked() if "oauth" not in asked]), 1),)


def secret_file(folder: Path, text: str) -> str:
    path = folder / "secret"
    path.touch(0o600)
    path.write_text(text)
    return str(path)
