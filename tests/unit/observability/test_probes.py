import asyncio
import gzip
import json
import re
import socket
import threading
from contextlib import ExitStack, suppress
from http.client import HTTPConnection

import pytest
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from clipper_agents.observability.metrics import ProcessMetrics, RouterMetrics
from clipper_agents.observability.probes import BEAT_S, WEDGED_S, ProbeServer, ProcessHealth
from clipper_stream.errors import InvalidSetting

OPENMETRICS = {"Accept": "application/openmetrics-text; version=1.0.0, text/plain;q=0.5"}
TRACE = "0af7651916cd43dd8448eb211c80319c"
LATENCY = "clipper_prediction_latency_seconds"
BUCKET = f'{LATENCY}_bucket{{application="digits",le="0.005",outcome="model"}} 1.0'
LIVES = (200, {"live": True})
LONG_S = 60


class Client(ExitStack):
    """Asks a server on a port, and holds connections open until the test ends."""

    def __init__(self, port):
        super().__init__()
        self.port = port

    def ask(self, path, method="GET", **request):
        connection = HTTPConnection("127.0.0.1", self.port, timeout=LONG_S)
        self.callback(connection.close)
        connection.request(method, path, **request)
        answer = connection.getresponse()
        return answer, answer.read()

    def told(self, path):
        answer, body = self.ask(path)
        return answer.status, json.loads(body)

    def connect(self, sent=b"", receive_bytes=None):
        connection = self.enter_context(socket.socket())
        connection.settimeout(LONG_S)
        if receive_bytes:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        connection.connect(("127.0.0.1", self.port))
        connection.sendall(sent)
        return connection


def read_to_the_end(connection):
    found = b""
    try:
        while some := connection.recv(65536):
            found += some
    except ConnectionResetError:
        pass
    return found


@pytest.fixture
def serve():
    with ExitStack() as stack:

        def start(health=None, registry=None):
            server = ProbeServer(registry or ProcessMetrics("host").registry, health or ProcessHealth())
            client = stack.enter_context(Client(server.start()))
            stack.callback(server.stop)
            return client

        yield start


def test_a_process_is_ready_once_it_serves_while_a_broker_answers_and_until_it_is_told_to_end(serve):
    metrics = ProcessMetrics("host")
    health, why = metrics.health, ["partition 3 is not recovered yet"]
    health.waits_for = "model svm:1 is loading"
    client = serve(health)

    def is_unready_by(*reasons):
        assert client.told("/readyz") == (503 if reasons else 200, {"ready": not reasons, "reasons": [*reasons]})
        assert client.told("/livez") == LIVES

    is_unready_by("model svm:1 is loading")
    health.serves(lambda: why)
    is_unready_by(*why)
    why.clear()
    is_unready_by()
    metrics.set_broker_reachable(False)
    is_unready_by("no broker answers")
    metrics.set_broker_reachable(True)
    is_unready_by()
    health.is_draining = True
    is_unready_by("the process ends")


def test_a_loop_that_is_stuck_for_too_long_makes_a_process_dead_until_it_runs_again(serve):
    now, stuck, held, goes_on = [0.0], threading.Event(), threading.Event(), threading.Event()
    health = ProcessHealth(clock=lambda: now[0])

    async def process():
        health.watch_loop()
        stuck.set()
        held.wait(LONG_S)
        await asyncio.sleep(BEAT_S)
        goes_on.set()

    client = serve(health)
    now[0] = 2 * WEDGED_S
    assert client.told("/livez") == LIVES, "a model loads before there is a loop"
    thread = threading.Thread(target=asyncio.run, args=(process(),))
    thread.start()
    assert stuck.wait(LONG_S)
    now[0] += WEDGED_S - 1
    assert client.told("/livez") == LIVES
    now[0] += 1
    assert client.told("/livez") == (503, {"live": False})
    held.set()
    assert goes_on.wait(LONG_S)
    assert client.told("/livez") == LIVES
    thread.join()


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "/livez?verbose", 200),
        ("GET", "/", 404),
        ("POST", "/nothing", 404),
        ("POST", "/livez", 405),
        ("DELETE", "/metrics", 405),
    ],
)
def test_only_the_three_paths_are_answered_and_only_get(serve, method, path, expected):
    answer, _ = serve().ask(path, method)
    assert (answer.status, answer.getheader("Allow")) == (expected, "GET" if expected == 405 else None)


def test_what_is_no_request_gets_no_answer_of_the_process_and_says_nothing_on_its_streams(serve, capfd):
    client = serve()
    for sent in (b"GET /livez HTTP/1.1\r\n" + b"x: y\r\n" * 5_000, b"\x16\x03\x01\x02\x00", b""):
        connection = client.connect(sent)
        with suppress(OSError):  # the server may have closed it already
            connection.shutdown(socket.SHUT_WR)
        assert b"200 OK" not in read_to_the_end(connection)
    assert client.told("/livez") == LIVES
    assert capfd.readouterr() == ("", "")


