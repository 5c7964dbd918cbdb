"""Pages that show the whole relay: two workers, asked by the supervisor, whom one of them asks."""

import json
import os
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import attrs
import pytest
import trio.testing

from certs.tasks.manager import Certificates
from certs.tasks.plan import CertificateSpec
from certs.tasks.status import Status
from derp.admission.checker import Checker
from derp.admission.policykeeper import policy_of
from derp.admission.refusals import Refusal
from derp.admission.sources import Sources
from derp.errors import RPCFailed
from derp.http.backend import Backend
from derp.http.bootstrap_dns import BootstrapDNS
from derp.http.liveview import SECTIONS, StatusRow
from derp.http.message import Later, Request, Response, Stream, parse_request
from derp.http.routes import route
from derp.mesh.keeper import Keeper
from derp.metrics import Metrics
from derp.net.listenaddress import Address
from derp.relay.hub import Hub
from derp.service.backend import make_backend
from derp.service.keybook import KeyBook
from derp.service.live import Live
from derp.service.running import RunningRelay
from derp.service.status import capture
from derp.session.state import RelayState
from derp.wire.keys import node_public_text
from derp.workers import clients
from derp.workers.merge import dump, load, merge
from derp.workers.pages import SupervisorPages, worker_handlers, worker_pages
from derp.workers.pool import WorkerPool, WorkerStatus
from derp.workers.rpc import Call, Handler, Json
from stun.stats import Stats
from tests.relays import Relay, running, with_mesh_key
from tests.service.resources import resources, running_relay
from tests.support.config import make_config
from tests.workers.snapshots import PROCESS, gauges, snapshot

CONFIG = make_config(dev=True, a=Address("127.0.0.1", 0), hostname="derp.example")
A, B = (bytes([n]) * 32 for n in (1, 2))
CONSISTENT = "derp.Server ConsistencyCheck okay"
Clock = trio.testing.MockClock


def values(text: str) -> dict[str, float]:
    """Read the page as Prometheus would: name and labels to value."""
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


REFUSED = bytes(32)
WHY = ("192.0.2.7", "tailscaled", "not known")


class Pool:
    """Workers that answer as they are set to; what is None does not answer."""

    def __init__(self, *handlers: dict[str, Handler] | None) -> None:
        self.handlers = list(handlers)
        self.status = [WorkerStatus(100 + number, 0, alive=True) for number in range(len(handlers))]

    def statuses(self) -> list[WorkerStatus]:
        return self.status

    async def call_all(self, what: str, body: Json = None) -> dict[int, Json]:
        await trio.lowlevel.checkpoint()
        return {
            number: json.loads(json.dumps(await handlers[what](body)))
            for number, handlers in enumerate(self.handlers)
            if handlers is not None and self.status[number].alive
        }

    @property
    def size(self) -> int:
        return len(self.handlers)

    async def call_one(self, index: int, what: str, body: Json = None) -> Json:
        answers = await self.call_all(what, body)
        return answers[index]

    def says(self, number: int, **changes: Any) -> None:
        """Have a worker say that; what it says is newer each time."""
        self.said = getattr(self, "said", 0.0) + 1
        fields = {"pid": self.status[number].pid, "taken": self.said} | changes
        self.handlers[number] = {
            "pages.snapshot": answering(dump(snapshot(**fields))),
            "pages.refused": answering([Refusal(REFUSED, 2, number, *WHY).to_json()]),
        }

    def finds(self, number: int, *problems: str) -> None:
        """Have a worker find that inconsistent. It is not to be asked for anything else."""
        self.handlers[number] = {"pages.check": answering(problems)}

    def dies(self, number: int, pid: int | None = None) -> None:
        self.status[number] = WorkerStatus(pid, self.status[number].restarts, alive=False)

    def restarts(self, number: int, pid: int) -> None:
        self.status[number] = WorkerStatus(pid, self.status[number].restarts + 1, alive=True)


def answering(answer: Json) -> Handler:
    async def handler(_: Json) -> Json:
        return answer

    return handler


def make(pool: Pool, **changes: Any) -> SupervisorPages:
    fields: dict[str, Any] = {"metrics": Metrics(), "checker": None, "certificates": None}
    fields |= {"book": KeyBook(policy_of(changes.get("checker")), changes.get("checker"))}
    return SupervisorPages(CONFIG, **(fields | changes), pool=cast("Any", pool))


async def varz(pages: SupervisorPages) -> dict[str, float]:
    return values(await pages.handlers["pages.varz"](None))


