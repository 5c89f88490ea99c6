"""What an operator does from the console, as a browser sends it, on a real Kafka; and what forged requests leave."""

import json
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from confluent_kafka import Consumer, TopicPartition
from e2e.any_client import AnyClient
from e2e.console_forms import Browser, hidden_in
from e2e.gateways import FREE_PORTS, client_of, events, serves
from e2e.programs import Program, environment_of, until

from clipper_gateway.keys import make_key, revoke_key
from clipper_topics.dead_letter import dead_letter_headers
from clipper_topics.selection_rows import ROW_VERSION, ModelTotalsRecord, RowKey, SelectionRow, encode_key, encode_row

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

CONFIGURATION = """
[[application]]
name = "digits"
models = ["svm:1"]
objective_ms = 200
default_output = { label = -1 }

[[model]]
name = "svm"
uri = "acme.models:svm"
"""
NEW = ("--uri", "acme.models:svm", "--application", "digits", "--unchecked")
FEEDBACK = b'{"query_id": "0-1", "loss": 0}'


class Operators:
    """A gateway with keys, whose console operators use, and the topics behind it."""

    def __init__(self, kafka, catalogue, program, url, file, keys):
        self.program, self.url, self.file, self.keys, self.catalogue = program, url, file, keys, catalogue
        self.client = AnyClient(kafka.bootstrap)
        self._consumers = [
            Consumer({"bootstrap.servers": kafka.bootstrap, "group.id": "nobody", "isolation.level": f"read_{level}"})
            for level in ("committed", "uncommitted")
        ]

    @contextmanager
    def browser(self, name: str) -> Iterator[Browser]:
        with client_of(self.url) as client:
            yield Browser(client, self.keys[name])

    def written(self) -> int:
        """How many records stand in the topics that actions write to, once no transaction is open."""
        return until("no transaction is open", self._written)

    def _written(self) -> int | None:
        names = {self.catalogue.control: 1, self.catalogue.feedback: 2, self.catalogue.queries: 2}
        parts = [TopicPartition(name, number) for name, count in names.items() for number in range(count)]
        ends = {sum(one.get_watermark_offsets(part, timeout=60)[1] for part in parts) for one in self._consumers}
        return ends.pop() if len(ends) == 1 else None

    def close(self) -> None:
        """Leave Kafka."""
        for consumer in self._consumers:
            consumer.close()

    def learned(self, model: str, count: float) -> None:
        """Have the routers' table say that so much was learned about a model."""
        row = SelectionRow(
            version=ROW_VERSION, offset=1, applied=1, totals=[ModelTotalsRecord(model, count, 0.5, 0.5, count, [])],
            at_ms=0, half_life_s=None,
        )  # fmt: skip
        key = encode_key(RowKey("digits", None, 0))
        self.client.send(self.catalogue.selection_changelog, encode_row(row), key=key, partition=0)


@pytest.fixture
def operators(kafka, catalogue, shell, tmp_path):
    (tmp_path / "clipper.toml").write_text(CONFIGURATION)
    shell("apply")
    file, rights = tmp_path / "keys.json", {"ada": ["read", "operate"], "grace": ["read"], "alan": ["read", "operate"]}
    keys = {
        name: make_key(
            file, name, applications=["letters"] if name == "alan" else None, rights=given, rate=None, now_ms=0
        )
        for name, given in rights.items()
    }
    environ = environment_of(kafka, catalogue, **FREE_PORTS, CLIPPER_GATEWAY_KEYS_FILE=str(file))
    with Program("gateway", folder=tmp_path / "gateway", environ=environ) as program:
        fields = program.ready()
        assert fields["console"] == f"{fields['http']}/console"
        serves(fields["http"])
        operators = Operators(kafka, catalogue, program, fields["http"], file, keys)
        yield operators
        operators.close()


