"""Measures the relay's image beside one that is built and used as derper-docker's is.

    python -m tests.container.beside [--runs N]       (nox -s image)

Both stand on the same base, and the Go derper is built as derper-docker builds it, with the
compiler's defaults. What is printed, as a table:

    image                   all layers, unpacked
    above the base          what the image adds to it, unpacked and as it is fetched (gzip)
    to the first answer     from the moment at which podman is told to start a container that has
                            been made, until STUN answers at the published port, and until a TLS
                            handshake succeeds there; the median of N starts
    memory                  of all processes in the container, when nobody is connected: what is
                            resident, and what of that is not shared (proc(5), smaps_rollup)

Both serve the same certificate, from files. The base is the one that the tests use.
"""

import argparse
import gzip
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import trustme

from tests.container import images
from tests.container import podman as containers
from tests.container.contents import certificate
from tests.container.podman import STUN, Container, Dock, Podman, new_name
from tests.interop import golang
from tests.interop.relay import TestCA
from tests.interop.scenarios_stun import USUAL, with_transaction

NAME = "derp.example.com"
PATIENCE = 60.0


class Figures:
    """What was measured of one image."""

    def __init__(self) -> None:
        self.size = 0
        self.added = 0
        self.fetched = 0
        self.stun: list[float] = []
        self.tls: list[float] = []
        self.podman: list[float] = []
        self.resident: list[int] = []
        self.own: list[int] = []


def measure_size(podman: Podman, image: str, base: str, figures: Figures) -> None:
    figures.size = int(podman.inspect(image, "image")["Size"])
    figures.added = figures.size - int(podman.inspect(base, "image")["Size"])
    count = len(images.layers_above(podman, image, base))
    with tempfile.TemporaryDirectory(prefix="derper-test-", dir="/var/tmp") as folder:
        archive = Path(folder) / "image.tar"
        podman.do("save", "--format=docker-archive", "--output", str(archive), image, timeout=300)
        with tarfile.open(archive) as saved:
            manifest = saved.extractfile("manifest.json")
            assert manifest
            (one,) = json.load(manifest)
            for layer in one["Layers"][-count:]:
                content = saved.extractfile(layer)
                assert content
                figures.fetched += len(gzip.compress(content.read(), 6))


def measure_start(dock: Dock, image: str, certs: str, figures: Figures) -> None:
    """Start a container once, and look at it while nobody is connected."""
    container = dock.create(
        f"--volume={certs}:/app/certs",
        image=image,
        DERP_DOMAIN=NAME,
        DERP_CERT_MODE="manual",
    )
    began = time.monotonic()
    with ThreadPoolExecutor(2) as pool:
        stun = pool.submit(until_answered, lambda: asks_stun(container))
        tls = pool.submit(until_answered, lambda: bool(container.shake(NAME)))
        dock.podman.do("start", container.name)
        figures.podman.append(time.monotonic() - began)
        figures.stun.append(stun.result() - began)
        figures.tls.append(tls.result() - began)
    resident = own = 0
    for pid in dock.podman.do("top", container.name, "hpid").split()[1:]:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        sizes = {
            name: int(kib) for name, kib in re.findall(r"^(\w+): +(\d+) kB$", rollup, re.MULTILINE)
        }
        resident += sizes["Rss"]
        own += sizes["Private_Clean"] + sizes["Private_Dirty"]
    figures.resident.append(resident)
    figures.own.append(own)
    container.remove()


def until_answered(ask: Callable[[], bool]) -> float:
    """When it first answered."""
    deadline = time.monotonic() + PATIENCE
    while not ask():
        if time.monotonic() > deadline:
            raise SystemExit(f"beside: no answer in {PATIENCE} s")
        time.sleep(0.005)
    return time.monotonic()


def asks_stun(container: Container) -> bool:
    """Whether STUN answers within a few milliseconds; another question may be luckier."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(0.02)
        try:
            sock.connect(("127.0.0.1", container.ports[STUN]))
            sock.send(with_transaction(USUAL, time.monotonic_ns()))
            return bool(sock.recv(1500))
        except OSError:
            return False


def table(ours: Figures, theirs: Figures) -> list[str]:
    """Markdown."""

    def megabytes(size: float) -> str:
        return f"{size / 1e6:.1f} MB"

    def seconds(times: Sequence[float]) -> str:
        return f"{statistics.median(times):.2f} s"

    def kibibytes(sizes: Sequence[int]) -> str:
        return f"{statistics.median(sizes) / 1024:.0f} MiB"

    rows: list[tuple[str, Callable[[Figures], str]]] = [
        ("image, unpacked", lambda it: megabytes(it.size)),
        ("above the base, unpacked", lambda it: megabytes(it.added)),
        ("above the base, fetched (gzip)", lambda it: megabytes(it.fetched)),
        ("to the first STUN answer", lambda it: seconds(it.stun)),
        ("to the first TLS handshake", lambda it: seconds(it.tls)),
        ("of which podman has the container started after", lambda it: seconds(it.podman)),
        ("resident memory, idle", lambda it: kibibytes(it.resident)),
        ("of which not shared", lambda it: kibibytes(it.own)),
    ]
    lines = ["| | ours | like derper-docker, with the Go derper |", "|---|---|---|"]
    return lines + [f"| {name} | {show(ours)} | {show(theirs)} |" for name, show in rows]


def build_go_derper(folder: Path) -> Path:
    """With the compiler's defaults, where the tests leave out what they don't need."""
    binary = folder / "derper"
    subprocess.run(
        [golang.find_go(), "build", "-o", binary, "tailscale.com/cmd/derper"],
        cwd=golang.HERE,
        env=golang.go_environment(),
        timeout=golang.BUILD_TIMEOUT,
        check=True,
    )
    return binary


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the image beside derper-docker's.")
    parser.add_argument("--runs", type=int, default=5, help="how often each is started")
    runs = parser.parse_args().runs
    try:
        podman, base = images.find()
        go = golang.find_go()
    except (containers.NoPodmanError, images.WrongBaseError, golang.NoGoError) as error:
        sys.exit(f"beside: {error}")
    tags = [f"localhost/{new_name()}:{what}" for what in ("ours", "theirs")]
    results = [Figures(), Figures()]
    with tempfile.TemporaryDirectory(prefix="derper-test-") as folder:
        derper = build_go_derper(Path(folder))
        try:
            images.build(podman, base, tags[0])
            images.build_derper_docker(podman, base, tags[1], derper)
            for tag, figures in zip(tags, results, strict=True):
                measure_size(podman, tag, base, figures)
            authority = TestCA(trustme.CA(key_type=trustme.KeyType.ECDSA), Path(folder) / "ca.pem")
            with containers.dock(podman, tags[0], {}) as dock:
                certs = dock.volume(certificate(authority, NAME))
                for number in range(runs + 1):
                    for tag, figures in zip(tags, results, strict=True):
                        # The first start of each fills the caches.
                        measure_start(dock, tag, certs, Figures() if number == 0 else figures)
        finally:
            images.remove(podman, tags)
    print("\n".join(table(*results)))
    version = podman.do("version", "--format", "podman {{.Client.Version}}").strip()
    print(f"\nMedian of {runs} starts; base {base}, {version}, {golang.go_version(go)}")
    print(f"{os.cpu_count()} CPUs, Linux {os.uname().release}, {os.uname().machine}")


if __name__ == "__main__":
    main()