async def ask(pages: SupervisorPages, what: str) -> Any:
    return json.loads(json.dumps(await pages.handlers[f"pages.{what}"](None)))


class TestVarz:
    async def test_two_workers_are_added_up(self) -> None:
        pool = Pool(None, None)
        pool.says(0, metrics=Metrics(packets_sent=2))
        pool.says(1, metrics=Metrics(packets_sent=3), gauges=gauges(stun_success=4))
        found = await varz(make(pool))
        assert found["derp_packets_sent"] == 5
        assert found['stun_requests{disposition="success"}'] == 4
        assert found["derp_clients_local"] == 6
        assert found["derp_watchers"] == 2
        assert found["derper_workers"] == 2
        assert found["derper_worker_restarts"] == 0
        # The supervisor is a process, too.
        assert found["process_open_fds"] > 2 * PROCESS.open_fds
        assert found["process_cpu_seconds_total"] > 2 * PROCESS.cpu_seconds
        assert found["process_start_time_seconds"] != PROCESS.started
        assert found["goroutines"] > 40

    async def test_what_only_the_supervisor_has(self) -> None:
        metrics = Metrics()
        metrics.admission_verdict("refused")
        metrics.admission("url", "ok")
        pool = Pool(None)
        pool.says(0, metrics=Metrics())
        certificates = cast("Certificates", SimpleNamespace(statuses=[]))
        pages = make(pool, metrics=metrics, certificates=certificates)
        found = await varz(pages)
        assert found['derper_admission_verdicts{verdict="refused"}'] == 1
        assert found['derper_admissions{source="url",outcome="ok"}'] == 1
        # One that is ordered on demand comes later.
        certificates.statuses.append(status())
        assert (await varz(pages))['derper_certificate_failures{name="derp.example"}'] == 2

    async def test_without_any_worker_there_is_a_page(self) -> None:
        pool = Pool(None)
        found = await varz(make(pool))
        assert found["derp_packets_sent"] == 0
        pool.dies(0)
        assert (await varz(make(pool)))["derper_workers"] == 0

    async def test_a_worker_that_ends_takes_no_count_with_it(self) -> None:
        pool = Pool(None, None)
        pages = make(pool)
        current = {"gauges": gauges(current_connections=7)}
        pool.says(0, metrics=Metrics(accepts=1), **current)
        pool.says(1, metrics=Metrics(accepts=10), **current)

        async def figures() -> tuple[float, ...]:
            found = await varz(pages)
            names = ("derp_accepts", "derp_current_connections", "derp_clients_local")
            return tuple(found[name] for name in names)

        assert await figures() == (11, 14, 6)
        pool.dies(1, pid=101)
        assert await figures() == (11, 7, 3)
        pool.dies(1)
        assert await figures() == (11, 7, 3)
        pool.restarts(1, 201)
        pool.handlers[1] = None
        assert await figures() == (11, 7, 3)
        pool.says(1, metrics=Metrics(accepts=100), **current)
        assert await figures() == (111, 14, 6)
        # Twice between two looks.
        pool.restarts(1, 202)
        pool.restarts(1, 203)
        pool.says(1, metrics=Metrics(accepts=1000), **current)
        assert await figures() == (1111, 14, 6)
        for pid in range(300, 310):
            pool.restarts(1, pid)
            pool.says(1, metrics=Metrics(accepts=10_000), **current)
            await figures()
        assert await figures() == (101_111, 14, 6)
        found = await varz(pages)
        assert found["derper_workers"] == 2
        assert found["derper_worker_restarts"] == 13

    async def test_a_worker_that_is_late_is_taken_for_what_it_was(self) -> None:
        pool = Pool(None, None)
        pages = make(pool)
        pool.says(0)
        pool.says(1, metrics=Metrics(accepts=10), gauges=gauges(current_connections=7))
        before = await varz(pages)
        pool.handlers[1] = None
        after = await varz(pages)
        for name in ("derp_accepts", "derp_current_connections", "derp_clients_local"):
            assert after[name] == before[name]

    async def test_an_answer_that_others_have_overtaken_changes_nothing(self) -> None:
        """Several may ask at once; one's answers may wait for a worker that is slow."""
        pool = Pool(None)
        pages = make(pool)
        pool.says(0, metrics=Metrics(accepts=5), taken=10.0)
        await varz(pages)
        pool.restarts(0, 201)
        pool.says(0, metrics=Metrics(accepts=7), taken=20.0)
        assert (await varz(pages))["derp_accepts"] == 12
        pool.says(0, metrics=Metrics(accepts=4), taken=9.0, pid=100)
        assert (await varz(pages))["derp_accepts"] == 12
        pool.says(0, metrics=Metrics(accepts=8), taken=30.0)
        assert (await varz(pages))["derp_accepts"] == 13


