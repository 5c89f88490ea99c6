"""An operator's session: every command by hand, against the session's Kafka."""

import json
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from e2e.any_client import AnyClient
from e2e.programs import Done, Program, environment_of, run, until
from oracle import table

from clipper_agents import exits
from clipper_topics.catalogue import Catalogue

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

EXAMPLE = Path(__file__).parents[2] / "examples/clipper.toml"


@dataclass(frozen=True)
class Session:
    """A shell: a folder, and an environment that names the Kafka."""

    folder: Path
    environ: dict[str, str]
    config: Path
    topics: Catalogue
    client: AnyClient

    def run(self, *arguments: str, **environ: str) -> Done:
        """Run a command to its end."""
        return run(*arguments, folder=self.folder, environ=self.environ | environ)

    def printed(self, *arguments: str) -> str:
        """What a command prints that succeeds, and says nothing else."""
        done = self.run(*arguments)
        assert (done.code, done.err) == (0, [])
        return done.out

    def start(self, *arguments: str) -> Program:
        """Start a worker."""
        return Program("worker", *arguments, folder=self.folder, environ=self.environ)


@pytest.fixture(scope="module")
def session(kafka: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    folder, topics = tmp_path_factory.mktemp("session"), Catalogue(prefix="session", partitions=2)
    config = folder / "clipper.toml"
    config.write_text(EXAMPLE.read_text().replace("objective_ms = 200 ", "objective_ms = 60000 "))
    environ = environment_of(kafka, topics, CLIPPER_MODELS_ALLOWED_MODULES="clipper_agents.examples.models:")
    return Session(folder, environ, config, topics, AnyClient(kafka.bootstrap))


@pytest.fixture(scope="module")
def applied(session: Session) -> list[str]:
    """The topics and manifests are there; what `topics create` and `apply` printed."""
    lines = session.printed("topics", "create", "--config", str(session.config)).splitlines()
    return lines + session.printed("apply", "--config", str(session.config)).splitlines()


@pytest.fixture(scope="module")
def workers(session: Session, applied: list[str]) -> Iterator[dict[str, Program]]:
    """A host and a router that serve; they know of models and applications what was applied."""
    with (
        session.start("host", "slow-sum:1", "--instance", "host-a") as host,
        session.start("router", "--instance", "router-a") as router,
    ):
        assert host.ready().items() >= {"role": "host", "model": "slow-sum:1", "instance": "host-a"}.items()
        assert router.ready().items() >= {"role": "router", "instance": "router-a"}.items()
        yield {"host": host, "router": router}


def test_topics_are_created_and_manifests_published(session, applied):
    names = [spec.name for spec in session.topics.fixed_topics()] + [session.topics.requests("slow-sum", "1")]
    assert applied == [
        *(f"created {name}" for name in names),
        "model sum:1",
        "model slow-sum:1",
        "application sums revision 1: create",
    ]


def test_what_is_there_already_is_left_alone(session, applied):
    there = len(session.topics.fixed_topics()) + 1
    assert session.printed("topics", "create", "--config", str(session.config)).count("existing ") == there
    assert session.printed("apply", "--config", str(session.config)) == "nothing changed\n"


def test_topics_are_listed_with_their_partitions(session, applied):
    listed = session.printed("topics", "list").splitlines()
    assert f"{session.topics.queries} 2" in listed
    assert f"{session.topics.control} 1" in listed
    assert all(line.startswith("session.") for line in listed)


def test_a_question_is_answered_in_one_line_of_json(session, workers):
    answer = json.loads(session.printed("predict", "sums", "[1, 2, 3]"))
    assert (answer["output"], answer["default"], answer["application"]) == (6.0, False, "sums")
    by_name = json.loads(session.printed("predict", "sums", "[4]", "--model", "slow-sum:1", "--deadline-ms", "50000"))
    assert [(one["model"], one["propensity"]) for one in by_name["models"]] == [("slow-sum", 1.0)]


def test_a_default_is_an_answer_with_its_reason(session, workers):
    done = session.run("predict", "sums", "[1]", "--deadline-ms", "1", "--model", "slow-sum:1")
    answer = json.loads(done.out)
    assert (done.code, answer["output"], answer["default"]) == (exits.OK, -1, True)
    assert answer["reason"] in {"late", "arrived_late"}


@pytest.mark.parametrize(
    ("arguments", "reason", "says"),
    [
        (("sums", '"text"'), "invalid_input", "error: the row 'text': give float32 numbers"),
        (("nobody", "[1]"), "unknown_application", "error: application 'nobody' is not registered"),
        (("sums", "[1]", "--model", "who:1"), "unknown_model", "error: "),
    ],
)
def test_a_query_at_fault_ends_with_5_and_its_default(session, workers, arguments, reason, says):
    done = session.run("predict", *arguments)
    assert (done.code, json.loads(done.out)["reason"]) == (exits.REFUSED, reason)
    assert [line.startswith(says) for line in done.err] == [True], done.err


def test_feedback_by_hand_is_learned_from(session, workers):
    answer = json.loads(session.printed("predict", "sums", "[1, 2]", "--context", "ada"))
    assert session.printed("feedback", answer["query_id"], "--label", "2.5", "--context", "ada") == ""
    key = ("sums", "ada", int(answer["query_id"].partition("-")[0]))
    row = until(
        "the feedback is learned", lambda: table(session.client.read(session.topics.selection_changelog)).get(key)
    )
    (model,) = answer["models"]
    assert {name: sums[:2] for name, sums in row.totals.items()} == {f"{model['model']}:1": [1.0, 0.5]}


def test_feedback_that_is_waited_for_says_what_became_of_it(session, workers):
    def told(query_id, label):
        done = session.run("feedback", query_id, "--label", label, "--wait", "60")
        return done.code, done.out.strip(), [line.partition(":")[0] for line in done.err]

    first, second = (json.loads(session.printed("predict", "sums", row))["query_id"] for row in ("[7]", "[8]"))
    assert told(first, "7") == (exits.OK, "applied", [])
    assert told(first, "7") == (exits.REPEATED, "repeated", ["error"])
    assert told(second, '"eight"') == (exits.REFUSED, "refused", ["error"])
    assert told(second, "8") == (exits.OK, "applied", [])
    assert told(f"0-{'0' * 32}", "1") == (exits.ORPHAN, "orphan", ["error"])
    ended = session.run("feedback", first, "--label", "7", "--wait", "1", "--set", "kafka.prefix=none")
    assert ended.code == exits.SETUP


def test_load_is_answered_and_reported(session, workers):
    arguments = ("--application", "sums", "--rate", "100", "--seconds", "2", "--feedback-delay-ms", "10")
    done = session.run("loadgen", *arguments, "--json", "-")
    report = json.loads(done.out)
    assert (done.code, [line for line in done.err if not line.startswith("warning: ")]) == (0, [])
    assert report["queries"] == report["answered"] > 100
    assert (report["missing"], report["duplicates"], report["defaults"]) == (0, 0, {})
    assert report["feedback_sent"] == report["queries"]
    assert report["latency"]["p99_ms"] > 0


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("predict", "sums", "[1,"), exits.USAGE, "is no JSON"),
        (("feedback", "0-1"), exits.USAGE, "exactly one of --label, --loss and --reward"),
        (("feedback", "mine", "--label", "1"), exits.FAILURE, "which partition query 'mine' is in"),
        (("apply", "--config", "nowhere.toml"), exits.SETUP, "nowhere.toml: No such file"),
        (
            ("worker", "host", "who:1", "--instance", "x"),
            exits.SETUP,
            "model 'who:1' is neither configured nor published",
        ),
        (("loadgen", "--application", "nobody", "--seconds", "1"), exits.SETUP, "no application 'nobody'"),
        (("predict", "sums", "[1]", "--set", "kafka.prefix=none"), exits.SETUP, "none.queries"),
        (("topics", "create", "--set", "kafka.partitions=3"), exits.SETUP, "has 2 partitions"),
        (("predict", "sums", "[1]", "--timeout-s", "0.1", "--bootstrap", "127.0.0.1:1"), exits.SETUP, "127.0.0.1:1"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_each_problem_is_told_in_one_line_with_an_exit_code(session, applied, arguments, code, says):
    done = session.run(*arguments)
    assert (done.code, done.out) == (code, "")
    assert says in done.err[-1]
    assert code == exits.USAGE or all(line.startswith("error: ") for line in done.err)


def test_a_manifest_that_changes_is_followed_by_running_workers(session, workers):
    changed = session.folder / "changed.toml"
    changed.write_text(session.config.read_text().replace("default_output = -1", "default_output = -7"))
    told = session.printed("apply", "--config", str(changed)).splitlines()
    assert told[0] == "~ application sums"
    assert "default_output -1 -> -7" in told[1]
    assert told[-1] == "application sums revision 2: update"
    until(
        "the new default",
        lambda: json.loads(session.run("predict", "sums", '"text"').out)["output"] == -7,
    )


def test_a_question_that_nobody_answers_ends_with_1(session, applied):
    session.printed("topics", "create", "--set", "kafka.prefix=idle")
    done = session.run("predict", "sums", "[1]", "--timeout-s", "1", "--set", "kafka.prefix=idle")
    assert (done.code, done.out, len(done.err)) == (exits.FAILURE, "", 1)
    assert "no answer" in done.err[0]
    unread = session.run("feedback", "0@1", "--label", "1", "--wait", "2", "--set", "kafka.prefix=idle")
    assert (unread.code, unread.out, len(unread.err)) == (exits.FAILURE, "", 1)
    assert "no router has read the feedback within 2 s" in unread.err[0]


def test_workers_end_with_0_when_they_are_told_to(workers):
    for worker in workers.values():
        worker.signal(signal.SIGTERM)
    assert {role: worker.ended() for role, worker in workers.items()} == {"router": 0, "host": 0}
    assert all(len(worker.lines) == 1 for worker in workers.values())
