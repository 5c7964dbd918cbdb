"""The diffs in CONTRIBUTING.md, which show how to add things, apply to the tree, and work."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DIFFS = re.findall(r"```diff\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text("utf-8"), re.DOTALL)


def test_there_are_diffs() -> None:
    assert len(DIFFS) == 4


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
@pytest.mark.parametrize("diff", DIFFS, ids=["flag", "gauge", "page", "source"])
def test_it_applies(diff: str) -> None:
    done = subprocess.run(
        ["git", "apply", "--check", "-C1", "-"],
        input=diff,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


TRIED = """
from pathlib import Path

import attrs
import trio

import derp
from derp.admission.make import make_checker
from derp.admission.model import Question
from derp.http.message import parse_request
from derp.http.routes import route
from derp.metrics import Gauges, Metrics, Process, render_varz
from tests.http.sites import make_backend
from tests.support.config import make_config

assert Path(derp.__file__).parents[1] == Path.cwd(), "it runs what the diffs have changed"

assert make_config(dev=True, a=":8080", summary_every=3.0).limits.summary_every == 3.0

process = Process(**{field.name: 0 for field in attrs.fields(Process)})
gauges = Gauges(
    version="1", started=0.0, uptime=1.0, tasks=1, process=process, unverified_clients=7
)
assert "derper_unverified_clients 7" in render_varz(Metrics(), gauges).splitlines()

asked = parse_request(b"GET", b"/debug/key", b"1.1", [(b"host", b"derp.example")], "127.0.0.1")
assert route(make_backend(), asked).body == bytes(range(32)).hex().encode() + b"\\n"

config = make_config(dev=True, a=":8080", verify_client_addr="192.0.2.0/24")
checker = make_checker(config, Metrics())
asked = [Question(bytes(32), host) for host in ("192.0.2.1", "::1")]


async def ask():
    async with trio.open_nursery() as nursery:
        checker.ask_in(nursery)
        return [(await checker.admit(each)).admitted for each in asked]


assert trio.run(ask) == [True, False]
"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_all_of_them_together_work(tmp_path: Path) -> None:
    for name in ("derp", "certs", "stun"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("http", "support"):
        shutil.copytree(ROOT / "tests" / name, tmp_path / "tests" / name)
    for name in ("README.md", "README.zh-CN.md"):
        shutil.copy(ROOT / name, tmp_path)
    for diff in DIFFS:
        apply = ["git", "apply", "-C1", "-"]
        subprocess.run(apply, input=diff, cwd=tmp_path, text=True, check=True)
    done = subprocess.run(
        [sys.executable, "-P", "-c", f"import sys; sys.path.insert(0, '.')\n{TRIED}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