def test_clients_that_send_nothing_hold_up_no_probe(serve):
    client = serve()
    for _ in range(100):
        client.connect(b"GET /livez HTTP/1.1\r\nx:")
    assert client.told("/livez") == LIVES


def test_who_says_that_no_more_comes_gets_the_whole_answer_still(serve):
    registry = CollectorRegistry()
    for number in range(2_000):
        Counter(f"filler_{number}", "x" * 1_000, registry=registry)
    connection = serve(registry=registry).connect(b"GET /metrics HTTP/1.0\r\n\r\n")
    connection.shutdown(socket.SHUT_WR)
    head, _, body = read_to_the_end(connection).partition(b"\r\n\r\n")
    assert f"Content-Length: {len(body)}".encode() in head
    assert len(body) > 2_000_000


def test_a_scrape_that_takes_long_holds_up_no_probe(serve):
    begun, may_end, found = threading.Event(), threading.Event(), []

    class SlowCollector:
        def collect(self):
            begun.set()
            may_end.wait(LONG_S)
            yield GaugeMetricFamily("slow", "Slow.", value=7)

        def describe(self):
            return []

    registry = CollectorRegistry()
    registry.register(SlowCollector())
    client = serve(registry=registry)
    scraping = threading.Thread(target=lambda: found.append(client.ask("/metrics")[1]))
    scraping.start()
    assert begun.wait(LONG_S)
    assert client.told("/livez") == LIVES
    may_end.set()
    scraping.join()
    assert b"slow 7.0" in found[0]


def test_exemplars_are_for_who_asks_for_openmetrics_and_text_for_others_compressed_for_who_reads_that(serve):
    metrics = RouterMetrics()
    series = metrics.histogram(LATENCY, "digits", "model")
    series.observe_many([0.004, 0.04])
    series.keep_trace(0.004, "f" * 32)
    series.keep_trace(0.0045, TRACE)
    client = serve(metrics.health, metrics.registry)
    for headers in ({}, {"Accept-Encoding": "gzip"}):
        answer, text = client.ask("/metrics", headers=headers)
        assert answer.getheader("Content-Type").startswith("text/plain; version=0.0.4")
        assert answer.getheader("Content-Encoding") == headers.get("Accept-Encoding")
        text = gzip.decompress(text) if headers else text
        assert b"trace_id" not in text
        assert f"{BUCKET}\n" in text.decode()
    answer, text = client.ask("/metrics", headers=OPENMETRICS)
    assert answer.getheader("Content-Type").startswith("application/openmetrics-text; version=1.0.0")
    assert text.endswith(b"# EOF\n")
    traced = [line for line in text.decode().splitlines() if "trace_id" in line]
    assert [re.sub(r"\d{10}\.\d+$", "T", line) for line in traced] == [f'{BUCKET} # {{trace_id="{TRACE}"}} 0.0045 T']
    families = {family.name: family for family in text_string_to_metric_families(text.decode())}
    exemplars = [sample.exemplar for sample in families[LATENCY].samples]
    assert [one.labels for one in exemplars if one] == [{"trace_id": TRACE}]


def test_a_series_has_at_most_an_exemplar_a_bucket_the_newest():
    metrics = ProcessMetrics("host")
    series = metrics.histogram("clipper_stage_latency_seconds", "model")
    for number in range(1_000):
        series.observe(number / 10)
        series.keep_trace(number / 10, f"{number:032x}")
    (family,) = (one for one in metrics.registry.collect() if one.name == "clipper_stage_latency_seconds")
    newest = [one.exemplar for one in family.samples if one.exemplar][-1]
    assert (newest.labels, newest.value) == ({"trace_id": f"{999:032x}"}, 99.9)


def test_a_port_that_is_taken_is_a_setting_to_change(serve):
    taken = serve().port
    with pytest.raises(InvalidSetting, match=rf"metrics_port 127\.0\.0\.1:{taken}: Address already in use"):
        ProbeServer(CollectorRegistry(), ProcessHealth()).start(taken)


def test_a_server_that_was_stopped_leaves_no_open_port():
    server = ProbeServer(CollectorRegistry(), ProcessHealth())
    with Client(server.start()) as client:
        client.connect()
        assert client.ask("/metrics")[0].status == 200
        server.stop()
        with pytest.raises(ConnectionRefusedError):
            client.connect()


def test_an_address_of_ipv6_can_be_served():
    server = ProbeServer(CollectorRegistry(), ProcessHealth())
    port = server.start(address="::1")
    with socket.create_connection(("::1", port), LONG_S) as connection:
        connection.sendall(b"GET /livez HTTP/1.0\r\n\r\n")
        assert b'{"live": true}' in read_to_the_end(connection)
    server.stop()
