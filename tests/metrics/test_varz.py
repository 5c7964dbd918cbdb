"""The page beside the Go derper's: `varz_go.txt` is what version 1.102.5 of it shows, without
the values, after TLS 1.2 and 1.3 clients, one of them for over ten seconds, and with -rate-config.
"""

import re
from pathlib import Path

import attrs
import pytest

from derp.errors import LoginRefused
from derp.metrics import Certificate, DropReason, Gauges, Metrics, Process, render_varz

LEFT_OUT = {
    r"go_.*": "figures of the Go runtime, under names that say so",
    r"memstats_.*": "the Go allocator's figures; process_resident_memory_bytes is offered",
}
OURS = {
    *("derp_connection_ends", "derper_pending_bytes", "derper_pending_connections"),
    *("derper_queue_bytes", "derper_queue_limit_bytes"),
    *("derper_accepting_processes", "derper_mesh_links", "derper_mesh_links_up"),
}

SAMPLE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(\{.*\})?")


PROCESS = Process(
    open_fds=12,
    max_fds=20000,
    cpu_seconds=1.25,
    resident_bytes=18694144,
    virtual_bytes=1762172928,
    virtual_max_bytes=2**64 - 1,
    started=1795419642.19,
    booted=1795418853,
    received_bytes=302511594,
    transmitted_bytes=1091200,
)
GAUGES = Gauges(
    version="0.1.0",
    started=1795419643.5,
    uptime=43.9,
    tasks=9,
    process=PROCESS,
    current_connections=11,
    current_home_connections=12,
    current_notideal_connections=13,
    pending_connections=14,
    pending_bytes=15,
    clients_total=5,
    clients_local=3,
    clients_remote=2,
    watchers=1,
    current_dup_client_keys=1,
    current_dup_client_conns=2,
    total_dup_client_conns=7,
    multiforwarder_created=16,
    multiforwarder_deleted=17,
    packet_forwarder_delete_other_value=18,
    serves_tls=True,
    rate_limit_per_client_bytes_per_second=1000000,
    rate_limit_per_client_burst_bytes=2000000,
    memory_at_start=9000000,
    queue_bytes=123456,
    queue_limit_bytes=67108864,
)


RATE_LIMIT = ("rate_limit_per_client_bytes_per_second", "rate_limit_per_client_burst_bytes")


def page(metrics=None, **changes):
    return render_varz(metrics or Metrics(), attrs.evolve(GAUGES, **changes))


def offered(text):
    """Return what a page offers, in order: (name, type, labels); labels is None on a TYPE line."""
    types, found = {}, []
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            name, kind = line.split()[2:]
            assert name not in types
            types[name] = kind
            found.append((name, kind, None))
            continue
        name, labels = SAMPLE.match(line).groups(default="")
        if name == "version":
            labels = re.sub(r'version="[^"]*"', "version", labels)
        family = re.sub("_(bucket|sum|count)$", "", name)
        kind = types.get(name) or types.get(family)
        found.append((name, kind, labels))
    assert len(set(found)) == len(found)
    return found


def values(text):
    """Parse a page as Prometheus would: name and labels to value."""
    samples = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            key, value = line.rsplit(" ", 1)
            samples[key] = float(value)
    return samples


def busy_metrics():
    """Metrics that have seen what the Go derper of the fixture had seen."""
    metrics = Metrics()
    for version in ("TLSv1.2", "TLSv1.3"):
        metrics.tls_request(version)
        with metrics.tls_active_while(version):
            pass
    metrics.round_trip(0.001)
    return metrics


def left_out(name):
    return any(re.fullmatch(pattern, name) for pattern in LEFT_OUT)


@pytest.fixture
def go_offers():
    return offered(Path(__file__).with_name("varz_go.txt").read_text(encoding="utf-8"))


def test_everything_on_the_go_derpers_page_is_on_ours_in_the_same_order(go_offers):
    wanted = [offer for offer in go_offers if not left_out(offer[0])]
    ours = [offer for offer in offered(page(busy_metrics())) if offer[0] not in OURS]
    assert ours == wanted
    assert len(wanted) > 150


def test_what_is_left_out_is_on_the_go_derpers_page(go_offers):
    names = {name for name, _, _ in go_offers}
    for pattern in LEFT_OUT:
        assert any(re.fullmatch(pattern, name) for name in names), pattern
    assert not any(left_out(name) for name, _, _ in offered(page()))


def test_our_own_metrics_are_not_on_the_go_derpers_page(go_offers):
    assert OURS.isdisjoint(name for name, _, _ in go_offers)
    assert {name for name, _, _ in offered(page())} >= OURS


def test_before_any_traffic_labels_that_are_not_fixed_are_absent():
    missing = set(offered(page(busy_metrics()))) - set(offered(page()))
    assert {(name, labels) for name, _, labels in missing} == {
        ("derp_tcp_rtt", '{le="10ms"}'),
        ("derper_tls_active_version", '{version="1.2"}'),
        ("derper_tls_active_version", '{version="1.3"}'),
        ("derper_tls_request_version", '{version="1.2"}'),
        ("derper_tls_request_version", '{version="1.3"}'),
    }


