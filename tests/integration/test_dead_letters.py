import json

import pytest
from e2e.any_client import AnyClient

from clipper_agents import exits
from clipper_topics.dead_letter import CUT, dead_letter_headers

FEEDBACK = b'{"query_id": "0-1", "loss": 0}'


class Operator:
    def __init__(self, kafka, catalogue, shell):
        self.client, self.catalogue, self.shell = AnyClient(kafka.bootstrap), catalogue, shell

    def letter(self, topic, value, key=None, partition=0, **headers):
        """Put a letter there, as the pipeline does; its position."""
        said = dead_letter_headers(topic, partition, 41, ValueError("\x1b[31mno such \u00e9 thing"))
        kept = {name.replace("_", "-"): content for name, content in headers.items()}
        return self.client.send(self.catalogue.dead_letters, value, key=key, headers={**kept, **dict(said)}).offset

    def run(self, *arguments, code=exits.OK, said=""):
        """What a command prints; it says at most one line of what is wrong."""
        done = self.shell.run("dead-letters", *arguments)
        assert (done.code, len(done.err) < 2) == (code, True), done
        assert said in "".join(done.err)
        return done.out

    def listed(self, *arguments):
        return [json.loads(line) for line in self.run("list", "--json", *arguments).splitlines()]

    def read(self, topic):
        return [(one.partition, one.key, one.value) for one in self.client.read(topic)]


@pytest.fixture
def operator(kafka, catalogue, shell):
    return Operator(kafka, catalogue, shell)


def test_letters_are_listed_shown_and_replayed(operator):
    catalogue = operator.catalogue
    assert operator.run("list").strip() == "no dead letters"
    of_first = {"content_type": b"application/json", "clipper-forwarded": b"2 1700000000000"}
    first = operator.letter(catalogue.feedback, FEEDBACK, b"ada", 1, **of_first)
    second = operator.letter(catalogue.queries, b"\xff\x00\x01", b"alan")
    cut = operator.letter(catalogue.outputs, b"xxx", **{CUT: b"value of 9 bytes"})
    foreign = operator.letter("somebody.else", b"{}")
    strange = operator.client.send(catalogue.dead_letters, b"no letter").offset
    rows = operator.listed()
    assert [row["position"] for row in rows] == [strange, foreign, cut, second, first]
    assert (rows[-1]["topic"], rows[-1]["partition"], rows[-1]["offset"]) == (catalogue.feedback, 1, 41)
    assert (rows[-1]["error"], rows[-1]["message"]) == ("ValueError", "\x1b[31mno such \u00e9 thing")
    chosen = operator.listed("--topic", "feedback", "--since", "1h", "--error", "SUCH", "--limit", "5")
    assert [row["position"] for row in chosen] == [first]
    table = operator.run("list")
    assert "ValueError" in table
    assert "\x1b" not in table
    shown = operator.run("show", str(first))
    assert all(part in shown for part in ("0-1", "application/json", "ValueError"))
    assert r"\xff\x00\x01" in operator.run("show", str(second))

    done = operator.run("replay", str(first), str(second), "--yes")
    assert f"{first}: sent to {catalogue.feedback}[1] at offset 0" in done
    (feedback,) = operator.client.read(catalogue.feedback)
    assert (feedback.partition, feedback.key, feedback.value) == (1, b"ada", FEEDBACK)
    assert feedback.headers == {"content-type": b"application/json", "clipper-replayed-from": str(first).encode()}
    assert operator.read(catalogue.queries) == [(0, b"alan", b"\xff\x00\x01")]

    refused = operator.run("replay", "--all", "--from", str(cut), "--yes", code=exits.FAILURE)
    assert "it was cut when it was kept (value of 9 bytes)" in refused
    assert "'somebody.else' is none that this deployment" in refused
    assert f"{strange}: not replayed, it is no dead letter" in refused
    assert "0 replayed, 3 not" in refused


def test_a_letter_with_neither_key_nor_value_keeps_no_other_from_its_replay(operator):
    topic = operator.catalogue.feedback
    first, empty, last = (operator.letter(topic, value) for value in (FEEDBACK, None, FEEDBACK))
    done = operator.run("replay", "--all", "--yes", code=exits.FAILURE)
    assert f"{empty}: not replayed, it has neither key nor value" in done
    assert done.splitlines()[-1] == "2 replayed, 1 not"
    assert [value for _, _, value in operator.read(topic)] == [FEEDBACK, FEEDBACK]
    missing = ("replay", str(first), str(last), str(last + 1), "--yes")
    broken = operator.run(*missing, code=exits.FAILURE, said=str(last + 1))
    assert broken.startswith(f"0 replayed, 0 not\nbroken off before position {first}: go on with --all --from {first}")


def test_what_is_wrong_is_said_in_one_line(operator):
    position = operator.letter(operator.catalogue.feedback, FEEDBACK)
    missing = f"no dead letter at position {position + 7}, positions go from 0 to {position}"
    operator.run("show", str(position + 7), code=exits.FAILURE, said=missing)
    elsewhere = "topic nowhere.dead-letters does not exist"
    operator.run("list", "--set", "kafka.prefix=nowhere", code=exits.SETUP, said=elsewhere)
    assert operator.shell.run("dead-letters", "replay", str(position)).code == exits.FAILURE, "nobody has confirmed"
    assert operator.read(operator.catalogue.feedback) == []
    for wrong in (("replay",), ("list", "--since", "yesterday")):
        assert operator.shell.run("dead-letters", *wrong).code == exits.USAGE
