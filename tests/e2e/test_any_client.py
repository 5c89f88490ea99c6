"""Everything that an application in any language may send, and what comes back.

One deployment on an embedded Kafka serves all tests of this module. What is sent and read here knows nothing of this
project but its wire contract.
"""

import ast
import json
import signal
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from e2e.any_client import JSON, MSGPACK, AnyClient, Reading, Record
from e2e.programs import Program, environment, environment_of, run, until
from oracle import Row, RowKey, positions, table
from plain_msgpack import pack

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

EXAMPLE = Path(__file__).parents[2] / "examples/clipper.toml"
CONFIGURATION = Path(__file__).with_name("any_client.toml")
PARTITIONS = 4
QUERIES, PREDICTIONS, FEEDBACK = "clipper.queries", "clipper.predictions", "clipper.feedback"
ACKS = "clipper.feedback-acks"
DEAD_LETTERS, CHANGELOG = "clipper.dead-letters", "clipper.router-selection-changelog"
ERRORS = "__streams.errors."


@dataclass(frozen=True)
class Case:
    """A query, and what becomes of it: an output, a default with a reason, or a dead letter.

    Attributes:
        value: Of the record.
        expected: Fields of the prediction.
        says: Part of the explanation, or of the dead letter's message.
        dead: Whether it becomes a dead letter.
    """

    value: bytes | None
    expected: Mapping[str, Any] = field(default_factory=dict)
    says: str = ""
    dead: bool = False
    headers: Mapping[str, bytes] = field(default_factory=dict)
    key: bytes | None = None


def query(application: str = "sums", **fields: Any) -> bytes:
    return json.dumps({"application": application, **fields}).encode()


def answered(value: bytes, output: Any, **more: Any) -> Case:
    return _case(value, "", output, {"default": None, "reason": None}, more)


def refused(value: bytes, reason: str, says: str, *, output: Any = -1, **more: Any) -> Case:
    return _case(value, says, output, {"default": True, "reason": reason}, more)


def _case(value: bytes, says: str, output: Any, expected: dict[str, Any], more: dict[str, Any]) -> Case:
    options = {name: more.pop(name) for name in ("headers", "key") if name in more}
    expected = {"outputs" if isinstance(output, list) else "output": output, **expected, **more}
    return Case(value, expected, says, **options)


def dead(value: bytes | None, says: str, **more: Any) -> Case:
    return Case(value, says=says, dead=True, **more)


def nested(levels: int) -> bytes:
    return b'{"application": "sums", "input": ' + b"[" * levels + b"1" + b"]" * levels + b"}"


