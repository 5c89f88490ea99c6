"""Dead letters as an operator sees them: listed, shown, replayed once, and never cut in silence."""

import json
from collections.abc import Callable

import pytest
from e2e.any_client import AnyClient, Record
from e2e.programs import Done

from clipper_topics.catalogue import Catalogue
from clipper_topics.connection import KafkaConnection
from clipper_topics.dead_letter import CUT, dead_letter_headers

pytestmark = pytest.mark.integration

FEEDBACK = b'{"query_id": "0-1", "loss": 0}'


class Operator:
    """Writes letters, and runs commands."""

    def __init__(self, kafka: KafkaConnection, catalogue: Catalogue, run: Callable[..., Done]) -> None:
        self.client, self.catalogue, self._run = AnyClient(kafka.bootstrap), catalogue, run

    def letter(
        self, topic: str, value: bytes | None, key: bytes | None = None, partition: int = 0, **headers: bytes
    ) -> int:
        """Put a letter there, as the pipeline does; its position."""
        said = dead_letter_headers(topic, partition, 41, ValueError("\x1b[31mno such \u00e9 thing"))
        kept = {name.replace("_", "-"): content for name, content in headers.items()}
        return self.client.send(self.catalogue.dead_letters, value, key=key, headers={**kept, **dict(said)}).offset

    def run(self, *arguments: str) -> Done:
        return self._run("dead-letters", *arguments)

    def read(self, topic: str) -> list[Record]:
        return self.client.read(topic)


@pytest.fixture
def operator(kafka, catalogue, shell) -> Operator:
    return Operator(kafka, catalogue, shell.run)


def test_letters_are_listed_shown_and_replayed_once(operator: Operator) -> None:
    catalogue = operator.catalogue
    assert operator.run("list").out.strip() == "no dead letters"
    first = operator.letter(catalogue.feedback, FEEDBACK, b"ada", 1, content_type=b"application/json")
    second = operator.letter(catalogue.queries, b"\xff\x00\x01", b"alan")
    cut = operator.letter(catalogue.outputs, b"xxx", None, 0, **{CUT: b"value of 9 bytes"})
    foreign = operator.letter("somebody.else", b"{}")
    strange = operator.client.send(catalogue.dead_letters, b"no letter").offset
    rows = [json.loads(line) for line in operator.run("list", "--json").out.splitlines()]
    assert [row["position"] for row in rows] == [strange, foreign, cut, second, first]
    assert (rows[-1]["topic"], rows[-1]["partition"], rows[-1]["offset"]) == (catalogue.feedback, 1, 41)
    assert (rows[-1]["error"], rows[-1]["message"]) == ("ValueError", "\x1b[31mno such \u00e9 thing")
    chosen = operator.run("list", "--json", "--topic", "feedback", "--since", "1h", "--error", "SUCH", "--limit", "5")
    assert [json.loads(line)["position"] for line in chosen.out.splitlines()] == [first]
    table = operator.run("list").out
    assert "ValueError" in table
    assert "\x1b" not in table
    shown = operator.run("show", str(first)).out
    assert all(part in shown for part in ('"query_id": "0-1"', "content-type: application/json", "ValueError"))
    assert "ff 00 01" in operator.run("show", str(second)).out

    done = operator.run("replay", str(first), str(second), "--yes")
    assert done.code == 0, done
    assert f"{first}: sent to {catalogue.feedback}[1] at offset 0" in done.out
    (feedback,) = operator.read(catalogue.feedback)
    assert (feedback.partition, feedback.key, feedback.value) == (1, b"ada", FEEDBACK)
    assert feedback.headers == {"content-type": b"application/json", "clipper-replayed-from": str(first).encode()}
    (query,) = operator.read(catalogue.queries)
    assert (query.partition, query.key, query.value) == (0, b"alan", b"\xff\x00\x01")

    refused = operator.run("replay", "--all", "--yes")
    assert refused.code == 1
    assert refused.out.count("it was replayed before") == 2
    assert "it was cut when it was kept (value of 9 bytes)" in refused.out
    assert "'somebody.else' is none that this deployment" in refused.out
    assert f"{strange}: not replayed, it is no dead letter" in refused.out
    assert "0 replayed, 5 not" in refused.out
    assert len(operator.read(catalogue.feedback)) == 1

    assert operator.run("replay", str(first), "--yes", "--again").code == 0
    assert len(operator.read(catalogue.feedback)) == 2


def test_a_letter_with_neither_key_nor_value_keeps_no_other_from_its_replay(operator: Operator) -> None:
    topic = operator.catalogue.feedback
    first, empty, last = (operator.letter(topic, value) for value in (FEEDBACK, None, FEEDBACK))
    done = operator.run("replay", "--all", "--yes")
    assert (done.code, done.err) == (1, [])
    assert f"{empty}: not replayed, it has neither key nor value" in done.out
    assert done.out.splitlines()[-1] == "2 replayed, 1 not"
    assert [one.value for one in operator.read(topic)] == [FEEDBACK, FEEDBACK]
    broken = operator.run("replay", str(first), str(last), str(last + 1), "--again", "--yes")
    assert (broken.code, len(broken.err)) == (1, 1)
    assert broken.out.startswith(f"0 replayed, 0 not\nbroken off before position {first}: the same command goes on")


def test_what_is_wrong_is_said_in_one_line(operator: Operator) -> None:
    position = operator.letter(operator.catalogue.feedback, FEEDBACK)
    missing = operator.run("show", str(position + 7))
    assert (missing.code, len(missing.err)) == (1, 1)
    assert f"no dead letter at position {position + 7}, positions go from 0 to {position}" in missing.err[0]
    elsewhere = operator.run("list", "--set", "kafka.prefix=nowhere")
    assert (elsewhere.code, len(elsewhere.err)) == (3, 1)
    assert "topic nowhere.dead-letters does not exist" in elsewhere.err[0]
    unconfirmed = operator.run("replay", str(position))
    assert unconfirmed.code != 0
    assert operator.read(operator.catalogue.feedback) == []
    assert operator.run("replay").code == operator.run("list", "--since", "yesterday").code == 2