def status() -> Status:
    certificate = CertificateSpec(("derp.example",), cast("Any", None))
    return Status(certificate, None, failures=2, failed_at=5.0, failure="said no")


def checker() -> Checker:
    made = Checker(Metrics(), Sources())
    made.troubles["url"] = "refused"
    return made


class TestRows:
    async def test_of_the_relay_and_each_worker(self) -> None:
        pool = Pool(None, None, None, None)
        links = [StatusRow("Mesh link to b", "none: not tried yet", "Mesh")]
        pool.says(0, gauges=gauges(current_connections=3), links=links)
        pool.says(1, gauges=gauges(current_connections=4))
        pool.restarts(2, 300)
        pool.restarts(2, 300)
        pool.dies(2)
        certificates = cast("Certificates", SimpleNamespace(statuses=[status()]))
        pages = make(pool, checker=checker(), certificates=certificates)
        found = await ask(pages, "rows")
        rows = {name: value for name, value, _ in found}
        assert len(rows) == len(found)
        sections = {name: section for name, _, section in found}
        assert sections["Worker 0"] == sections["Worker 3"] == "Workers"
        assert sections["Mesh link to b from worker 0"] == "Mesh"
        assert {*sections.values()} <= {*SECTIONS}
        assert rows["TLS hostname"] == "derp.example"
        assert rows["Clients"] == "7"
        # Two of the four have answered.
        assert rows["Queues"] == "6.0 of 64.0 MiB"
        assert rows["Uptime"] == "0 s"
        assert rows["Worker 0"] == "3 clients, process 100, restarts: 0"
        assert rows["Worker 1"] == "4 clients, process 101, restarts: 0"
        assert rows["Worker 2"] == "is being restarted, restarts: 2"
        assert rows["Worker 3"] == "does not answer, restarts: 0"
        assert rows["Mesh link to b from worker 0"] == "none: not tried yet"
        assert rows["Certificate"] == "derp.example"
        assert rows["Last failure"].endswith("said no")
        assert rows["Can't ask url"] == "refused"
        # Once, with what all workers have counted.
        assert rows[f"Refused {node_public_text(REFUSED)}"] == (
            "4 times, last 1970-01-01 00:00:01 UTC from 192.0.2.7: not known"
        )


class TestProblems:
    async def test_none(self) -> None:
        pool = Pool(None, None)
        pool.finds(0)
        pool.finds(1)
        assert await ask(make(pool), "problems") == []

    async def test_each_says_whose_it_is(self) -> None:
        pool = Pool(None, None, None, None)
        pool.finds(0, "one", "two")
        pool.finds(1)
        pool.dies(2)
        assert await ask(make(pool, checker=checker()), "problems") == [
            "worker 0: one",
            "worker 0: two",
            "worker 2: is being restarted",
            "worker 3: does not answer",
            "can't ask url who belongs: refused",
        ]


async def test_traffic_of_all_workers_tells_their_connections_apart() -> None:
    row = ["7f 1.5", A.hex(), 1, 2, 3]
    both = {"pages.traffic": answering([row])}
    assert await ask(make(Pool(both, both, None)), "traffic") == [
        ["0 7f 1.5", A.hex(), 1, 2, 3],
        ["1 7f 1.5", A.hex(), 1, 2, 3],
    ]


@attrs.define
class Whole:
    """A relay of two workers in one process."""

    relays: list[Relay]
    sites: list[Backend]
    pool: Pool
    workers: list[RunningRelay]

    async def page(self, path: str, *, worker: int) -> str:
        """Ask a worker for a page."""
        answer = route(self.sites[worker], request(path))
        assert isinstance(answer, Later)
        response = answer.show(await answer.ask())
        return response.body.decode()


def request(path: str, remote: str = "127.0.0.1") -> Request:
    return parse_request(b"GET", path.encode(), b"1.1", [(b"host", b"localhost")], remote)


