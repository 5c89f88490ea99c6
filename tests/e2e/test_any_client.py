"""What is sent and read here knows nothing of this project but its wire contract."""

import json
import struct
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from e2e.any_client import JSON, MSGPACK, AnyClient, Reading, Record
from e2e.gateways import PARTITIONS, Deployment
from e2e.programs import until
from msgspec.msgpack import encode as pack
from oracle import Row, RowKey, positions, table

from clipper_topics.catalogue import Catalogue

ERRORS = "__streams.errors."
Place = tuple[int, int]
"""Partition and offset of a record."""


@dataclass(frozen=True)
class Case:
    """A query, and fields of its prediction, None when it becomes a dead letter; what explanation or letter `says`."""

    value: bytes | None
    expected: Mapping[str, Any] | None
    says: str = ""
    headers: Mapping[str, bytes] = field(default_factory=dict)
    key: bytes | None = None


def query(application: str = "learns", **fields: Any) -> bytes:
    return json.dumps({"application": application, **fields}).encode()


def packed(**fields: Any) -> dict[str, Any]:
    return {"value": pack({"application": "learns", **fields}), "headers": MSGPACK}


def answered(output: Any, value: bytes, query_id: str | None = None, context: str | None = None, **more: Any) -> Case:
    expected = {"outputs" if isinstance(output, list) else "output": output, "default": None, "reason": None}
    own = {"context": context, **({"query_id": query_id} if query_id else {})}
    return Case(value, expected | own, **more)


def refused(value: bytes, reason: str, says: str, output: Any = -1) -> Case:
    expected = {"outputs" if isinstance(output, list) else "output": output, "default": True, "reason": reason}
    return Case(value, expected, says)


def dead(value: bytes | None, says: str, **more: Any) -> Case:
    return Case(value, None, says, **more)


def nested(levels: int) -> bytes:
    return b'{"application": "learns", "input": ' + b"[" * levels + b"1" + b"]" * levels + b"}"


CASES = {
    "without an id": answered(6.0, query(input=[1, 2, 3])),
    "with an id": answered(3.0, query(query_id="mine", input=[1, 2]), query_id="mine"),
    "with a context": answered(4.0, query(context="ada", input=[4]), key=b"ada", context="ada"),
    "with a deadline of 400 digits": answered(1.0, query(input=[1], deadline_ms=10**400)),
    "naming a model": answered(6.0, query(input=[1, 5], models=["sum"])),
    "naming a version": answered(7.0, query(input=[1, 6], models=["hosted-sum:1"])),
    "of several rows": answered([3.0, 7.0, 11.0], query(inputs=[[1, 2], [3, 4], [5, 6]])),
    "of another application": answered(42, query("pairs", input=[20.0, 22.0])),
    "in msgpack": answered(3.5, **packed(input=[1.5, 2])),
    "in msgpack, rows": answered([1.5, 2.0], **packed(query_id="packed", inputs=[[1.5], [2]]), query_id="packed"),
    "in msgpack, raw bytes": answered(7.0, **packed(input=struct.pack("<3f", 1, 2, 4))),
    "of 300 000 numbers": answered(300_000.0, query(input=[1] * 300_000, models=["sum"])),
    "to nobody": refused(query("nobody", input=[1]), "unknown_application", "'nobody'", None),
    "of another shape": refused(query("pairs", input=[1, 2, 3]), "invalid_input", "shape [2]", None),
    "of text": refused(query(input="1, 2"), "invalid_input", "give float32 numbers"),
    "of 900 levels": refused(nested(900), "invalid_input", "the row [[[[["),
    "with one row wrong": refused(query(inputs=[[1], ["x"]]), "invalid_input", "row 1: ", [-1, -1]),
    "with input and inputs": refused(query(input=[1], inputs=[[1]]), "invalid_input", "leave one of them", [-1]),
    "claiming an id of a router": refused(query(input=[1], query_id="1@41"), "invalid_input", "choose another id"),
    "naming a stranger": refused(query(input=[1], models=["who:1"]), "unknown_model", "no candidates of 'learns'"),
    "of a row that is not UTF-8": refused(b'{"application": "learns", "input": "\xff"}', "invalid_input", "a row of"),
    "that is no JSON": dead(b"{'application': 'learns'}", "not application/json"),
    "that is no query": dead(b'{"input": [1]}', "missing required field `application`"),
    "that is empty": dead(b"", "the value is empty"),
    "that is null": dead(None, "the value is empty", key=b"deleted"),
    "with NaN": dead(b'{"application": "learns", "input": [NaN]}', "malformed"),
    "of 100 000 levels": dead(nested(100_000), "recursion"),
    "of an unknown content type": dead(query(input=[1]), "'text/csv'", headers={"content-type": b"text/csv"}),
    "of a msgpack extension": dead(b"\x81\xa5input\xd4\x05\x00", "extension type 5", headers=MSGPACK),
}


