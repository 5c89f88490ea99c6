"""What a message tells to type is typed, and then the refused command is taken, or there is nothing left to do."""

import json
import re
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from e2e.programs import Program, Shell, environment_of
from kafka_fixture import own_topics

from clipper_agents import exits
from clipper_topics.connection import KafkaConnection

EXAMPLE = (Path(__file__).parents[2] / "examples/clipper.toml").read_text()
DEPLOY = "model deploy slow-sum:2 --uri clipper_agents.examples.models:slow --application sums --unchecked"


@dataclass(frozen=True)
class Session(Shell):
    """A shell with the example's configuration, and topics that are not made yet."""

    def quiet(self, line: str) -> str:
        """What a command prints that succeeds, and says nothing else."""
        done = self.run(line)
        assert (done.code, done.err) == (0, []), line
        return done.out

    def ask(self, words: str) -> dict[str, Any]:
        return dict(json.loads(self.run(f"predict sums {words}").out))

    def advised(self, line: str, code: int = exits.FAILURE) -> list[str]:
        """The commands that the message of a refused one tells to type."""
        done = self.run(line)
        assert done.code == code, (line, done)
        return re.findall(r"`clipper-stream ([^`]+)`", "\n".join([done.out, *done.err]))


def in_folder(kafka: KafkaConnection, folder: Path) -> Iterator[Session]:
    (folder / "clipper.toml").write_text(EXAMPLE.replace("objective_ms = 200 ", "objective_ms = 60000 "))
    with own_topics(kafka) as topics:
        environ = environment_of(kafka, topics, CLIPPER_MODELS_ALLOWED_MODULES="clipper_agents.examples.models:")
        yield Session(folder, environ)


@pytest.fixture
def fresh(kafka: KafkaConnection, tmp_path: Path) -> Iterator[Session]:
    yield from in_folder(kafka, tmp_path)


@pytest.fixture(scope="module")
def session(kafka: KafkaConnection, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    yield from in_folder(kafka, tmp_path_factory.mktemp("session"))


@pytest.fixture(scope="module")
def applied(session: Session) -> None:
    """The topics and manifests are there."""
    for command in ("topics create", "apply"):
        session.quiet(f"{command} -c clipper.toml")


@pytest.fixture(scope="module")
def workers(session: Session, applied: None) -> Iterator[None]:
    """A host and a router that serve; they know of models and applications what was applied."""
    how = {"folder": session.folder, "environ": session.environ}
    with (
        Program("worker", "host", "slow-sum:1", "--instance", "host-a", **how) as host,
        Program("worker", "router", "--instance", "router-a", **how) as router,
    ):
        assert host.ready().items() >= {"role": "host", "model": "slow-sum:1", "instance": "host-a"}.items()
        assert router.ready().items() >= {"role": "router", "instance": "router-a"}.items()
        yield
        for worker in (host, router):
            worker.signal(signal.SIGTERM)
        assert [worker.ended() for worker in (host, router)] == [0, 0]
        assert [len(worker.lines) for worker in (host, router)] == [1, 1]


def test_a_query_at_fault_ends_with_5_and_its_default(session, workers):
    for line, reason in (
        ("sums '\"text\"'", "invalid_input"),
        ("nobody [1]", "unknown_application"),
        ("sums [1] --model who:1", "unknown_model"),
    ):
        done = session.run(f"predict {line}")
        assert (done.code, json.loads(done.out)["reason"]) == (exits.REFUSED, reason)
        assert [line.startswith("error: ") for line in done.err] == [True], done.err


def test_feedback_that_is_waited_for_says_what_became_of_it(session, workers):
    def told(query_id, label):
        done = session.run(f"feedback {query_id} --label {label} --wait 60")
        return done.code, done.out.strip(), [line.partition(":")[0] for line in done.err]

    first, second = session.ask("[7]")["query_id"], session.ask("[8]")["query_id"]
    assert told(first, "7") == (exits.OK, "applied", [])
    assert told(first, "7") == (exits.REPEATED, "duplicate", [])
    assert told(second, "'\"eight\"'") == (exits.REFUSED, "invalid", ["error"])
    assert told(second, "8") == (exits.OK, "applied", [])
    assert told(f"0-{'0' * 32}", "1") == (exits.ORPHAN, "orphan", ["error"])


@pytest.mark.parametrize(
    ("line", "code", "says"),
    [
        ("feedback mine --label 1", exits.FAILURE, "which partition query 'mine' is in"),
        ("worker host who:1 --instance x", exits.SETUP, "'who:1'"),
        ("loadgen --application nobody --seconds 1", exits.FAILURE, "'nobody'"),
        ("predict sums [1] --set kafka.prefix=none", exits.SETUP, "none.queries"),
        ("topics create --set kafka.partitions=3", exits.SETUP, "has 2 partitions"),
    ],
)
def test_each_problem_is_told_in_one_line_with_an_exit_code(session, applied, line, code, says):
    done = session.run(line)
    assert (done.code, done.out, says in done.err[-1]) == (code, "", True)
    assert all(line.startswith("error: ") for line in done.err)


def test_a_question_that_nobody_answers_ends_with_1(session, kafka):
    with own_topics(kafka) as idle:
        elsewhere = f"--set kafka.prefix={idle.prefix}"
        session.quiet(f"topics create {elsewhere}")
        waits = {"predict sums [1] --timeout-s 1": "no answer", "feedback 0@1 --label 1 --wait 1": "no router"}
        for line, says in waits.items():
            done = session.run(f"{line} {elsewhere}")
            assert (done.code, done.out, len(done.err)) == (exits.FAILURE, "", 1)
            assert says in done.err[0]


# --- what messages advise ---------------------------------------------------------------------------------------------
def test_where_topics_are_missing_the_command_that_makes_them_is_named(fresh: Session) -> None:
    for line in ("status --watch", "feedback 0-1 --label 1", "replay verify"):
        assert fresh.advised(line, exits.SETUP)[0] == "topics create", line
    assert fresh.advised("status")[0] == "topics create"
    fresh("topics create")
    fresh("apply")
    assert any("sums" in line for line in fresh("application list"))


def test_each_refused_change_names_the_one_that_is_meant(fresh: Session) -> None:
    for line in ("topics create", "apply", DEPLOY, "model abort slow-sum:2 --application sums"):
        fresh(line)
    promote = "model promote slow-sum:2 --application sums"
    for line, advised in (
        (promote, "model shadow slow-sum:2 --application sums"),
        (f"{promote} --revision 1", "application history sums"),
        ("", promote),
        ("model abort slow-sum:2 --application sums", "model retire slow-sum:2 --application sums"),
        ("model delete slow-sum:1", "model retire slow-sum:1 --application sums"),
        ("model retire sum:1 --application sums", "application delete sums"),
        ("", "model delete slow-sum:1"),
    ):
        assert not line or fresh.advised(line) == [advised]
        fresh(advised)
    done = fresh.run("application list")
    assert "no applications" in "".join([done.out, *done.err])


def test_a_position_without_a_letter_is_answered_by_the_command_that_lists_them(fresh: Session) -> None:
    fresh("topics create")
    assert fresh.advised("dead-letters show 7") == ["dead-letters list"]
    fresh("dead-letters list")