def test_without_tls_there_is_no_tls_listener():
    missing = set(offered(page())) - set(offered(page(serves_tls=False)))
    assert {name for name, _, _ in missing} == {
        "tls_listener_accepted_connections",
        "tls_listener_rejected_connections",
    }


def test_without_rate_config_there_are_no_rate_limits():
    none = dict.fromkeys(RATE_LIMIT)
    missing = set(offered(page())) - set(offered(page(**none)))
    assert {name for name, _, _ in missing} == {
        "derp_rate_limit_per_client_burst_bytes",
        "derp_rate_limit_per_client_bytes_per_second",
        "derp_rate_limit_per_client_waited",
    }


def test_a_rate_config_without_a_limit_shows_zero():
    text = page(**dict.fromkeys(RATE_LIMIT, 0))
    assert "\nderp_rate_limit_per_client_bytes_per_second 0\n" in text


def test_without_proc_its_figures_are_absent():
    missing = {name for name, _, _ in set(offered(page())) - set(offered(page(process=None)))}
    assert missing - {name for name in missing if name.startswith("process_")} == {
        "derp_current_file_descriptors",
        "node_boot_time_seconds",
    }
    assert "\nprocess_start_unix_time 1795419643\n" in page(process=None)


def test_without_netstat_only_the_network_figures_are_absent():
    process = attrs.evolve(PROCESS, received_bytes=None, transmitted_bytes=None)
    missing = {name for name, _, _ in set(offered(page())) - set(offered(page(process=process)))}
    assert missing == {
        "process_network_receive_bytes_total",
        "process_network_transmit_bytes_total",
    }


def test_each_plain_counter_is_shown_under_its_own_name():
    elsewhere = {
        "packets_received_disco": 'derp_packets_received_kind{kind="disco"}',
        "packets_received_other": 'derp_packets_received_kind{kind="other"}',
        "tls_accepted_connections": "tls_listener_accepted_connections",
        "tls_rejected_connections": "tls_listener_rejected_connections",
    }
    plain = [field.name for field in attrs.fields(Metrics) if field.type is int]
    metrics = Metrics(**{name: 1000 + n for n, name in enumerate(plain)})
    shown = values(page(metrics))
    assert len(plain) > 20
    for n, name in enumerate(plain):
        assert shown[elsewhere.get(name, f"derp_{name}")] == 1000 + n


def test_each_gauge_is_shown_under_its_own_name():
    shown = values(page())
    assert shown["derp_current_connections"] == 11
    assert shown["derp_current_home_connections"] == 12
    assert shown["derp_current_notideal_connections"] == 13
    assert shown["derper_pending_connections"] == 14
    assert shown["derper_pending_bytes"] == 15
    assert shown["derp_multiforwarder_created"] == 16
    assert shown["derp_multiforwarder_deleted"] == 17
    assert shown["derp_packet_forwarder_delete_other_value"] == 18
    assert shown["derp_clients_total"] == 5
    assert shown["derp_clients_local"] == 3
    assert shown["derp_clients_remote"] == 2
    assert shown["derp_watchers"] == 1
    assert shown["derp_memstats_sys0"] == 9000000
    assert shown["derp_current_dup_client_keys"] == 1
    assert shown["derp_current_dup_client_conns"] == 2
    assert shown["derp_total_dup_client_conns"] == 7
    assert shown["derp_rate_limit_per_client_bytes_per_second"] == 1000000
    assert shown["derp_rate_limit_per_client_burst_bytes"] == 2000000
    assert shown["derper_queue_bytes"] == 123456
    assert shown["derper_queue_limit_bytes"] == 67108864
    assert shown["derp_current_file_descriptors"] == 12
    assert shown["process_open_fds"] == 12
    assert shown["process_max_fds"] == 20000
    assert shown["process_cpu_seconds_total"] == 1.25
    assert shown["process_resident_memory_bytes"] == 18694144
    assert shown["process_virtual_memory_bytes"] == 1762172928
    assert shown["process_virtual_memory_max_bytes"] == float(2**64 - 1)
    assert shown["process_start_time_seconds"] == 1795419642.19
    assert shown["process_network_receive_bytes_total"] == 302511594
    assert shown["process_network_transmit_bytes_total"] == 1091200
    assert shown["node_boot_time_seconds"] == 1795418853
    assert shown["process_start_unix_time"] == 1795419643
    assert shown["uptime_sec"] == 43
    assert shown["goroutines"] == 9