def place_of(record: Record) -> Place:
    return record.partition, record.offset


@dataclass
class Asker:
    """Who talks to a deployment by its topics alone."""

    client: AnyClient
    predictions: Reading
    topics: Catalogue

    def ask(self, value: bytes | None, **how: Any) -> Record:
        return self.client.send(self.topics.queries, value, **how)

    def tell(self, content: Any, **how: Any) -> Record:
        return self.client.send_json(self.topics.feedback, content, **how)

    def answers(self, sent: Record) -> list[Record]:
        found = self.predictions.records
        return [one for one in found if (one.partition, one.content["query_offset"]) == place_of(sent)]

    def answer(self, sent: Record) -> Record:
        self.predictions.until("an answer", lambda _: self.answers(sent))
        return self.answers(sent)[0]

    def learned(self) -> dict[RowKey, Row]:
        """The selection table, from its changelog, when all feedback is in it."""

        def holds() -> dict[RowKey, Row]:
            rows = table(self.client.read(self.topics.selection_changelog))
            ends = {one.partition: one.offset for one in self.client.read(self.topics.feedback)}
            return rows if positions(rows) == ends else {}

        return until("all feedback is in the table", holds)

    def dead_letters(self, topic: str) -> dict[Place, list[Record]]:
        """The dead letters from this topic, by where the original stands."""
        found: dict[Place, list[Record]] = {}
        for letter in self.client.read(self.topics.dead_letters):
            if letter.headers[ERRORS + "topic"].decode() == topic:
                partition, offset = (int(letter.headers[ERRORS + name]) for name in ("partition", "offset"))
                found.setdefault((partition, offset), []).append(letter)
        return found


@pytest.fixture(scope="module")
def asker(deployment: Deployment) -> Iterator[Asker]:
    topics = deployment.catalogue
    with AnyClient(deployment.bootstrap) as client, client.reading(topics.predictions) as predictions:
        yield Asker(client, predictions, topics)


@pytest.fixture(scope="module")
def sent(asker: Asker) -> dict[str, Record]:
    """Every case, sent at once; everything that is answered has been."""
    records = {}
    for number, (name, case) in enumerate(CASES.items()):
        how = {"key": case.key} if case.key else {"partition": number % PARTITIONS}
        records[name] = asker.ask(case.value, headers=case.headers, **how)
    last = [asker.ask(query(input=[1]), partition=number) for number in range(PARTITIONS)]
    wanted = [*last, *(records[name] for name, case in CASES.items() if case.expected is not None)]
    asker.predictions.until("every answer", lambda _: all(map(asker.answers, wanted)))
    return records


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.expected is not None])
def test_a_query_is_answered_once(asker, sent, name):
    case, record = CASES[name], sent[name]
    (answer,) = asker.answers(record)
    content = answer.content
    expected = {"query_id": f"{record.partition}@{record.offset}", **case.expected}
    assert {field: content.get(field) for field in expected} == expected
    assert (answer.key, answer.partition) == (record.key, record.partition)
    assert case.says in content.get("explanation", "")
    assert ("explanation" in content) == content.get("default", False)
    assert answer.headers["content-type"] == (MSGPACK if case.headers == MSGPACK else JSON)["content-type"]


