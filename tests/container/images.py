"""Finds a base image, or makes one, and builds the relay's image on it.

A base, in this order: what DERPER_TEST_BASE names; one that an earlier run made; the
Containerfile's default, if a registry has it; a Debian with Python from debootstrap, which is kept
in podman's storage as localhost/derper-test-base:bookworm.
"""

import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.container.podman import (
    BASE,
    PREFIX,
    TIMEOUT,
    NoPodmanError,
    Podman,
    PodmanError,
    installed,
    removal,
    working,
)
from tests.interop.relay import REPO, die_with_parent

CONTAINERFILE = REPO / "Containerfile"
MADE = "localhost/derper-test-base:bookworm"

PULL_TIMEOUT = 180
DEBOOTSTRAP_TIMEOUT = 600
BUILD_TIMEOUT = 600

TIMESTAMP = 946684800
"""Seconds: the date of everything in the image, so that it can be built a second time."""

CA_BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
"""Where it is in the base. A mount over what is there leaves no trace in the image."""


class WrongBaseError(Exception):
    """The base image that was asked for can't be had; says why."""


def find() -> tuple[Podman, str]:
    """Podman, with what it needs here, and a base image in which it works.

    Raises NoPodmanError where it does not work, and WrongBaseError.
    """
    podman = installed()
    try:
        found = base(podman)
    except PodmanError as error:
        raise NoPodmanError(str(error)) from None
    return working(podman, found), found


def base(podman: Podman) -> str:
    """An image to build on. Raises NoPodmanError, saying what was tried, and WrongBaseError."""
    if named := os.environ.get("DERPER_TEST_BASE"):
        if why := _pull(podman, named):
            raise WrongBaseError(f"DERPER_TEST_BASE={named}: there is no such image: {why}")
        return named
    if podman.has_image(MADE):
        return MADE
    default = default_base()
    trouble = [_pull(podman, default)]
    if not trouble[0]:
        return default
    trouble.append(_debootstrap(podman))
    if not trouble[1]:
        return MADE
    raise NoPodmanError(f"there is no base image; {'; '.join(trouble)}")


def default_base() -> str:
    """What the Containerfile builds on unless it is told otherwise."""
    found = re.search(r"^ARG BASE=(\S+)$", CONTAINERFILE.read_text(), re.MULTILINE)
    assert found, "the Containerfile has no ARG BASE"
    return found[1]


def _pull(podman: Podman, image: str) -> str:
    """Why the image can't be had; empty if it is there."""
    if podman.has_image(image):
        return ""
    try:
        pulled = podman.attempt("pull", "--quiet", image, timeout=PULL_TIMEOUT)
    except PodmanError as error:
        return str(error)
    if pulled.returncode == 0:
        return ""
    said = pulled.stderr.strip().splitlines() or ["it says nothing"]
    return f"`podman pull {image}` ended with {pulled.returncode}: {said[-1]}"


def _debootstrap(podman: Podman) -> str:
    """Why no base image can be made; empty if it is made."""
    if not shutil.which("debootstrap"):
        return "debootstrap is not installed"
    if os.geteuid() != 0:
        return "debootstrap wants root"
    print(f"making {MADE} with debootstrap, once", flush=True)
    try:
        with tempfile.TemporaryDirectory(prefix="derper-test-", dir="/var/tmp") as folder:
            return _make(podman, Path(folder))
    except (PodmanError, subprocess.SubprocessError, OSError) as error:
        return f"no {MADE} could be made: {error}"


def _make(podman: Podman, folder: Path) -> str:
    """Make the base in this folder; return debootstrap's words if it fails. Raises much else."""
    root = folder / "root"
    packages = "ca-certificates,python3,python3-venv"
    # Whatever it started or mounted is gone when it is.
    contained = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--"]
    command = ["debootstrap", "--variant=minbase", f"--include={packages}", "bookworm", str(root)]
    made = subprocess.run(
        [*contained, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=DEBOOTSTRAP_TIMEOUT,
        check=False,
        preexec_fn=die_with_parent,
    )
    if made.returncode:
        return f"debootstrap ended with {made.returncode}: {made.stdout[-500:].strip()}"
    shutil.rmtree(root / "var/cache/apt/archives")
    shutil.rmtree(root / "var/lib/apt/lists")
    archive = folder / "root.tar"
    subprocess.run(["tar", "-C", root, "-cf", archive, "."], timeout=TIMEOUT, check=True)
    podman.do("import", str(archive), MADE, timeout=TIMEOUT)
    return ""


def take_tree(folder: Path) -> None:
    """Copy what the image is built from, so that nobody changes it between two builds."""
    named = re.findall(r"^!(.+)$", (REPO / ".dockerignore").read_text(), re.MULTILINE)
    for name in ["Containerfile", ".dockerignore", *named]:
        source, target = REPO / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, target)


