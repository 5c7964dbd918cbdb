"""derper keys; and derper allow and deny where no relay runs, or may not write the list."""

import io
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from derp.admission.allowlist import parse as parse_list
from derp.cli import keyfiles, keys, procfs, tailnetstatus
from derp.files import rewrite
from derp.wire.control import MAX_REQUEST, Request
from derp.wire.keys import node_public_text
from tests.cli.controlled import relay

Run = Callable[..., tuple[int, str, str]]
A, B, C = (bytes([number]) * 32 for number in (1, 2, 3))
KA, KB, KC = map(node_public_text, (A, B, C))
TOLD = keyfiles.NOBODY_TOLD


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(procfs, "relay_of_container", lambda: 0)
    monkeypatch.setattr(rewrite, "SETTLED_AFTER", 0.0)


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    path = tmp_path / "nodekeys"
    path.write_text(f"# the office\n{KA} printer # old\n")
    return path


@pytest.fixture
def socket(tmp_path: Path) -> Path:
    return tmp_path / "derper.sock"


def status(**changes: Any) -> dict[str, Any]:
    """What tailscale status --json prints, in part."""
    peer = {"PublicKey": KB, "HostName": "The #1 Phone", "DNSName": "phone.tail1.ts.net."}
    own = {"PublicKey": KA, "HostName": "srv", "DNSName": ""}
    return {"BackendState": "Running", "Self": own, "Peer": {KB: peer}} | changes


def pipe(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))


class TestWithoutARelay:
    def test_a_list_is_edited(self, run: Run, listed: Path, socket: Path) -> None:
        where = ("-verify-client-file", str(listed), "-control-socket", str(socket))
        assert run("allow", KB, "my", "laptop", *where) == (
            0,
            f"{KB} is allowed, which stands in {listed} now; {TOLD}\n",
            "",
        )
        assert listed.read_text() == f"# the office\n{KA} printer # old\n{KB}  my laptop\n"
        assert run("deny", "printer", *where) == (
            0,
            f"{KA} is no longer in {listed}; {TOLD}\n",
            "",
        )
        assert listed.read_text() == f"# the office\n# old\n{KB}  my laptop\n"
        assert run("keys", *where)[1] == f"allowed {KB} file my laptop\n1 key, 0 of them denied\n"

    def test_a_list_is_made(self, run: Run, tmp_path: Path, socket: Path) -> None:
        new = tmp_path / "new"
        where = ("-verify-client-file", str(new), "-control-socket", str(socket))
        assert run("allow", KA, *where)[0] == 0
        assert parse_list(new.read_text()) == {A: ""}

    def test_a_policy_goes_first(
        self, run: Run, listed: Path, socket: Path, tmp_path: Path
    ) -> None:
        policy = tmp_path / "policy.toml"
        policy.write_text("[defaults]\n")
        where = ("-verify-client-file", str(listed), "-policy", str(policy))
        where += ("-control-socket", str(socket))
        assert f"which stands in {policy} now" in run("deny", "printer", "old one", *where)[1]
        assert policy.read_text().endswith('deny = true\nlabel = "old one"\n')
        assert "printer" in listed.read_text()
        code, out, _ = run("keys", "-json", *where)
        assert code == 0
        assert [json.loads(line) for line in out.splitlines()] == [
            {"key": KA, "label": "old one", "allowed": False, "source": "policy"},
            {"key": KA, "label": "printer", "allowed": True, "source": "file"},
        ]

    @pytest.mark.parametrize(
        ("words", "code", "message"),
        [
            (("allow", "nobody"), 1, "nobody: no client that is connected, and none that"),
            (("allow", KA, "a # b"), 2, "label 'a # b': want a label without #"),
            (("deny", KC), 1, f"{KC} is not in"),
            (("deny", KA), 1, "no other key is in"),
            (("keys", "-refused"), 1, "no such socket; start the relay"),
            (("keys", "-refused", "-from-status"), 2, "-from-status and -refused: want one"),
        ],
    )
    def test_what_is_wrong_is_one_line(
        self, run: Run, listed: Path, socket: Path, words: tuple[str, ...], code: int, message: str
    ) -> None:
        before = listed.read_bytes()
        where = ("-verify-client-file", str(listed), "-control-socket", str(socket))
        got, out, err = run(*words, *where)
        assert (got, out, len(err.splitlines())) == (code, "", 1)
        assert message in err
        assert listed.read_bytes() == before

    def test_without_a_file(self, run: Run, socket: Path) -> None:
        code, _, err = run("allow", KA, "-control-socket", str(socket))
        assert code == 1
        assert "no such socket" in err