CASES = {
    "without an id": answered(query(input=[1, 2, 3]), 6.0),
    "with an id": answered(query(query_id="mine", input=[1, 2]), 3.0, query_id="mine"),
    "with a key": answered(query(input=[1, 2]), 3.0, key=b"any key"),
    "with a context": answered(query(context="ada", input=[4]), 4.0, key=b"ada", context="ada"),
    "with a deadline": answered(query(input=[1], deadline_ms=50_000), 1.0),
    "with a deadline as a float": answered(query(input=[1], deadline_ms=50_000.0), 1.0),
    "with null for what is absent": answered(
        query(input=[1], inputs=None, query_id=None, context=None, deadline_ms=None, models=None, features=None), 1.0
    ),
    "of whole floats": answered(query("pairs", input=[20.0, 22.0]), 42),
    "with a deadline of 400 digits": answered(query(input=[1], deadline_ms=10**400), 1.0),
    "naming a model": answered(query(input=[1, 5], models=["sum"]), 6.0),
    "naming a version": answered(query(input=[1, 6], models=["slow-sum:1"]), 7.0),
    "of several rows": answered(query(inputs=[[1, 2], [3, 4], [5, 6]]), [3.0, 7.0, 11.0]),
    "with a field of tomorrow": answered(query(input=[2], colour="red"), 2.0),
    "of another application": answered(query("pairs", input=[20, 22]), 42),
    "in msgpack": answered(pack({"application": "sums", "input": [1.5, 2]}), 3.5, headers=MSGPACK),
    "in msgpack by another name": answered(
        pack({"application": "sums", "input": [1.5, 3]}), 4.5, headers={"content-type": b"application/x-msgpack"}
    ),
    "in msgpack, rows": answered(
        pack({"application": "sums", "query_id": "packed", "inputs": [[1.5], [2.0]]}),
        [1.5, 2.0],
        headers=MSGPACK,
        query_id="packed",
    ),
    "in msgpack, raw bytes": answered(
        pack({"application": "sums", "input": struct.pack("<3f", 1, 2, 4)}), 7.0, headers=MSGPACK
    ),
    "with a parameter in its content type": answered(
        query(input=[1, 7]), 8.0, headers={"Content-Type": b"Application/JSON; charset=utf-8"}
    ),
    "of 300 000 numbers": answered(query(input=[1] * 300_000, models=["sum"]), 300_000.0),
    "to nobody": refused(query("nobody", input=[1]), "unknown_application", "'nobody' is not registered", output=None),
    "of another shape": refused(query("pairs", input=[1, 2, 3]), "invalid_input", "shape [2]", output=None),
    "of two dimensions": refused(query(input=[[1, 2]]), "invalid_input", "a row of shape [1, 2]"),
    "of no numbers": refused(query(input=[]), "invalid_input", "a row of shape [0]"),
    "of text": refused(query(input="1, 2"), "invalid_input", "give float32 numbers"),
    "of fractions": refused(query("pairs", input=[1.5, 2]), "invalid_input", "integers from", output=None),
    "of a number too large": refused(query(input=[1e300]), "invalid_input", "too large for float32"),
    "of null": refused(query(input=None), "invalid_input", "the row None"),
    "of 33 levels": refused(nested(33), "invalid_input", "give float32 numbers"),
    "of 900 levels": refused(nested(900), "invalid_input", "the row [[[[["),
    "with one row wrong": refused(query(inputs=[[1], ["x"]]), "invalid_input", "row 1: ", output=[-1, -1]),
    "of rows of two lengths": refused(query(inputs=[[1], [1, 2]]), "invalid_input", "same shape", output=[-1, -1]),
    "with input and inputs": refused(query(input=[1], inputs=[[1]]), "invalid_input", "leave one of them", output=[-1]),
    "with neither": refused(query(), "invalid_input", "neither input nor inputs"),
    "with no rows": refused(query(inputs=[]), "invalid_input", "inputs is empty", output=[-1]),
    "with a deadline of 0": refused(query(input=[1], deadline_ms=0), "invalid_input", "give at least 1"),
    "with a long id": refused(
        query(input=[1], query_id="x" * 257), "invalid_input", "257 characters", query_id="x" * 257
    ),
    "claiming an id of a router": refused(query(input=[1], query_id="2@41"), "invalid_input", "choose another id"),
    "naming a stranger": refused(query(input=[1], models=["who:1"]), "unknown_model", "no candidates of 'sums'"),
    "naming nobody": refused(query(input=[1], models=[]), "invalid_input", "models is empty"),
    "that is no JSON": dead(b"{'application': 'sums'}", "not application/json"),
    "that is no query": dead(b'{"input": [1]}', "missing required field `application`"),
    "that is a list": dead(b"[1, 2, 3]", "Expected `object`, got `array`"),
    "that is empty": dead(b"", "the value is empty"),
    "that is null": dead(None, "the value is empty", key=b"deleted"),
    "with a deadline of text": dead(query(input=[1], deadline_ms="soon"), "`$.deadline_ms`"),
    "with NaN": dead(b'{"application": "sums", "input": [NaN]}', "malformed"),
    "of a row that is not UTF-8": refused(b'{"application": "sums", "input": "\xff\xfe"}', "invalid_input", "a row of"),
    "that is not UTF-8": dead(b'{"application": "\xff\xfe", "input": [1]}', "utf-8"),
    "of 100 000 levels": dead(nested(100_000), "recursion"),
    "of a megabyte of nothing": dead(b"\0" * 1_048_000, "malformed"),
    "of an unknown content type": dead(query(input=[1]), "'text/csv'", headers={"content-type": b"text/csv"}),
    "of msgpack that says JSON": dead(pack({"application": "sums", "input": [1]}), "not application/json"),
    "of JSON that says msgpack": dead(query(input=[1]), "not application/msgpack", headers=MSGPACK),
    "of a msgpack extension": dead(b"\x81\xa5input\xd4\x05\x00", "extension type 5", headers=MSGPACK),
}