def build(podman: Podman, base: str, tag: str, tree: Path = REPO) -> str:
    """Build the relay's image; return its ID. Raises AssertionError."""
    return _build(podman, base, tag, *_pip(), str(tree))


def _build(podman: Podman, base: str, tag: str, *more: str) -> str:
    # A build works in containers named after its base, which stay if it is killed.
    name = f"{PREFIX}{os.getpid()}-{BASE}"
    alias = f"localhost/{name}:{BASE}"
    podman.do("tag", base, alias)
    arguments = ["--quiet", "--format=docker", "--network=host", "--layers=false"]
    arguments += [f"--timestamp={TIMESTAMP}", "--tag", tag, f"--build-arg=BASE={alias}"]
    try:
        return podman.do("build", *arguments, *more, timeout=BUILD_TIMEOUT).split()[-1]
    finally:
        for container in podman.containers():
            if container.startswith(f"{name}-working-container"):
                podman.attempt(*removal("container", container))
        podman.attempt(*removal("image", alias))


def _pip() -> list[str]:
    """What lets pip in the build use the index that pip uses here."""
    asked = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=True,
    )
    here = dict(re.findall(r"^(?:global|:env:)\.([\w-]+)='(.*)'$", asked.stdout, re.MULTILINE))
    arguments = []
    if index := here.get("index-url"):
        arguments.append(f"--build-arg=PIP_INDEX_URL={index}")
    if bundle := here.get("cert"):
        arguments += [f"--volume={bundle}:{CA_BUNDLE}:ro", f"--build-arg=PIP_CERT={CA_BUNDLE}"]
    return arguments


DERPER_DOCKER = """
ARG BASE
FROM $BASE
WORKDIR /app
COPY derper /app/derper
ENV DERP_DOMAIN your-hostname.com
ENV DERP_CERT_MODE letsencrypt
ENV DERP_CERT_DIR /app/certs
ENV DERP_ADDR :443
ENV DERP_STUN true
ENV DERP_STUN_PORT 3478
ENV DERP_HTTP_PORT 80
ENV DERP_VERIFY_CLIENTS false
ENV DERP_VERIFY_CLIENT_URL ""
RUN mkdir -p /app/certs
CMD {command}
"""
COMMAND = """
/app/derper --hostname=$DERP_DOMAIN --certmode=$DERP_CERT_MODE --certdir=$DERP_CERT_DIR
    --a=$DERP_ADDR --stun=$DERP_STUN --stun-port=$DERP_STUN_PORT --http-port=$DERP_HTTP_PORT
    --verify-clients=$DERP_VERIFY_CLIENTS --verify-client-url=$DERP_VERIFY_CLIENT_URL
"""


def build_derper_docker(podman: Podman, base: str, tag: str, derper: Path) -> str:
    """Build an image that is used as derper-docker's is, with the Go derper, on the same base."""
    containerfile = DERPER_DOCKER.format(command=" ".join(COMMAND.split()))
    with tempfile.TemporaryDirectory(prefix="derper-test-") as folder:
        shutil.copy(derper, Path(folder) / "derper")
        path = Path(folder) / "Containerfile"
        path.write_text(containerfile)
        return _build(podman, base, tag, "--file", str(path), folder)


def layers_above(podman: Podman, image: str, base: str) -> list[str]:
    """The digests of the layers that the image adds to its base."""
    ours, theirs = (podman.inspect(name, "image")["RootFS"]["Layers"] for name in (image, base))
    assert ours[: len(theirs)] == theirs, "the image does not stand on its base"
    added: list[str] = ours[len(theirs) :]
    return added


def names_in(podman: Podman, container: str) -> dict[str, tarfile.TarInfo]:
    """All that is in the file system of a container, by path."""
    packed = subprocess.run(
        podman.command("export", container), capture_output=True, timeout=TIMEOUT, check=True
    ).stdout
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        return {"/" + member.name.strip("./"): member for member in archive}


def remove(podman: Podman, tags: Sequence[str]) -> None:
    for tag in tags:
        podman.attempt("rmi", "--force", tag)
