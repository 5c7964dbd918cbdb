"""What a relay says of the keys that it knows."""

from pathlib import Path
from typing import cast

from derp.admission.allowlist import AllowList
from derp.admission.checker import Checker
from derp.admission.devicelist import DeviceList
from derp.admission.policysource import PolicySource
from derp.admission.sources import Sources
from derp.devices.model import Devices
from derp.metrics import Metrics
from derp.policy.change import Change
from derp.policy.model import Entry, Policy
from derp.service.keybook import BY_COMMAND, KeyBook, KeyStatus

A, B, C, D = (bytes([number]) * 32 for number in range(4))
POLICY = Policy({A: Entry("stolen", allowed=False), B: Entry("mine"), C: Entry(allowed=True)})


def book() -> KeyBook:
    listed = AllowList(Path("nodekeys"), {A: "phone", C: "printer", D: ""})
    devices = DeviceList(
        "tailnet:x", cast("DeviceList", None), 60.0, devices=Devices({B: 20.0, D: 5.0}, 0.0)
    )
    devices.wall = lambda: 10.0
    sources = Sources(allowlist=listed, devices=[devices])
    return KeyBook(PolicySource(Path("policy"), POLICY), Checker(Metrics(), sources))


def test_each_source_says_what_it_says_in_the_order_that_counts() -> None:
    made = book()
    made.source.change(Change(D, allowed=True), None)
    assert [*made.statuses()] == [
        KeyStatus(A, "stolen", False, "policy"),
        KeyStatus(C, "printer", True, "policy"),
        KeyStatus(D, "", True, BY_COMMAND),
        KeyStatus(A, "stolen", True, "file"),
        KeyStatus(C, "printer", True, "file"),
        KeyStatus(D, "", True, "file"),
        # D has expired there.
        KeyStatus(B, "mine", True, "tailnet:x"),
    ]


def test_the_policys_label_goes_first() -> None:
    made = book()
    assert made.labels() == {A: "stolen", B: "mine", C: "printer", D: ""}
    assert [made.label_of(key) for key in (A, B, C, D, bytes([9]) * 32)] == [
        *("stolen", "mine", "printer", "", ""),
    ]


def test_without_anything() -> None:
    made = KeyBook(PolicySource(None, Policy()))
    assert [*made.statuses()] == []
    assert made.labels() == {}
    assert made.label_of(A) == ""
