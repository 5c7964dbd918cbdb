"""A program that sets records, called as certbot calls one."""

import threading
from pathlib import Path

import attrs
import pytest

from certs.dns01.budget import Budget
from certs.dns01.hook import Hook
from certs.dns01.record import Place, PlacedRecord, Record
from certs.errors import Failure, IssueError

pytestmark = pytest.mark.slow

PLACED = PlacedRecord(
    "-acme-dns-exec x",
    Record("a.example", "value"),
    Place("_acme-challenge.a.example", "example"),
    all_domains=("a.example", "b.example"),
    remaining=1,
)
VARIABLES = {"PATH": "/usr/bin:/bin", "MY_TOKEN": "hunter2-secret", "CERTBOT_AUTH_OUTPUT": "else's"}


@pytest.fixture
def budget() -> Budget:
    return Budget.of(60.0)


def program(folder: Path, body: str, name: str = "hook") -> Path:
    file = folder / name
    file.write_text(f"#!/bin/sh\n{body}\n")
    file.chmod(0o755)
    return file


def told(folder: Path) -> dict[str, str]:
    """What the program was told last."""
    words = (folder / "told").read_text().splitlines()
    return dict(word.split("=", 1) for word in words if "=" in word)


def test_it_is_told_what_certbot_tells(tmp_path: Path, budget: Budget) -> None:
    hook = Hook(
        program(
            tmp_path, f'env >{tmp_path}/told; echo "arguments=$*" >>{tmp_path}/told; echo " id 7 "'
        ),
        None,
        VARIABLES,
    )
    assert hook.set(PLACED, budget) == "id 7"
    certbot = {name: value for name, value in told(tmp_path).items() if name.startswith("CERTBOT")}
    expected = {
        "CERTBOT_DOMAIN": "a.example",
        "CERTBOT_IDENTIFIER": "a.example",
        "CERTBOT_VALIDATION": "value",
        "CERTBOT_ALL_DOMAINS": "a.example,b.example",
        "CERTBOT_ALL_IDENTIFIERS": "a.example,b.example",
        "CERTBOT_REMAINING_CHALLENGES": "1",
    }
    assert certbot == expected
    assert told(tmp_path)["arguments"] == "auth"
    assert told(tmp_path)["MY_TOKEN"] == "hunter2-secret"
    hook.remove(attrs.evolve(PLACED, output="id 7"), budget)
    certbot = {name: value for name, value in told(tmp_path).items() if name.startswith("CERTBOT")}
    assert certbot == expected | {"CERTBOT_AUTH_OUTPUT": "id 7"}
    assert told(tmp_path)["arguments"] == "cleanup"


def test_two_programs_get_no_argument(tmp_path: Path, budget: Budget) -> None:
    one = program(tmp_path, f'echo "one=$#" >{tmp_path}/told', "one")
    two = program(tmp_path, f'echo "two=$#" >{tmp_path}/told', "two")
    hook = Hook(one, two, VARIABLES)
    hook.set(PLACED, budget)
    assert told(tmp_path) == {"one": "0"}
    hook.remove(PLACED, budget)
    assert told(tmp_path) == {"two": "0"}


def complaint(hook: Hook, budget: Budget, failure: Failure) -> str:
    with pytest.raises(IssueError) as caught:
        hook.set(PLACED, budget)
    assert caught.value.failure is failure
    message = str(caught.value)
    assert message.isprintable()
    return message


def test_one_that_fails_is_quoted_without_secrets(tmp_path: Path, budget: Budget) -> None:
    body = 'echo "first"; echo "no $MY_TOKEN here\a" >&2; echo >&2; exit 4'
    hook = Hook(program(tmp_path, body), None, VARIABLES)
    assert complaint(hook, budget, Failure.REFUSED) == (
        f"-acme-dns-exec {tmp_path}/hook: auth for a.example ended with status 4: 'no … here?'; "
        f"run it by hand with CERTBOT_DOMAIN and CERTBOT_VALIDATION, and mend what it says"
    )


def test_one_that_does_not_end(tmp_path: Path) -> None:
    hook = Hook(program(tmp_path, "sleep 3600"), None, VARIABLES)
    message = complaint(hook, Budget.of(0.5), Failure.TRANSIENT)
    assert "auth for a.example did not end within 0 s; have it end" in message.replace("1 s", "0 s")


def test_one_that_can_t_be_started(tmp_path: Path, budget: Budget) -> None:
    hook = Hook(tmp_path / "none", None, VARIABLES)
    message = complaint(hook, budget, Failure.TRANSIENT)
    assert message.startswith(f"-acme-dns-exec {tmp_path}/none can't be started (No such file")


def test_an_order_that_is_given_up_ends_it(tmp_path: Path) -> None:
    stop = threading.Event()
    hook = Hook(program(tmp_path, f"touch {tmp_path}/began; sleep 3600"), None, VARIABLES)
    errors = []

    def order() -> None:
        try:
            hook.set(PLACED, Budget.of(3600.0, stop))
        except IssueError as error:
            errors.append(error)

    thread = threading.Thread(target=order)
    thread.start()
    stop.set()
    thread.join(60.0)
    assert not thread.is_alive()
    assert str(errors[0]) == "the order was given up"


def test_much_output_is_cut(tmp_path: Path, budget: Budget) -> None:
    hook = Hook(program(tmp_path, "yes | head -c 1000000"), None, VARIABLES)
    assert len(hook.set(PLACED, budget)) < 70000
