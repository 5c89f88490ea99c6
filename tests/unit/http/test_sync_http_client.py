"""The client whose calls block, against a server on a port of its own."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest
from stub_server import Answer, Asked, StubServer, serving

from clipper_stream.http import GatewayUnavailable, RequestRefused, SyncHttpClient


@dataclass
class StubGateway(StubServer):
    """Answers queries by their input, feedback by an acknowledgement, and anything else by 404."""

    opened: threading.Event = field(default_factory=threading.Event)

    @property
    def root(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def answer(self, asked: Asked) -> Answer | None:
        self.asked.append(asked)
        if asked.path.endswith("/predict"):
            body = asked.body
            if body.get("input") == "wait":
                self.opened.set()
                self.let_go.wait(10)
            found = {"query_id": body["query_id"], "application": asked.path.split("/")[3]}
            given = {name: body[field] for name, field in (("output", "input"), ("outputs", "inputs")) if field in body}
            return Answer(found | given)
        if asked.path == "/v1/feedback":
            return Answer({"accepted": 1}, status=202)
        return Answer({"error": "no such query"}, status=404)


@pytest.fixture
def gateway():
    with serving(StubGateway()) as stub:
        yield stub


def test_the_five_lines_work_from_any_thread(gateway):
    with SyncHttpClient(gateway.root, api_key="k") as client:
        with ThreadPoolExecutor(4) as threads:
            answers = list(threads.map(lambda number: client.predict("digits", number), range(20)))
        client.feedback(answers[3], label=3)
        assert client.predict_packed("digits", [1, 2]).outputs == [1, 2]
        assert [answer.output for answer in client.predict_many("digits", [1, 2])] == [1, 2]
        with pytest.raises(RequestRefused, match="answered 404: no such query"):
            client.query("order 7", application="digits")
    assert [answer.output for answer in answers] == list(range(20))
    feedback = next(asked for asked in gateway.asked if asked.path == "/v1/feedback")
    assert feedback.body == {"query_id": answers[3].query_id, "application": "digits", "label": 3}
    assert {asked.headers["x-api-key"] for asked in gateway.asked} == {"k"}


def test_calls_that_wait_fail_when_the_client_is_closed(gateway):
    with ThreadPoolExecutor(1) as threads:
        with SyncHttpClient(gateway.root) as client:
            waiting = threads.submit(client.predict, "digits", "wait")
            assert gateway.opened.wait(10)
        with pytest.raises(GatewayUnavailable):
            waiting.result(10)
    with pytest.raises(GatewayUnavailable, match="is not open: use `with SyncHttpClient"):
        client.predict("digits", 1)


def test_a_client_leaves_no_thread_behind(gateway):
    with SyncHttpClient(gateway.root) as client:
        client.predict("digits", 1)
        assert [thread for thread in threading.enumerate() if thread.name == "clipper http client"]
    assert not [thread for thread in threading.enumerate() if thread.name == "clipper http client"]


def test_what_the_body_holds_is_json(gateway):
    with SyncHttpClient(gateway.root) as client:
        assert client.predict("digits", {"x": [1.5, None, "ü"]}).output == json.loads('{"x": [1.5, null, "ü"]}')
