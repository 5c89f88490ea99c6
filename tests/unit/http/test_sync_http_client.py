"""The client whose calls block, against a server on a port of its own."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from stub_server import Answer, StubServer, serving

from clipper_stream.http import GatewayUnavailable, RequestRefused, SyncHttpClient


def by_input(asked):
    if not asked.path.endswith("/predict"):
        return Answer({"error": "no such query"}, 202 if asked.path == "/v1/feedback" else 404)
    rows = {
        f"output{name.removeprefix('input')}": rows for name, rows in asked.body.items() if name.startswith("input")
    }
    return Answer({"query_id": asked.body["query_id"], "application": "digits", **rows})


@pytest.fixture
def gateway():
    with serving(StubServer(metadata=by_input)) as stub:
        yield stub


def test_the_five_lines_work_from_any_thread(gateway):
    with SyncHttpClient(gateway.root, api_key="k") as client:
        with ThreadPoolExecutor(4) as threads:
            answers = list(threads.map(lambda number: client.predict("digits", number), range(20)))
        client.feedback(answers[3], label=3)
        assert client.predict_packed("digits", [1, 2]).outputs == [1, 2]
        assert [answer.output for answer in client.predict_many("digits", [1, {"x": "ü"}])] == [1, {"x": "ü"}]
        with pytest.raises(RequestRefused, match="answered 404: no such query"):
            client.query("order 7", application="digits")
    assert [answer.output for answer in answers] == list(range(20))
    feedback = next(asked for asked in gateway.asked if asked.path == "/v1/feedback")
    assert feedback.body == {"query_id": answers[3].query_id, "application": "digits", "label": 3}
    assert {asked.headers["x-api-key"] for asked in gateway.asked} == {"k"}


def test_calls_that_wait_fail_when_the_client_is_closed_and_no_thread_is_left(gateway):
    opened = threading.Event()
    gateway.metadata = lambda asked: opened.set() or (gateway.let_go.wait(10) and None)
    with ThreadPoolExecutor(1) as threads:
        with SyncHttpClient(gateway.root) as client:
            waiting = threads.submit(client.predict, "digits", 1)
            assert opened.wait(10)
            assert "clipper client" in {thread.name for thread in threading.enumerate()}
        with pytest.raises(GatewayUnavailable):
            waiting.result(10)
    assert "clipper client" not in {thread.name for thread in threading.enumerate()}
    with pytest.raises(GatewayUnavailable, match="is not open: use `with SyncHttpClient"):
        client.predict("digits", 1)