class TestWithARelay:
    def test_the_command_writes_the_list_and_tells_the_relay(
        self, run: Run, listed: Path, socket: Path
    ) -> None:
        """The relay may not be allowed to write it."""

        def answer(request: dict[str, Any]) -> list[Any]:
            there = {"allow": B in parse_list(listed.read_text())}
            return [{"v": 1, "done": f"it is {there}", "ended": 0}]

        where = ("-verify-client-file", str(listed), "-control-socket", str(socket))
        with relay(socket, answer) as asked:
            assert run("allow", KB, "x", *where)[1] == "it is {'allow': True}\n"
            listed.write_text("nonsense")
            # The relay says what is wrong.
            listed.unlink()
            listed.mkdir()
        assert asked.asked == [{"v": 1, "do": "allow", "key": KB, "label": "x"}]

    def test_what_it_lists(self, run: Run, socket: Path) -> None:
        def answer(request: dict[str, Any]) -> list[Any]:
            row: dict[str, Any] = {"key": KA, "label": "phone"}
            if request["do"] == "keys":
                rows = [row | {"allowed": False, "source": "policy"}]
                rows.append({"key": KB, "label": "", "allowed": True, "source": "tailnet:x"})
                return [
                    {"v": 1, "keys": rows[:1], "more": True},
                    {"v": 1, "keys": rows[1:], "more": False},
                ]
            row |= {"count": 3, "last": time.time() - 61, "address": "192.0.2.7"}
            row |= {"source": "policy", "reason": "the key is denied"}
            one = row | {"key": KB, "count": 1, "label": ""}
            return [{"v": 1, "refused": [row, one], "more": False}]

        with relay(socket, answer):
            assert run("keys", "-control-socket", str(socket)) == (
                0,
                f"denied  {KA} policy    phone\nallowed {KB} tailnet:x\n2 keys, 1 of them denied\n",
                "",
            )
            code, out, _ = run("keys", "-refused", "-control-socket", str(socket))
            assert code == 0
            first, second = out.splitlines()
            assert first.startswith(
                f"{KA} 3 times, last 1m 1s ago from 192.0.2.7, phone, by policy"
            )
            assert second.startswith(f"{KB} once 1m 1s ago from 192.0.2.7, by policy: the key is")

    def test_nothing_to_list(self, run: Run, socket: Path) -> None:
        def answer(request: dict[str, Any]) -> list[Any]:
            return [{"v": 1, request["do"]: [], "more": False}]

        with relay(socket, answer):
            for flag, words in (("", "no key is allowed"), ("-refused", "no key was refused")):
                flags = [flag] if flag else []
                assert words in run("keys", *flags, "-control-socket", str(socket))[1]

    def test_the_refusals_of_a_worker_are_missing(self, run: Run, socket: Path) -> None:
        def answer(request: dict[str, Any]) -> list[Any]:
            return [{"v": 1, request["do"]: [], "more": False, "silent": [1]}]

        with relay(socket, answer):
            code, out, err = run("keys", "-refused", "-control-socket", str(socket))
        missing = "worker 1 did not answer, and its refusals are missing"
        assert (code, out, err) == (0, "", f"derper: keys: {missing}; run it again\n")