@pytest.fixture
async def whole(autojump_clock: Clock) -> AsyncIterator[Whole]:
    async with AsyncExitStack() as stack:
        relays = [await stack.enter_async_context(running(with_mesh_key)) for _ in range(2)]
        pool = Pool(None, None)
        pool.status = [WorkerStatus(os.getpid(), 0, alive=True)] * 2
        handlers = make(pool).handlers | clients.WorkerClients(cast("WorkerPool", pool)).handlers

        async def call(what: str, body: Json) -> Json:
            return json.loads(json.dumps(await handlers[what](body)))

        workers = [running_relay(CONFIG, relay.state) for relay in relays]
        for number, worker in enumerate(workers):
            worker.state.become_worker(number, bytes(32))
            pool.handlers[number] = worker_handlers(worker) | clients.worker_handlers(worker.state)
        yield Whole(relays, [source_of(worker, call) for worker in workers], pool, workers)


def source(state: RelayState, call: Call) -> Backend:
    return source_of(running_relay(CONFIG, state), call)


def source_of(relay: RunningRelay, call: Call) -> Backend:
    pages = worker_pages(call, 2)
    return make_backend(relay, pages, Live(relay, pages))


async def lost_call(_: str, __: Json) -> Json:
    raise RPCFailed("gone")


class TestWorker:
    async def test_each_shows_the_whole_relay(self, whole: Whole) -> None:
        one = await whole.relays[0].login()
        two = await whole.relays[1].login()
        await whole.relays[1].login()
        await one.ping()
        await two.ping()
        pages = [values(await whole.page("/debug/varz", worker=n)) for n in (0, 1)]
        for name in ("derp_accepts", "derp_current_connections", "derp_clients_local"):
            assert [page[name] for page in pages] == [3, 3]
        assert pages[0]["derp_got_ping"] == 2
        for n in (0, 1):
            found = json.loads(await whole.page("/debug/vars", worker=n))
            assert (found["derp"]["accepts"], found["derp"]["got_ping"]) == (3, 2)
            assert found["gauge_derper_workers"] == 2
        for n in (0, 1):
            index = await whole.page("/debug/", worker=n)
            assert "<b>Clients:</b> 3</li>" in index
            assert f"<b>Worker 1:</b> 2 clients, process {os.getpid()}" in index
            assert await whole.page("/debug/check", worker=n) == CONSISTENT

    async def test_each_lists_all_clients_and_adds_up_their_traffic(self, whole: Whole) -> None:
        here, there = [await relay.login() for relay in whole.relays]
        for second, moved in ((0, 0), (1, 1000), (2, 3000)):
            for worker in whole.workers:
                worker.history.sample(second, moved, moved * 2)
        # The second worker is late.
        whole.workers[0].history.sample(3, 9000, 9000)
        for n in (0, 1):
            page = await whole.page("/debug/", worker=n)
            for number, client in enumerate((here, there)):
                key = f"nodekey:{client.key.hex()}"
                (row,) = re.findall(rf'<tr[^>]* data-key="{key}">.*</tr>', page)
                assert f"<small>worker {number}</small>" in row
            assert '<dd id="from">32.0 kbit/s</dd>' in page
            assert '<dd id="to">64.0 kbit/s</dd>' in page

    async def test_what_is_inconsistent_in_one_is_shown_by_all(self, whole: Whole) -> None:
        client = await whole.relays[1].login()
        member = whole.relays[1].hub.active.pop(client.key)
        for n in (0, 1):
            page = await whole.page("/debug/check", worker=n)
            assert page.startswith("worker 1: 1 keys are connected or active")
        whole.relays[1].hub.active[client.key] = member

    async def test_traffic_is_that_of_all(self, whole: Whole) -> None:
        one, two = [await relay.login() for relay in whole.relays]
        answer = route(whole.sites[0], request("/debug/traffic"))
        assert isinstance(answer, Stream)
        # Over memory no bytes are known, so that there is nothing to show yet.
        async with aclosing(answer.chunks()) as chunks:
            assert await anext(chunks) == b"\n"
        rows = [
            row for found in (await whole.pool.call_all("pages.traffic")).values() for row in found
        ]
        assert {row[1] for row in rows} == {one.key.hex(), two.key.hex()}

    async def test_lines_of_traffic(self) -> None:
        async def call(what: str, _: Json) -> Json:
            assert what == "pages.traffic"
            return [["0 1", A.hex(), 1, 2, 3], ["1 1", B.hex(), 0, 0, 0]]

        async with (
            running() as relay,
            aclosing(source(relay.state, call).traffic()) as chunks,
        ):
            [line, _] = (await anext(chunks)).split(b"\n", 1)
        key = f"nodekey:{A.hex()}"
        assert json.loads(line) == {"Sent": 1, "Recv": 2, "Key": key, "UniqueSenders": 3}

    async def test_strangers_are_refused_and_nobody_is_asked(self, whole: Whole) -> None:
        whole.pool.handlers = []
        for page in ("", "vars", "varz", "check", "traffic"):
            answer = route(whole.sites[0], request(f"/debug/{page}", remote="192.0.2.7"))
            assert isinstance(answer, Response)
            assert answer.status == 403

    async def test_the_rest_is_that_of_a_relay(self) -> None:
        async with running() as relay:
            site = source(relay.state, lost_call)
            assert site.public_key == relay.state.public_key
            assert (site.hostname, site.challenges) == ("derp.example", None)
            answer = route(site, request("/derp/probe", remote="192.0.2.7"))
            assert isinstance(answer, Response)
            assert answer.status == 200
            stream = route(site, request("/debug/traffic"))
            assert isinstance(stream, Stream)
            async with aclosing(stream.chunks()) as chunks:
                with pytest.raises(RPCFailed):
                    await anext(chunks)