def test_other_counters_are_shown_under_their_labels():
    metrics = busy_metrics()
    metrics.drop(DropReason.UNKNOWN_DEST, disco=True, packets=1, nbytes=86)
    metrics.drop(DropReason.WRITE_ERROR, disco=False, packets=2, nbytes=2800)
    metrics.ended(LoginRefused())
    metrics.average_queue_duration_ms = 0.5
    metrics.mesh_update_batch_size.observe(2000)
    shown = values(page(metrics))
    assert shown['derp_packets_dropped{reason="unknown_dest",kind="disco"}'] == 1
    assert shown['derp_bytes_dropped{reason="unknown_dest",kind="disco"}'] == 86
    assert shown['derp_packets_dropped{reason="write_error",kind="other"}'] == 2
    assert shown['derp_bytes_dropped{reason="write_error",kind="other"}'] == 2800
    assert shown['derp_packets_dropped{reason="write_error",kind="disco"}'] == 0
    assert shown['derp_connection_ends{reason="login_refused"}'] == 1
    assert shown['derp_connection_ends{reason="closed"}'] == 0
    assert shown["derp_average_queue_duration_ms"] == 0.5
    assert shown['derp_mesh_update_batch_size_bucket{le="1000"}'] == 0
    assert shown['derp_mesh_update_batch_size_bucket{le="+Inf"}'] == 1
    assert shown["derp_mesh_update_batch_size_sum"] == 2000
    assert shown['derp_tcp_rtt{le="10ms"}'] == 1
    assert shown['derper_tls_request_version{version="1.3"}'] == 1
    assert shown['derper_tls_active_version{version="1.3"}'] == 0


def test_what_others_count_is_shown_under_the_go_derpers_labels():
    shown = values(
        page(
            stun_not_stun=1,
            stun_read_error=2,
            stun_success=3,
            stun_write_error=4,
            stun_ipv4=5,
            stun_ipv6=6,
            bootstrap_dns_requests=1,
            bootstrap_dns_published_hits=2,
            bootstrap_dns_published_misses=3,
            bootstrap_dns_unpublished_hits=4,
            bootstrap_dns_unpublished_misses=5,
            bootstrap_dns_unpublished_percent_misses=6,
            bootstrap_dns_queried_domains=7,
        )
    )
    assert shown['stun_requests{disposition="not_stun"}'] == 1
    assert shown['stun_requests{disposition="read_error"}'] == 2
    assert shown['stun_requests{disposition="success"}'] == 3
    assert shown['stun_requests{disposition="write_error"}'] == 4
    assert shown['stun_addrfamily{family="ipv4"}'] == 5
    assert shown['stun_addrfamily{family="ipv6"}'] == 6
    assert shown["bootstrap_dns_requests"] == 1
    assert shown["bootstrap_dns_published_hits"] == 2
    assert shown["bootstrap_dns_published_misses"] == 3
    assert shown["bootstrap_dns_unpublished_hits"] == 4
    assert shown["bootstrap_dns_unpublished_misses"] == 5
    assert shown["bootstrap_dns_unpublished_percent_misses"] == 6
    assert shown["bootstrap_dns_queried_domains"] == 7


def test_the_version_is_a_label():
    assert 'version{version="0.1.0",binary="derper"} 1' in page().splitlines()
    odd = page(version='1"2\\3\n4').splitlines()
    assert r'version{version="1\"2\\3\n4",binary="derper"} 1' in odd


def test_every_line_is_one_that_prometheus_reads():
    line = re.compile(
        r"# TYPE [a-z_]\w* (counter|gauge|histogram)"
        r'|[a-z_]\w*(\{\w+="(\\.|[^"\\])*"(,\w+="(\\.|[^"\\])*")*\})? [0-9.e+-]+'
    )
    text = page(busy_metrics())
    assert text.endswith("\n")
    for each in text.splitlines():
        assert line.fullmatch(each), each


def test_certificates_are_told_apart_by_their_first_name() -> None:
    one = Certificate(
        name="derp.example",
        not_after=1800000000,
        replaced=2,
        replaced_at=5,
        failures=0,
        failed_at=0,
    )
    two = attrs.evolve(one, name="2001:db8::7", not_after=0, replaced=0, replaced_at=0, failures=3)
    two = attrs.evolve(two, failure='said "no"')
    gauges = attrs.evolve(GAUGES, certificates=[one, two])
    lines = [
        line
        for line in render_varz(Metrics(), gauges).splitlines()
        if "derper_certificate_" in line
    ]
    assert lines[:6] == [
        "# TYPE derper_certificate_expiry_seconds gauge",
        'derper_certificate_expiry_seconds{name="2001:db8::7"} 0',
        'derper_certificate_expiry_seconds{name="derp.example"} 1800000000',
        "# TYPE derper_certificate_failures counter",
        'derper_certificate_failures{name="2001:db8::7"} 3',
        'derper_certificate_failures{name="derp.example"} 0',
    ]
    assert lines[6:8] == [
        "# TYPE derper_certificate_last_failure_info gauge",
        r'derper_certificate_last_failure_info{name="2001:db8::7",reason="said \"no\""} 1.0',
    ]


def test_workers_are_shown_where_there_are_several():
    extra = set(offered(page(workers=3, worker_restarts=5))) - set(offered(page()))
    assert {(name, kind) for name, kind, _ in extra} == {
        ("derper_worker_restarts", "counter"),
        ("derper_workers", "gauge"),
    }
    assert not set(offered(page())) - set(offered(page(workers=3)))
    shown = values(page(workers=0, worker_restarts=5))
    assert shown["derper_workers"] == 0
    assert shown["derper_worker_restarts"] == 5
