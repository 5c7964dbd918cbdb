"""Snapshots as JSON, from a worker to the supervisor."""

import json

import attrs
from hypothesis import given

from derp.metrics import Certificate, DropReason, Gauges, Histogram, Metrics, render_varz
from derp.service.status import Snapshot
from derp.workers.merge import dump, load
from tests.workers.snapshots import any_snapshot, gauges, snapshot


def through_json(sent: Snapshot) -> Snapshot:
    return load(json.loads(json.dumps(dump(sent))))


@given(any_snapshot())
def test_a_snapshot_is_the_same_on_the_other_side(sent: Snapshot) -> None:
    received = through_json(sent)
    assert dump(received) == dump(sent)
    assert render_varz(received.metrics, received.gauges) == render_varz(sent.metrics, sent.gauges)
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
    found = dump(snapshot())
    assert found.keys() == {field.name for field in attrs.fields(Snapshot)}
    assert found["metrics"].keys() == {field.name for field in attrs.fields(Metrics)}
    names = {field.name for field in attrs.fields(Gauges)}
    assert found["gauges"].keys() == names - {"certificates"}


def test_certificates_stay_behind() -> None:
    one = Certificate(
        name="secret.example", not_after=0, replaced=0, replaced_at=0, failures=0, failed_at=0
    )
    sent = snapshot(gauges=gauges(certificates=[one]))
    assert "example" not in json.dumps(dump(sent))
    assert through_json(sent).gauges.certificates == ()