async def test_challenges_are_shown_where_certificates_are_ordered() -> None:
    challenges = {"a": "b"}
    contexts = SimpleNamespace(http_challenges=challenges)
    prepared = resources(certificates=cast("Certificates", SimpleNamespace(contexts=contexts)))
    pages = worker_pages(lost_call, 2)
    async with running() as relay:
        for mode, expected in (("letsencrypt", challenges), ("manual", None)):
            config = make_config(
                hostname="derp.example", certmode=mode, certdir=Path("/c"), dev=True
            )
            made = running_relay(config, relay.state, resources=prepared)
            live = Live(made, pages)
            assert make_backend(made, pages, live).challenges is expected


async def test_a_snapshot_of_a_real_process(autojump_clock: Clock) -> None:
    async with running(with_mesh_key) as relay:
        client = await relay.login()
        await relay.login(key=client.private)
        link = Keeper(relay.state, "b.example", cast("Any", None))
        names = BootstrapDNS(requests=2)
        process = running_relay(
            CONFIG, relay.state, stun_stats=Stats(success=1), bootstrap_dns=names, links=[link]
        )
        found = load(json.loads(json.dumps(dump(capture(process)))))
        assert found.pid == os.getpid()
        assert found.repeated == {client.key: 2}
        assert found.gauges.current_connections == 2
        assert found.gauges.current_dup_client_conns == 2
        assert found.links == [("Mesh link to b.example", "none: not tried yet", "Mesh")]
        assert (found.gauges.stun_success, found.gauges.bootstrap_dns_requests) == (1, 2)
        assert capture(process).taken > found.taken


def with_workers(state: RelayState) -> None:
    state.become_worker(0, bytes(32))


NEWER = 2**95
"""A claim that is higher than any of a clock."""


@pytest.mark.parametrize("claim", [1, NEWER], ids=["active here", "yielded"])
async def test_keys_that_another_worker_has_as_well_are_repeated(
    claim: int, autojump_clock: Clock
) -> None:
    async with running(with_workers) as relay:
        once, twice, _ = [await relay.login() for _ in range(3)]
        await relay.login(key=twice.private)
        link = cast("Any", object())
        for key in (once.key, twice.key, B):
            relay.hub.add_claim(key, link, claim)
        assert (once.key in relay.hub.passive) is (claim == NEWER)
        found = capture(running_relay(CONFIG, relay.state))
        assert found.repeated == {once.key: 1, twice.key: 2}
        for key in (once.key, twice.key, B):
            relay.hub.remove_claim(key, link)


async def test_a_connection_at_each_of_two_workers_makes_one_key_of_two_connections(
    autojump_clock: Clock,
) -> None:
    async with running(with_workers) as one, running(with_workers) as other:
        client = await one.login()
        await other.login(key=client.private)
        link = cast("Any", object())
        one.hub.add_claim(client.key, link, NEWER)
        other.hub.add_claim(client.key, link, 1)
        whole = merge([capture(running_relay(CONFIG, relay.state)) for relay in (one, other)])
        found = whole.gauges
        assert (found.current_dup_client_keys, found.current_dup_client_conns) == (1, 2)
        for relay in (one, other):
            relay.hub.remove_claim(client.key, link)


async def test_a_snapshot_costs_no_check(
    autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running() as relay:
        checks: list[Hub[Any, Any, Any]] = []
        monkeypatch.setattr(Hub, "check", lambda hub: checks.append(hub) or ["wrong"])
        handlers = worker_handlers(running_relay(CONFIG, relay.state))
        await handlers["pages.snapshot"](None)
        assert checks == []
        assert await handlers["pages.check"](None) == ["wrong"]
        monkeypatch.undo()