@dataclass
class Deployment:
    """A deployment, and who talks to it."""

    program: Program
    client: AnyClient
    predictions: Reading
    temporary: Path

    def answers(self, sent: Record) -> list[Record]:
        """The predictions about the query of this record, so far."""
        about = (sent.partition, sent.offset)
        return [one for one in self.predictions.records if (one.partition, one.content["query_offset"]) == about]

    def answer(self, sent: Record) -> Record:
        """The prediction about the query of this record."""
        self.predictions.until("an answer", lambda _: self.answers(sent))
        return self.answers(sent)[0]

    def rows(self) -> dict[RowKey, Row]:
        """The selection table, from its changelog."""
        return table(self.client.read(CHANGELOG))

    def learned(self) -> dict[RowKey, Row]:
        """The selection table when all feedback is in it."""

        def holds() -> dict[RowKey, Row]:
            rows = self.rows()
            ends = {one.partition: one.offset for one in self.client.read(FEEDBACK)}
            return rows if positions(rows) == ends else {}

        return until("all feedback is in the table", holds)

    def dead_letters(self, topic: str) -> dict[tuple[int, int], Record]:
        """The dead letters from this topic, by partition and offset of the original."""
        return {
            (int(letter.headers[ERRORS + "partition"]), int(letter.headers[ERRORS + "offset"])): letter
            for letter in self.client.read(DEAD_LETTERS)
            if letter.headers[ERRORS + "topic"].decode() == topic
        }


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    folder = tmp_path_factory.mktemp("up")
    temporary = folder / "temporary"
    temporary.mkdir()
    environ = environment(TMPDIR=str(temporary))
    with Program("up", "--config", str(CONFIGURATION), folder=folder, environ=environ) as program:
        bootstrap = program.ready()["bootstrap"]
        with AnyClient(bootstrap) as client, client.reading(PREDICTIONS) as predictions:
            yield Deployment(program, client, predictions, temporary)


@pytest.fixture(scope="module")
def sent(deployment: Deployment) -> dict[str, Record]:
    """Every case, sent at once; everything that is answered has been."""
    client = deployment.client
    records = {
        name: client.send(
            QUERIES,
            case.value,
            key=case.key,
            headers=case.headers,
            partition=-1 if case.key else number % PARTITIONS,
        )
        for number, (name, case) in enumerate(CASES.items())
    }
    last = [client.send(QUERIES, query(input=[1]), partition=number) for number in range(PARTITIONS)]
    wanted = [*last, *(records[name] for name, case in CASES.items() if not case.dead)]
    deployment.predictions.until("every answer", lambda _: all(map(deployment.answers, wanted)))
    return records


def named(dead: bool) -> list[str]:
    return [name for name, case in CASES.items() if case.dead == dead]


def test_the_client_of_these_tests_knows_nothing_of_this_project():
    tree = ast.parse(Path(__file__).with_name("any_client.py").read_text())
    imports = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imports |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not any(name.startswith("clipper") for name in imports)


@pytest.mark.parametrize("name", named(dead=False))
def test_a_query_is_answered_once(deployment, sent, name):
    case, record = CASES[name], sent[name]
    (answer,) = deployment.answers(record)
    content = answer.content
    expected = {"query_id": f"{record.partition}@{record.offset}", **case.expected}
    assert {field: content.get(field) for field in expected} == expected
    assert (answer.key, answer.partition) == (record.key, record.partition)
    assert case.says in content.get("explanation", "")
    assert ("explanation" in content) == content.get("default", False)
    in_msgpack = b"msgpack" in case.headers.get("content-type", b"")
    assert answer.headers["content-type"] == (MSGPACK if in_msgpack else JSON)["content-type"]