def test_a_version_goes_through_its_life_from_the_console_and_the_history_tells(operators, shell):
    shell("model", "deploy", "svm:2", *NEW, "--stage", "canary")
    shell("model", "deploy", "svm:3", *NEW)
    with operators.browser("ada") as ada:
        before = operators.written()
        shown, form = ada.preview("promote", application="digits", model="svm:2")
        assert operators.written() == before
        assert "Promote svm:2 at digits" in shown
        assert "models [&#34;svm:1&#34;] -&gt; [&#34;svm:1&#34;,&#34;svm:2&#34;]" in shown
        assert (form["seen"], form["application"], form["model"]) == (["3"], ["digits"], ["svm:2"])
        confirmed = {**form, "why": "earned it"}
        assert "application digits revision 4: promote svm:2" in ada.post("promote", confirmed).text
        after = operators.written()
        assert "application digits revision 4: promote svm:2" in ada.post("promote", confirmed).text
        assert operators.written() == after
        assert "revision 5: abort svm:3" in ada.do("abort", "too slow", application="digits", model="svm:3")
        assert "revision 6: retire svm:1" in ada.do("retire", application="digits", model="svm:1")
        assert "there is nothing to do" in ada.preview("promote", application="digits", model="svm:2")[0].lower()
        refused = ada.post("retire/preview", {"application": "digits", "model": "svm:2"})
        assert (refused.status_code, "is the last live version" in refused.text) == (409, True)
        undone = ada.do("rollback", "not yet", application="digits")
        assert "undone: revision 6, retire svm:1 by ada via console" in undone
        assert "selection state restored (r-" in undone
        assert "undone: revision 4, promote svm:2" in ada.do("rollback", application="digits", to_revision=3)
    assert [(one["revision"], one["by"], one["command"], one.get("why")) for one in
            shell.json("application", "history", "digits")] == [
        (1, "ada", "create", None), (2, "ada", "canary", None), (3, "ada", "shadow", None),
        (4, "ada via console", "promote", "earned it"), (5, "ada via console", "abort", "too slow"),
        (6, "ada via console", "retire", None), (7, "ada via console", "rollback", "not yet"),
        (8, "ada via console", "rollback", None),
    ]  # fmt: skip


def test_what_was_changed_meanwhile_is_shown_and_nothing_is_written(operators, shell):
    shell("model", "deploy", "svm:2", *NEW, "--stage", "canary")
    with operators.browser("ada") as ada:
        forms = {
            action: ada.preview(action, application="digits", **more)[1]
            for action, more in {
                "promote": {"model": "svm:2"}, "abort": {"model": "svm:2"}, "rollback": {}, "weights": {"revision": 2},
            }.items()
        }  # fmt: skip
        shell("model", "canary", "svm:2", "--share", "0.5")
        before = operators.written()
        for action, form in forms.items():
            stale = ada.post(action, form)
            assert (stale.status_code, "Nothing was done" in stale.text) == (409, True), action
            assert hidden_in(stale.text)["seen"] == ["3"]
        assert "0.5" in ada.post("abort", forms["abort"]).text
        assert operators.written() == before
        again = hidden_in(ada.post("abort", forms["abort"]).text)
        assert "revision 4: abort svm:2" in ada.post("abort", again).text
        late = ada.post("abort", forms["abort"])
        assert (late.status_code, "is not on trial" in late.text) == (409, True)


def test_weights_are_set_back_and_taken_back_again(operators, shell):
    operators.learned("svm:1", 10.0)
    shell("application", "update", "digits", "--field", "objective_ms=300")
    operators.learned("svm:1", 99.0)
    with operators.browser("ada") as ada:
        shown, form = ada.preview("weights", application="digits", revision=2)
        assert "svm:1  weight 1.0000 -&gt; 1.0000" in shown
        assert "1 rows are set" in shown
        done = ada.post("weights", {**form, "why": "wrong labels"})
        (restored,) = re.findall(r"restore (r-[0-9a-f]+): 1 rows in 2 partitions", done.text)
        assert f"restore {restored}" in ada.post("weights", form | {"why": "wrong labels"}).text
        stale = ada.post("weights", {**form, "number": "another", "why": "wrong labels"})
        assert (stale.status_code, hidden_in(stale.text)["seen"]) == (409, [f"2 {restored}"])
        assert "restore r-" in ada.do("weights", application="digits", undo=1)
        nothing = ada.post("weights/preview", {"application": "digits", "undo": "1"})
        assert (nothing.status_code, "to undo" in nothing.text) == (409, True)
    found = [
        json.loads(one.value) for one in operators.client.read(operators.catalogue.control) if b"restore/" in one.key
    ]
    assert [(one["by"], one.get("why"), one.get("undoes")) for one in found] == [
        ("ada via console", "wrong labels", None), ("ada via console", None, restored),
    ]  # fmt: skip