class TestFromStatus:
    def test_twice(
        self, run: Run, listed: Path, socket: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        where = ("-from-status", "-verify-client-file", str(listed), "-control-socket", str(socket))
        pipe(monkeypatch, json.dumps(status()))
        assert run("keys", *where) == (
            0,
            f"added {KB} phone\n1 key is added, 1 was in the list already; {TOLD}\n",
            "",
        )
        after = listed.read_text()
        # A label that somebody has given stays.
        assert after == f"# the office\n{KA} printer # old\n{KB}  phone\n"
        pipe(monkeypatch, json.dumps(status()))
        assert "0 keys are added, 2 were in the list already" in run("keys", *where)[1]
        # Nobody goes who is not named.
        pipe(monkeypatch, json.dumps(status(Peer={KC: {"PublicKey": KC}})))
        assert json.loads(run("keys", "-json", *where)[1]) == {"key": KC, "label": ""}
        assert listed.read_text() == f"{after}{KC}\n"

    def test_by_the_relay(self, run: Run, socket: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """In requests of a bounded size."""
        numbers = [node_public_text(number.to_bytes(32, "big")) for number in range(1, 200)]
        peers = {key: {"PublicKey": key, "HostName": "名" * 70} for key in numbers}
        pipe(monkeypatch, json.dumps(status(Peer=peers)))

        def answer(request: dict[str, Any]) -> list[Any]:
            return [{"v": 1, "done": "so", "added": [*request["keys"]]}]

        with relay(socket, answer) as asked:
            code, out, err = run("keys", "-from-status", "-control-socket", str(socket))
        assert (code, err) == (0, "")
        assert out.endswith("200 keys are added\n")
        assert len(asked.asked) > 10
        assert [key for each in asked.asked for key in each["keys"]] == [KA, *numbers]

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "this is no JSON; want the output of tailscale status --json"),
            ("100.64.0.1 srv", "this is no JSON"),
            ("[" * 100_000, "this is no JSON"),
            ("[]", "this is other JSON"),
            ("{}", "this is other JSON"),
            (
                json.dumps(status(BackendState="Stopped")),
                "in the state 'Stopped'; run tailscale up",
            ),
            (json.dumps(status(BackendState="NeedsLogin")), "in the state 'NeedsLogin'"),
            (json.dumps(status(Peer=None)), "it names no peer; leave out --peers=false"),
            (json.dumps(status(Peer={"x": {"PublicKey": 7}})), "a node in it has no PublicKey"),
        ],
    )
    def test_what_is_no_status(
        self,
        run: Run,
        listed: Path,
        socket: Path,
        monkeypatch: pytest.MonkeyPatch,
        text: str,
        message: str,
    ) -> None:
        before = listed.read_bytes()
        pipe(monkeypatch, text)
        where = ("-from-status", "-verify-client-file", str(listed), "-control-socket", str(socket))
        code, out, err = run("keys", *where)
        assert (code, out, len(err.splitlines())) == (1, "", 1)
        assert err.startswith("derper: -from-status: ")
        assert message in err
        assert listed.read_bytes() == before

    def test_a_status_without_end(
        self, run: Run, socket: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(keys, "MAX_STATUS", 1 << 20)
        pipe(monkeypatch, " " * ((1 << 20) + 1))
        code, _, err = run("keys", "-from-status", "-control-socket", str(socket))
        assert (code, "want at most" in err) == (1, True)

    def test_names(self) -> None:
        nodes = [
            {"PublicKey": KA, "HostName": "a", "DNSName": "b.c.ts.net."},
            {"PublicKey": KB, "HostName": " # \x1b[31mx ", "DNSName": f"nodenodekey:key:{KC}"},
            {"PublicKey": KC, "Expired": True},
            {"PublicKey": node_public_text(bytes(32))},
        ]
        peers = {str(number): node for number, node in enumerate(nodes)}
        found = tailnetstatus.parse(json.dumps(status(Self=None, Peer=peers)))
        assert found == {A: "b", B: "[31mx"}

    def test_batches_fit(self) -> None:
        many = {number.to_bytes(32, "big"): "名" * 64 for number in range(100)}
        parts = [*keys.batches(many)]
        assert sum(map(len, parts)) == 100
        assert all(len(Request("list", keys=part).to_line()) <= MAX_REQUEST for part in parts)
        assert [*keys.batches({})] == []