@pytest.mark.parametrize("name", named(dead=True))
def test_a_record_that_is_no_query_becomes_a_dead_letter_as_it_was(deployment, sent, name):
    case, record = CASES[name], sent[name]
    letter = deployment.dead_letters(QUERIES)[record.partition, record.offset]
    assert (letter.key, letter.value) == (record.key, record.value)
    assert {name: letter.headers[name] for name in case.headers} == case.headers
    assert case.says in letter.headers[ERRORS + "message"].decode()
    assert deployment.answers(record) == []


def test_every_record_had_one_outcome(deployment, sent):
    letters = deployment.dead_letters(QUERIES)
    answers = deployment.predictions.to_the_end()
    assert len(letters) == len(named(dead=True))
    assert len(answers) == len(named(dead=False)) + PARTITIONS


def test_an_answer_says_who_was_asked_and_how_probable_that_was(deployment, sent):
    (chosen,), (by_name,) = deployment.answers(sent["with an id"]), deployment.answers(sent["naming a model"])
    assert chosen.content["policy"] == {"name": "exp3"}
    assert [model["propensity"] for model in chosen.content["models"]] == [0.5]
    assert [(model["model"], model["propensity"]) for model in by_name.content["models"]] == [("sum", 1.0)]


def test_a_query_is_answered_at_its_deadline_by_default(deployment):
    value = query(input=[30.5, 41], models=["slow-sum"], deadline_ms=300)  # a batch takes a second
    answer = deployment.answer(deployment.client.send(QUERIES, value)).content
    assert (answer["output"], answer["default"]) == (-1, True)
    assert answer["reason"] in {"late", "arrived_late"}


def test_a_query_that_is_asked_again_has_the_same_answer_again(deployment):
    def answers(_):
        return [one.value for one in deployment.predictions.records if one.content["query_id"] == "again"]

    def ask(numbers):
        deployment.client.send(QUERIES, query(query_id="again", input=numbers), key=b"again")

    ask([1, 2])
    ask([1, 2])
    deployment.predictions.until("both answers", lambda records: len(answers(records)) == 2)
    ask([10, 20])
    deployment.predictions.until("a third answer", lambda records: len(answers(records)) == 3)
    assert len(set(answers(()))) == 1
    assert json.loads(answers(())[0])["output"] == 3.0


def test_an_answer_repeats_the_headers_that_correlate_it(deployment):
    headers = {"correlation-id": b"\x00\xff", "traceparent": b"00-1-2-01"}
    one = deployment.client.send(QUERIES, query(input=[1, 8]), headers={**headers, "tenant": b"7"})
    packed = pack({"application": "sums", "inputs": [[1], [8]]})
    several = deployment.client.send(QUERIES, packed, headers=MSGPACK | headers)
    assert deployment.answer(one).headers == JSON | headers
    assert deployment.answer(several).headers == MSGPACK | headers


@dataclass(frozen=True)
class Truth:
    """Feedback about a query of its own, and what becomes of it.

    Attributes:
        truths: Each is sent as one record, about the query.
        loss: Of the answer, when the first of them is learned from; None: nothing is learned.
        asked: Fields of the query, besides its context.
        elsewhere: Sent without a key, to another partition than the query's.
    """

    truths: tuple[Mapping[str, Any], ...]
    loss: float | None
    asked: Mapping[str, Any] = field(default_factory=lambda: {"input": [1, 2]})
    elsewhere: bool = False
    packed: bool = False