def test_records_that_are_no_queries_become_dead_letters_as_they_were_and_every_record_has_one_outcome(asker, sent):
    letters, answers = asker.dead_letters(asker.topics.queries), asker.predictions.to_the_end()
    outcomes = [(one.partition, one.content["query_offset"]) for one in answers]
    outcomes += [place for place, found in letters.items() for _ in found]
    places = {place_of(record) for record in sent.values()}
    assert Counter(place for place in outcomes if place in places) == dict.fromkeys(places, 1)
    for name, case in CASES.items():
        if case.expected is None:
            record = sent[name]
            (letter,) = letters[place_of(record)]
            assert (letter.key, letter.value) == (record.key, record.value), name
            assert letter.headers.items() >= case.headers.items(), name
            assert case.says in letter.headers[ERRORS + "message"].decode()


def test_an_answer_says_who_was_asked_and_how_probable_that_was(asker, sent):
    (chosen,), (by_name,) = asker.answers(sent["with an id"]), asker.answers(sent["naming a model"])
    assert chosen.content["policy"] == {"name": "exp3"}
    assert [model["propensity"] for model in chosen.content["models"]] == [0.5]
    assert [(model["model"], model["propensity"]) for model in by_name.content["models"]] == [("sum", 1.0)]


def test_a_query_is_answered_at_its_deadline_by_default(deployment, asker):
    with deployment.holding():
        answer = asker.answer(asker.ask(query("held", input=[30.5, 41], deadline_ms=2000))).content
    assert (answer["output"], answer["default"], answer["reason"]) == (None, True, "late")


def test_a_query_that_is_asked_again_has_the_same_answer_again(asker):
    def answers(records):
        return [one.value for one in records if one.content["query_id"] == "again"]

    for rows, count in (([[1, 2], [1, 2]], 2), ([[10, 20]], 3)):
        for row in rows:
            asker.ask(query(query_id="again", input=row), key=b"again")
        found = asker.predictions.until("answers", lambda records, count=count: len(answers(records)) == count)
    (answer,) = {*answers(found)}
    assert json.loads(answer)["output"] == 3.0


def test_an_answer_repeats_the_headers_that_correlate_it(asker):
    headers = {"correlation-id": b"\x00\xff", "traceparent": b"00-1-2-01"}
    one = asker.ask(query(input=[1, 8]), headers={**headers, "tenant": b"7"})
    several = asker.ask(packed(inputs=[[1], [8]])["value"], headers=MSGPACK | headers)
    assert asker.answer(one).headers == JSON | headers
    assert asker.answer(several).headers == MSGPACK | headers


ROW: Mapping[str, Any] = {"input": [1, 2]}
TRUTHS: dict[str, tuple[float | None, Mapping[str, Any], list[dict[str, Any]]]] = {
    # the loss that is learned, None when nothing is; fields of a query of its own, and what is told about it
    "a label": (0.25, ROW, [{"label": 3.25}]),
    "a loss": (0.75, ROW, [{"loss": 0.75}]),
    "a reward": (0.25, ROW, [{"reward": 0.75}]),
    "a loss beside null": (0.625, ROW, [{"label": None, "loss": 0.625, "reward": None, "application": None}]),
    "labels of rows": (0.5, {"inputs": [[1, 2], [3, 4]]}, [{"label": [3, 8]}]),
    "msgpack": (0.5, ROW, [{"label": 3.5}]),
    "an id and no key": (0.125, ROW, [{"label": 3.125}]),  # to another partition than the query's
    "a second time": (0.5, ROW, [{"loss": 0.5}, {"loss": 0.0}, {"label": 9}]),
    "a mistake first": (0.5, ROW, [{"label": "three"}, {"loss": 0.5}]),
    "a model that was named": (None, {"input": [1, 2], "models": ["sum"]}, [{"label": 3.5}]),
    "no answer": (None, {"input": "1, 2"}, [{"label": 3.5}]),
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
    "no truth": (b'{"query_id": "refused"}', "the feedback has no truth"),
    "a loss of 2": (b'{"query_id": "refused", "loss": 2}', "<= 1.0"),
    "another application": (b'{"query_id": "refused", "application": "pairs", "label": 1}', "of application 'pairs'"),
    "a text": (b'{"query_id": "refused", "label": "three"}', "no two finite numbers"),
}


@dataclass
class Learned:
    """What was told, and the selection table after it."""

    answers: dict[str, Record]
    feedback: dict[str, list[Record]]
    rows: dict[RowKey, Row]
    letters: dict[Place, list[Record]]


