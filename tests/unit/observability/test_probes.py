"""Probes say whether a process lives and serves, whoever else asks, and however slowly."""

import asyncio
import gzip
import json
import re
import socket
import threading
from contextlib import ExitStack
from http.client import HTTPConnection

import pytest
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from clipper_agents.observability.metrics import HostMetrics, RouterMetrics
from clipper_agents.observability.probes import BEAT_S, MOST_CONNECTIONS, WEDGED_S, ProbeServer, ProcessHealth
from clipper_stream.errors import InvalidSetting

OPENMETRICS = {"Accept": "application/openmetrics-text; version=1.0.0, text/plain;q=0.5"}
TRACE = "0af7651916cd43dd8448eb211c80319c"
LABELS = 'application="digits",le="0.005",outcome="model"'


@pytest.fixture
def serve():
    with ExitStack() as stack:

        def start(health=None, registry=None, **options):
            server = ProbeServer(registry or HostMetrics().registry, health or ProcessHealth(), **options)
            port = server.start()
            stack.callback(server.stop)
            return port

        yield start


def ask(port, path, method="GET", headers=None):
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request(method, path, headers=headers or {})
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer, body


def status(port, path, method="GET"):
    return ask(port, path, method)[0].status


def told(port, path):
    answer, body = ask(port, path)
    return answer.status, json.loads(body)


def test_a_process_is_ready_once_it_serves_and_until_it_is_told_to_end(serve):
    health = ProcessHealth("model svm:1 is loading")
    port = serve(health)
    assert told(port, "/readyz") == (503, {"ready": False, "reasons": ["model svm:1 is loading"]})
    why = ["partition 3 is not recovered yet"]
    health.serves(lambda: why)
    assert told(port, "/readyz") == (503, {"ready": False, "reasons": why})
    why.clear()
    assert told(port, "/readyz") == (200, {"ready": True, "reasons": []})
    health.is_draining = True
    assert told(port, "/readyz") == (503, {"ready": False, "reasons": ["the process ends"]})
    assert told(port, "/livez") == (200, {"live": True})


def test_a_broker_that_is_away_makes_a_process_unready_and_never_dead(serve):
    metrics = HostMetrics()
    metrics.health.serves(tuple)
    port = serve(metrics.health)
    metrics.set_broker_reachable(False)
    assert told(port, "/readyz") == (503, {"ready": False, "reasons": ["no broker answers"]})
    assert told(port, "/livez") == (200, {"live": True})
    metrics.set_broker_reachable(True)
    assert status(port, "/readyz") == 200


def test_a_loop_that_is_stuck_for_too_long_makes_a_process_dead_until_it_runs_again(serve):
    now, stuck, held, goes_on = [0.0], threading.Event(), threading.Event(), threading.Event()
    health = ProcessHealth(clock=lambda: now[0])

    async def process():
        health.watch_loop()
        stuck.set()
        held.wait(60)
        await asyncio.sleep(BEAT_S)
        goes_on.set()

    port = serve(health)
    now[0] = 2 * WEDGED_S
    assert status(port, "/livez") == 200, "a model loads before there is a loop"
    thread = threading.Thread(target=asyncio.run, args=(process(),))
    thread.start()
    assert stuck.wait(60)
    now[0] += WEDGED_S - 1
    assert status(port, "/livez") == 200
    now[0] += 1
    assert told(port, "/livez") == (503, {"live": False})
    held.set()
    assert goes_on.wait(60)
    assert status(port, "/livez") == 200
    thread.join()


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("HEAD", "/livez", 200),
        ("HEAD", "/readyz", 503),
        ("HEAD", "/metrics", 200),
        ("GET", "/livez?verbose", 200),
        ("GET", "/", 404),
        ("POST", "/nothing", 404),
        ("POST", "/livez", 405),
        ("DELETE", "/metrics", 405),
    ],
)
def test_only_get_and_head_of_the_three_paths_are_answered(serve, method, path, expected):
    answer, body = ask(serve(), path, method)
    assert answer.status == expected
    assert (answer.getheader("Allow") == "GET, HEAD") is (expected == 405)
    if method == "HEAD":
        assert (body, int(answer.getheader("Content-Length")) > 0) == (b"", True)


def test_a_body_that_nobody_reads_costs_no_client_its_answer(serve):
    connection = HTTPConnection("127.0.0.1", serve(), timeout=30)
    connection.request("POST", "/livez", body=b"x" * 1_000_000)
    assert connection.getresponse().status == 405
    connection.close()


def test_what_is_no_request_is_not_answered(serve):
    port = serve()
    for sent in (b"GET /livez HTTP/1.1\r\n" + b"x: y\r\n" * 5_000, b"\x16\x03\x01\x02\x00"):
        with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
            client.sendall(sent)
            client.shutdown(socket.SHUT_WR)
            assert read_to_the_end(client) == b""
    assert status(port, "/livez") == 200


def read_to_the_end(client):
    found = b""
    try:
        while some := client.recv(65536):
            found += some
    except ConnectionResetError:
        pass
    return found


def test_clients_that_send_nothing_hold_up_no_probe_and_are_let_go(serve):
    port, threads = serve(answer_within_s=0.5), threading.active_count()
    with ExitStack() as stack:
        idle = [stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30)) for _ in range(20)]
        for client in idle:
            client.sendall(b"GET /livez HTTP/1.1\r\nx:")
        assert status(port, "/livez") == 200
        assert threading.active_count() == threads
        assert [read_to_the_end(client) for client in idle] == [b""] * 20