TRUTHS = {
    "a label": Truth(({"label": 3.25},), 0.25),
    "a loss": Truth(({"loss": 0.75},), 0.75),
    "a reward": Truth(({"reward": 0.75},), 0.25),
    "a loss beside null": Truth(({"label": None, "loss": 0.625, "reward": None, "application": None},), 0.625),
    "labels of rows": Truth(({"label": [3, 8]},), 0.5, {"inputs": [[1, 2], [3, 4]]}),
    "msgpack": Truth(({"label": 3.5},), 0.5, packed=True),
    "an id and no key": Truth(({"label": 3.125},), 0.125, elsewhere=True),
    "a second time": Truth(({"loss": 0.5}, {"loss": 0.0}, {"label": 9}), 0.5),
    "a mistake first": Truth(({"label": "three"}, {"loss": 0.5}), 0.5),
    "a model that was named": Truth(({"label": 3.5},), None, {"input": [1, 2], "models": ["sum"]}),
    "no answer": Truth(({"label": 3.5},), None, {"input": "1, 2"}),
}


def huge(query_id: str) -> bytes:
    """Feedback that one header more would make too large for the broker."""
    return json.dumps({"query_id": query_id, "label": "x" * 1_048_400}).encode()


REFUSED = {
    "nobody's query": (b'{"query_id": "never asked", "label": 1}', "no decision about query 'never asked'"),
    "nobody's partition": (b'{"query_id": "99@1", "label": 1}', "no decision about query '99@1'"),
    "a megabyte for partition 0": (huge("0@999999"), "no decision about query '0@999999'"),
    "a megabyte for partition 1": (huge("1@999999"), "no decision about query '1@999999'"),
    "no JSON": (b"{query_id: 1}", "malformed"),
    "nothing": (b"", "the value is empty"),
    "no truth": (b'{"query_id": "again"}', "the feedback has no truth"),
    "two truths": (b'{"query_id": "again", "label": 1, "loss": 0}', "label and loss: give exactly one"),
    "a loss of 2": (b'{"query_id": "again", "loss": 2}', "<= 1.0"),
    "another application": (b'{"query_id": "again", "application": "pairs", "label": 1}', "of application 'pairs'"),
    "a text": (b'{"query_id": "again", "label": "three"}', "no two finite numbers"),
    "900 levels": (b'{"query_id": "again", "label": ' + b"[" * 900 + b"]" * 900 + b"}", "another shape"),
}


@dataclass
class Learned:
    """What was told, and the selection table after it."""

    answers: dict[str, Record]
    feedback: dict[str, list[Record]]
    rows: dict[RowKey, Row]
    letters: dict[tuple[int, int], Record]


@pytest.fixture(scope="module")
def learned(deployment: Deployment, sent: dict[str, Record]) -> Learned:
    """All feedback, sent at once, about queries with a context each."""
    client = deployment.client
    asked = {
        name: client.send(QUERIES, query(context=name, **truth.asked), key=name.encode())
        for name, truth in TRUTHS.items()
    }
    answers = {name: deployment.answer(record) for name, record in asked.items()}
    feedback = {
        name: [
            _tell(client, asked[name], {"query_id": answers[name].content["query_id"], **one}, truth)
            for one in truth.truths
        ]
        for name, truth in TRUTHS.items()
    }
    feedback |= {name: [client.send(FEEDBACK, value, key=b"again")] for name, (value, _) in REFUSED.items()}
    return Learned(answers, feedback, deployment.learned(), deployment.dead_letters(FEEDBACK))


def _tell(client: AnyClient, asked: Record, content: Mapping[str, Any], truth: Truth) -> Record:
    send = client.send_msgpack if truth.packed else client.send_json
    if truth.elsewhere:
        return send(FEEDBACK, content, partition=(asked.partition + 1) % PARTITIONS)
    return send(FEEDBACK, content, key=asked.key)


@pytest.mark.parametrize("name", TRUTHS)
def test_feedback_counts_once_for_who_was_asked(learned, name):
    truth, answer = TRUTHS[name], learned.answers[name]
    row = learned.rows.get(("sums", name, answer.partition))
    if truth.loss is None:
        assert row is None
        return
    (model,) = answer.content["models"]
    propensity = model["propensity"]
    assert row is not None
    assert row.applied == 1
    assert row.totals == {f"{model['model']}:1": [1.0, truth.loss, truth.loss / propensity, 1.0 / propensity]}