@pytest.fixture(scope="module")
def learned(asker: Asker, sent: dict[str, Record]) -> Learned:
    """All feedback, sent at once, about queries with a context each."""
    asked = {name: asker.ask(query(context=name, **of), key=name.encode()) for name, (_, of, _) in TRUTHS.items()}
    answers = {name: asker.answer(record) for name, record in asked.items()}
    feedback = {name: [_tell(asker, name, answers[name], one) for one in told] for name, (*_, told) in TRUTHS.items()}
    asker.answer(asker.ask(query(query_id="refused", input=[1, 2]), key=b"refused"))
    topic = asker.topics.feedback
    feedback |= {name: [asker.client.send(topic, value, key=b"refused")] for name, (value, _) in REFUSED.items()}
    return Learned(answers, feedback, asker.learned(), asker.dead_letters(topic))


def _tell(asker: Asker, name: str, answer: Record, truth: Mapping[str, Any]) -> Record:
    content = {"query_id": answer.content["query_id"], **truth}
    if name == "msgpack":
        return asker.client.send(asker.topics.feedback, pack(content), key=answer.key, headers=MSGPACK)
    if name == "an id and no key":
        return asker.tell(content, partition=(answer.partition + 1) % PARTITIONS)
    return asker.tell(content, key=answer.key)


@pytest.mark.parametrize("name", TRUTHS)
def test_feedback_counts_once_for_who_was_asked(learned, name):
    loss, answer = TRUTHS[name][0], learned.answers[name]
    row = learned.rows.get(("learns", name, answer.partition))
    if loss is None:
        assert row is None
        return
    (model,) = answer.content["models"]
    propensity = model["propensity"]
    assert row is not None
    assert row.applied == 1
    assert row.totals == {f"{model['model']}:1": [1.0, loss, loss / propensity, 1.0 / propensity]}


def test_feedback_that_cannot_be_used_becomes_a_dead_letter_as_it_was_and_no_other_does(learned):
    for name, (_, says) in REFUSED.items():
        (record,) = learned.feedback[name]
        (letter,) = learned.letters[place_of(record)]
        assert (letter.key, letter.value) == (record.key, record.value), name
        assert says in letter.headers[ERRORS + "message"].decode()
    told = {place_of(one) for records in learned.feedback.values() for one in records}
    refused = {place_of(learned.feedback[name][0]) for name in [*REFUSED, "a mistake first"]}
    assert learned.letters.keys() & told == refused


def test_feedback_that_asks_for_it_is_acknowledged_with_its_outcome(asker):
    def about(records):
        return [one for one in records if one.key == b"told"]

    headers, place = {"correlation-id": b"told"}, {"key": b"told"}
    asked = asker.ask(query(query_id="told", inputs=[[1, 2], [3, 4]]), **place)
    content = {"query_id": "told", "label": [3, 7], "ack": True}
    asker.answer(asked)
    first, second = (asker.tell(content, headers=headers, **place) for _ in range(2))
    asker.tell({**content, "ack": False}, **place)
    lost = asker.tell({**content, "query_id": "never"}, **place)
    with asker.client.reading(asker.topics.feedback_acks) as acks:
        found = acks.until("three acknowledgements", lambda records: len(about(records)) == 3)
    outcomes = [(one.content["outcome"], one.content["feedback_offset"]) for one in about(found)]
    assert outcomes == [("applied", first.offset), ("duplicate", second.offset), ("orphan", lost.offset)]
    whose = {(one.partition, one.headers.get("correlation-id")) for one in about(found)[:2]}
    assert whose == {(asked.partition, b"told")}


def test_any_client_sees_which_applications_there_are(asker):
    records = {one.key: one.content for one in asker.client.read(asker.topics.control) if one.value}
    inputs = {name: records[b"application/" + name]["input"] for name in (b"learns", b"pairs")}
    assert inputs == {b"learns": {}, b"pairs": {"dtype": "int32", "shape": [2]}}


def test_feedback_may_come_before_the_prediction(deployment, asker):
    with deployment.holding():
        asked = asker.ask(query("held", context="early", query_id="early", input=[5]), key=b"early")
        asker.tell({"query_id": "early", "loss": 1.0}, key=b"early")
    assert asker.learned()["held", "early", asked.partition].applied == 1