def test_dead_letters_are_sent_again_once(operators):
    catalogue = operators.catalogue

    def letter(topic: str) -> int:
        said = dict(dead_letter_headers(topic, 1, 41, ValueError("no such thing")))
        return operators.client.send(catalogue.dead_letters, FEEDBACK, key=b"ada", headers=said).offset

    first, foreign, second = letter(catalogue.feedback), letter("somebody.else"), letter(catalogue.feedback)
    with operators.browser("ada") as ada:
        shown, form = ada.preview("resend", position=[first, foreign, second])
        assert "Send 2 dead letters once more" in shown
        assert f"{foreign} is not sent: topic &#39;somebody.else&#39; is none that this deployment" in shown
        done = ada.post("resend", form)
        assert done.text.count(f"sent to {catalogue.feedback}[1]") == 2
        ada.post("resend", form)
        assert "nothing to do" in ada.preview("resend", position=[first, second])[0]
        assert "replayed before" in ada.post("resend", {**form, "number": "another"}).text
        assert f"{first}: sent to" in ada.do("resend", position=first, again=1)
        missing = ada.post("resend/preview", {"position": str(second + 9)})
        assert (missing.status_code, "no dead letter at position" in missing.text) == (404, True)
    with operators.browser("alan") as alan:
        assert alan.post("resend/preview", {"position": str(first)}).status_code == 403
    assert [one.value for one in operators.client.read(catalogue.feedback)] == [FEEDBACK] * 3


FORGED = {
    "no token": {"x-csrf-token": ""},
    "another token": {"x-csrf-token": "x" * 43},
    "a foreign origin": {"origin": "https://evil.example"},
    "another port of this machine": {"origin": "http://127.0.0.1:1"},
    "another site": {"sec-fetch-site": "cross-site"},
    "another name of this site": {"sec-fetch-site": "same-site"},
}


def test_forged_requests_and_missing_rights_write_nothing(operators, shell):
    shell("model", "deploy", "svm:2", *NEW, "--stage", "canary")
    promote = {"application": "digits", "model": "svm:2", "seen": "2", "number": "1"}
    before = operators.written()
    with operators.browser("ada") as ada:
        for case, headers in FORGED.items():
            assert ada.post("promote", promote, **headers).status_code == 403, case
    for name, said in (("grace", "no right"), ("alan", "may not use application")):
        with operators.browser(name) as browser:
            for path in ("promote", "promote/preview"):
                refused = browser.post(path, promote)
                assert (refused.status_code, said in refused.text) == (403, True)
    with client_of(operators.url) as stranger:
        assert stranger.post("/console/actions/promote", data=promote).status_code == 401
    with client_of(operators.url, **{"x-api-key": operators.keys["ada"]}) as script:
        assert script.post("/console/actions/promote", data=promote | {"seen": ""}).status_code == 409
        assert operators.written() == before
        assert "revision 3: promote svm:2" in script.post("/console/actions/promote", data=promote).text


@contextmanager
def followed(operators, name):
    """The events of the overview, as one who has signed in gets them."""
    with client_of(operators.url) as client:
        Browser(client, operators.keys[name])
        with client.stream("GET", "/console/live", params={"page": "/console"}) as stream:
            assert stream.headers["content-type"].startswith("text/event-stream")
            yield events(stream.iter_lines())


def test_a_page_is_followed_until_its_key_is_revoked_or_the_gateway_ends(operators):
    with followed(operators, "ada") as of_ada, followed(operators, "grace") as of_grace:
        for found in (of_ada, of_grace):
            assert next(found)["event"] == "regions"
        revoke_key(operators.file, "ada", 1)
        assert {each["event"] for each in of_ada} <= {"regions", "beat"}
        assert next(of_grace)
        with client_of(operators.url) as client:
            refused = client.post("/console/login", data={"key": operators.keys["ada"]})
            assert (refused.status_code, "unknown or revoked" in refused.text) == (401, True)
        operators.program.signal(signal.SIGTERM)
        assert {each["event"] for each in of_grace} <= {"regions", "beat"}
        assert operators.program.ended(within_s=15.0) == 0
    assert not any(key in operators.program.log for key in operators.keys.values())