@pytest.mark.parametrize("name", REFUSED)
def test_feedback_that_cannot_be_used_becomes_a_dead_letter_as_it_was(learned, name):
    (record,) = learned.feedback[name]
    letter = learned.letters[record.partition, record.offset]
    assert (letter.key, letter.value) == (record.key, record.value)
    assert REFUSED[name][1] in letter.headers[ERRORS + "message"].decode()


def test_no_other_feedback_became_a_dead_letter(learned):
    mistake = learned.feedback["a mistake first"][0]
    refused = {(record.partition, record.offset) for name in REFUSED for record in learned.feedback[name]}
    assert learned.letters.keys() == refused | {(mistake.partition, mistake.offset)}


def test_feedback_that_asks_for_it_is_acknowledged_with_its_outcome(deployment):
    client, headers = deployment.client, {"correlation-id": b"told"}
    asked = client.send(QUERIES, query(query_id="told", inputs=[[1, 2], [3, 4]]), key=b"told")
    content = {"query_id": "told", "label": [3, 7], "ack": True}
    deployment.answer(asked)
    first, second = (client.send_json(FEEDBACK, content, key=b"told", headers=headers) for _ in range(2))
    client.send_json(FEEDBACK, {**content, "ack": False}, key=b"told")
    lost = client.send_json(FEEDBACK, {**content, "query_id": "never"}, key=b"told")
    with client.reading(ACKS) as acks:
        found = acks.until("three acknowledgements", lambda records: len(records) == 3)
    outcomes = [(ack.content["outcome"], ack.content["feedback_offset"]) for ack in found]
    assert outcomes == [("applied", first.offset), ("duplicate", second.offset), ("orphan", lost.offset)]
    assert {(ack.key, ack.partition, ack.headers.get("correlation-id")) for ack in found[:2]} == {
        (b"told", asked.partition, b"told")
    }


def test_any_client_sees_which_applications_there_are(deployment):
    records = {one.key: one.content for one in deployment.client.read("clipper.control") if one.value}
    inputs = {key: one["input"] for key, one in records.items() if key.startswith(b"application/")}
    assert inputs == {b"application/sums": {}, b"application/pairs": {"dtype": "int32", "shape": [2]}}


def test_feedback_may_come_before_the_prediction(deployment):
    asked = deployment.client.send(QUERIES, query(context="early", query_id="early", input=[5]), key=b"early")
    deployment.client.send_json(FEEDBACK, {"query_id": "early", "loss": 1.0}, key=b"early")
    assert deployment.learned()["sums", "early", asked.partition].applied == 1


def test_ctrl_c_ends_everything_and_the_ready_line_is_the_only_output(deployment):
    program, started = deployment.program, deployment.program.children()
    assert any("kafka.Kafka" in process.command for process in started)
    program.signal(signal.SIGINT)
    assert program.ended() == 0, program.log[-4000:]
    assert program.lines == [f"ready bootstrap={deployment.client.bootstrap}"]
    until("no process is left", lambda: not any(process.runs for process in started), 10.0)
    assert list(deployment.temporary.iterdir()) == []


def test_a_kafka_that_the_environment_names_is_used_instead_of_a_broker(kafka, catalogue, tmp_path):
    environ = environment_of(kafka, catalogue)
    with Program("up", "--config", str(EXAMPLE), folder=tmp_path, environ=environ) as program:
        assert program.ready() == {"bootstrap": kafka.bootstrap}
        assert not any("kafka.Kafka" in process.command for process in program.children())
        done = run("predict", "sums", "[1, 2, 3]", folder=tmp_path, environ=environ)
        assert (done.code, json.loads(done.out)["query_id"][1]) == (0, "-"), done.err
        program.signal(signal.SIGTERM)
        assert program.ended() == 0, program.log[-4000:]