def test_more_clients_than_there_is_room_for_push_out_the_oldest(serve):
    port = serve(answer_within_s=600.0)
    with ExitStack() as stack:
        idle = [
            stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30))
            for _ in range(3 * MOST_CONNECTIONS)
        ]
        assert status(port, "/livez") == 200
        assert read_to_the_end(idle[0]) == b""
        assert status(port, "/livez") == 200


@pytest.fixture(scope="module")
def large():
    """A registry whose text is far more than any buffer holds."""
    registry = CollectorRegistry()
    for number in range(2_000):
        Counter(f"filler_{number}", "x" * 10_000, registry=registry)
    return registry


def test_who_says_that_no_more_comes_gets_the_whole_answer_still(serve, large):
    with socket.create_connection(("127.0.0.1", serve(registry=large)), timeout=30) as client:
        client.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        client.shutdown(socket.SHUT_WR)
        head, _, body = read_to_the_end(client).partition(b"\r\n\r\n")
    assert f"Content-Length: {len(body)}".encode() in head
    assert len(body) > 20_000_000


def test_a_client_that_reads_nothing_is_let_go_with_what_it_did_not_read(serve, large):
    port = serve(registry=large, answer_within_s=1.0)
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(30)
        client.connect(("127.0.0.1", port))
        client.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        assert status(port, "/livez") == 200
        with socket.create_connection(("127.0.0.1", port), timeout=30) as later:  # let go after the one before it
            assert read_to_the_end(later) == b""
        assert len(read_to_the_end(client)) < 20_000_000


class SlowCollector:
    def __init__(self):
        self.begun, self.may_end = threading.Event(), threading.Event()

    def collect(self):
        self.begun.set()
        self.may_end.wait(60)
        yield GaugeMetricFamily("slow", "Slow.", value=7)

    def describe(self):
        return []


def test_a_scrape_that_takes_long_holds_up_no_probe(serve):
    registry, slow = CollectorRegistry(), SlowCollector()
    registry.register(slow)
    port, found = serve(registry=registry), []
    scraping = threading.Thread(target=lambda: found.append(ask(port, "/metrics")[1]))
    scraping.start()
    assert slow.begun.wait(60)
    assert status(port, "/livez") == 200
    slow.may_end.set()
    scraping.join()
    assert b"slow 7.0" in found[0]


def test_exemplars_are_for_who_asks_for_openmetrics_and_text_is_for_all_others(serve):
    metrics = RouterMetrics()
    series = metrics.families.histogram("clipper_prediction_latency_seconds", "digits", "model")
    series.observe_many([0.004, 0.04])
    series.keep_trace(0.004, "f" * 32)
    series.keep_trace(0.0045, TRACE)
    port = serve(metrics.health, metrics.registry)
    answer, text = ask(port, "/metrics")
    assert answer.getheader("Content-Type").startswith("text/plain; version=0.0.4")
    assert b"trace_id" not in text
    assert f"clipper_prediction_latency_seconds_bucket{{{LABELS}}} 1.0\n" in text.decode()
    answer, text = ask(port, "/metrics", headers=OPENMETRICS)
    assert answer.getheader("Content-Type").startswith("application/openmetrics-text; version=1.0.0")
    assert text.endswith(b"# EOF\n")
    traced = [line for line in text.decode().splitlines() if "trace_id" in line]
    assert [re.sub(r"\d{10}\.\d+$", "T", line) for line in traced] == [
        f'clipper_prediction_latency_seconds_bucket{{{LABELS}}} 1.0 # {{trace_id="{TRACE}"}} 0.0045 T'
    ]
    families = {family.name: family for family in text_string_to_metric_families(text.decode())}
    exemplars = [sample.exemplar for sample in families["clipper_prediction_latency_seconds"].samples]
    assert [one.labels for one in exemplars if one] == [{"trace_id": TRACE}]


def test_a_series_has_at_most_an_exemplar_a_bucket_the_newest():
    series = HostMetrics().families.histogram("clipper_stage_latency_seconds", "model")
    for number in range(1_000):
        series.keep_trace(number / 10, f"{number:032x}")
    assert len(series.exemplars) <= len(series.counts)
    newest = series.exemplars[len(series.counts) - 1]
    assert (newest.labels, newest.value) == ({"trace_id": f"{999:032x}"}, 99.9)


def test_a_scrape_is_compressed_for_who_says_that_it_reads_that(serve):
    metrics = HostMetrics()
    port = serve(metrics.health, metrics.registry)
    answer, body = ask(port, "/metrics", headers={"Accept-Encoding": "gzip"})
    assert answer.getheader("Content-Encoding") == "gzip"
    assert b"clipper_broker_reachable" in gzip.decompress(body)


def test_a_port_that_is_taken_is_a_setting_to_change(serve):
    taken = serve()
    with pytest.raises(InvalidSetting, match=rf"metrics_port 127\.0\.0\.1:{taken}: Address already in use"):
        ProbeServer(CollectorRegistry(), ProcessHealth()).start(taken)


def test_a_server_that_was_stopped_leaves_no_thread_and_no_open_port():
    threads, server = threading.active_count(), ProbeServer(CollectorRegistry(), ProcessHealth())
    port = server.start()
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        assert status(port, "/metrics") == 200
        server.stop()
        assert read_to_the_end(client) == b""
    assert threading.active_count() == threads
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=30)
