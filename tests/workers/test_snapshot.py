"""What goes from a worker to the supervisor, there and back."""

import json

import attrs
from hypothesis import given

from derp.http.bootstrap_dns import BootstrapDNS, Record
from derp.metrics import Certificate, DropReason, Gauges, Histogram, Metrics, render
from derp.workers.snapshot import Snapshot, dump, load
from stun.server import Stats
from tests.workers.snapshots import any_share, gauges, snapshot


def through_json(sent: Snapshot) -> Snapshot:
    return load(json.loads(json.dumps(dump(sent))))


@given(any_share())
def test_a_share_goes_there_and_back(sent: Snapshot) -> None:
    received = through_json(sent)
    assert dump(received) == dump(sent)
    assert render(received.metrics, received.gauges, received.stun, received.names) == render(
        sent.metrics, sent.gauges, sent.stun, sent.names
    )
    for field in attrs.fields(Metrics):
        before, after = getattr(sent.metrics, field.name), getattr(received.metrics, field.name)
        if isinstance(before, Histogram):
            assert (before.bounds, before.counts, before.sum) == (
                *(after.bounds, after.counts),
                after.sum,
            )
        else:
            assert before == after
    for field in attrs.fields(Snapshot):
        if field.name not in {"metrics", "links"}:
            assert getattr(received, field.name) == getattr(sent, field.name)
    assert list(received.links) == list(sent.links)


def test_what_arrives_can_be_counted_on() -> None:
    received = through_json(snapshot()).metrics
    received.drop(DropReason.QUEUE_HEAD, disco=True, packets=1, nbytes=2)
    received.buffered_write_frames.observe(1000)
    received.ended(None)
    assert received.packets_dropped[DropReason.QUEUE_HEAD, True] == 1
    assert received.buffered_write_frames.cumulative()[-1] == ("+Inf", 1)


def test_it_is_no_copy_that_goes_on_counting() -> None:
    sent = snapshot()
    received = load(dump(sent))
    sent.metrics.buffered_write_frames.observe(1)
    sent.metrics.ended(None)
    assert received.metrics.buffered_write_frames.cumulative()[-1] == ("+Inf", 0)
    assert received.metrics.connection_ends["closed"] == 0


def test_every_field_goes_along() -> None:
    """Whoever adds one sees to it here and in `load`, and says in `merge` how it is added."""
    found = dump(snapshot())
    assert found.keys() == {field.name for field in attrs.fields(Snapshot)}
    assert found["metrics"].keys() == {field.name for field in attrs.fields(Metrics)}
    names = {field.name for field in attrs.fields(Gauges)}
    assert found["gauges"].keys() == names - {"certificates"}
    assert found["stun"].keys() == {field.name for field in attrs.fields(Stats)}


def test_of_certificates_and_names_nothing_goes_along() -> None:
    names = BootstrapDNS(requests=3)
    names.publish("login.example", Record(("192.0.2.1",)))
    one = Certificate(
        name="secret.example",
        not_after=0,
        replaced=0,
        replaced_at=0,
        failures=0,
        failed_at=0,
    )
    sent = snapshot(names=names, gauges=gauges(certificates=[one]))
    assert "example" not in json.dumps(dump(sent))
    received = through_json(sent)
    assert received.names == BootstrapDNS(requests=3)
    assert received.gauges.certificates == ()
