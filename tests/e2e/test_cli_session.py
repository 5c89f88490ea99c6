"""An operator's session: every command by hand, against the session's Kafka."""

import json
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from e2e.any_client import AnyClient
from e2e.gateways import own_topics
from e2e.programs import Done, Program, environment_of, reserved_port, run_here, until
from oracle import table

from clipper_agents import exits
from clipper_topics.catalogue import Catalogue
from clipper_topics.connection import KafkaConnection

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

EXAMPLE = Path(__file__).parents[2] / "examples/clipper.toml"


@dataclass(frozen=True)
class Session:
    """A shell: a folder, and an environment that names the Kafka."""

    folder: Path
    environ: dict[str, str]
    topics: Catalogue
    client: AnyClient

    def run(self, *arguments: str) -> Done:
        """Run a command to its end."""
        return run_here(*arguments, folder=self.folder, environ=self.environ)

    def printed(self, *arguments: str) -> str:
        """What a command prints that succeeds, and says nothing else."""
        done = self.run(*arguments)
        assert (done.code, done.err) == (0, [])
        return done.out

    def ask(self, *arguments: str) -> dict[str, Any]:
        """The answer to a question at `sums`."""
        answer: dict[str, Any] = json.loads(self.run("predict", "sums", *arguments).out)
        return answer


@pytest.fixture(scope="module")
def session(kafka: KafkaConnection, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    folder = tmp_path_factory.mktemp("session")
    (folder / "clipper.toml").write_text(EXAMPLE.read_text().replace("objective_ms = 200 ", "objective_ms = 60000 "))
    with own_topics(kafka) as topics, AnyClient(kafka.bootstrap) as client:
        environ = environment_of(kafka, topics, CLIPPER_MODELS_ALLOWED_MODULES="clipper_agents.examples.models:")
        yield Session(folder, environ, topics, client)


@pytest.fixture(scope="module")
def applied(session: Session) -> list[str]:
    """The topics and manifests are there; what `topics create` and `apply` printed."""
    printed = session.printed("topics", "create", "-c", "clipper.toml") + session.printed("apply", "-c", "clipper.toml")
    return printed.splitlines()


@pytest.fixture(scope="module")
def workers(session: Session, applied: list[str]) -> Iterator[dict[str, Program]]:
    """A host and a router that serve; they know of models and applications what was applied."""
    how = {"folder": session.folder, "environ": session.environ}
    with (
        Program("worker", "host", "slow-sum:1", "--instance", "host-a", **how) as host,
        Program("worker", "router", "--instance", "router-a", **how) as router,
    ):
        assert host.ready().items() >= {"role": "host", "model": "slow-sum:1", "instance": "host-a"}.items()
        assert router.ready().items() >= {"role": "router", "instance": "router-a"}.items()
        yield {"host": host, "router": router}
        for worker in (host, router):
            worker.signal(signal.SIGTERM)
        assert [worker.ended() for worker in (host, router)] == [0, 0]
        assert [len(worker.lines) for worker in (host, router)] == [1, 1]


def test_topics_are_created_and_manifests_published_once(session, applied):
    names = [spec.name for spec in session.topics.fixed_topics()] + [session.topics.requests("slow-sum", "1")]
    published = ["model sum:1", "model slow-sum:1", "application sums revision 1: create"]
    assert applied == [*(f"created {name}" for name in names), *published]
    assert session.printed("topics", "create", "-c", "clipper.toml").count("existing ") == len(names)
    assert session.printed("apply", "-c", "clipper.toml") == "nothing changed\n"
    listed = {f"{session.topics.requests('slow-sum', '1')} 1"}
    listed |= {f"{spec.name} {spec.partitions}" for spec in session.topics.fixed_topics()}
    assert {*session.printed("topics", "list").splitlines()} == listed


def test_a_question_is_answered_in_one_line_of_json(session, workers):
    answer = json.loads(session.printed("predict", "sums", "[1, 2, 3]"))
    assert (answer["output"], answer["default"], answer["application"]) == (6.0, False, "sums")
    by_name = json.loads(session.printed("predict", "sums", "[4]", "--model", "slow-sum:1", "--deadline-ms", "50000"))
    assert [(one["model"], one["propensity"]) for one in by_name["models"]] == [("slow-sum", 1.0)]


def test_a_default_is_an_answer_with_its_reason(session, workers):
    workers["host"].signal(signal.SIGSTOP)
    done = session.run("predict", "sums", "[5]", "--deadline-ms", "1000", "--model", "slow-sum:1")
    workers["host"].signal(signal.SIGCONT)
    assert done.code == exits.OK
    assert json.loads(done.out).items() >= {"output": -1, "default": True, "reason": "late"}.items()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("sums", '"text"'), "invalid_input"),
        (("nobody", "[1]"), "unknown_application"),
        (("sums", "[1]", "--model", "who:1"), "unknown_model"),
    ],
)
def test_a_query_at_fault_ends_with_5_and_its_default(session, workers, arguments, reason):
    done = session.run("predict", *arguments)
    assert (done.code, json.loads(done.out)["reason"]) == (exits.REFUSED, reason)
    assert [line.startswith("error: ") for line in done.err] == [True], done.err


def test_feedback_by_hand_is_learned_from(session, workers):
    answer = session.ask("[1, 2]", "--context", "ada")
    assert session.printed("feedback", answer["query_id"], "--label", "2.5", "--context", "ada") == ""
    key = ("sums", "ada", int(answer["query_id"].partition("-")[0]))
    row = until("it is learned", lambda: table(session.client.read(session.topics.selection_changelog)).get(key))
    (model,) = answer["models"]
    assert {name: sums[:2] for name, sums in row.totals.items()} == {f"{model['model']}:1": [1.0, 0.5]}


def test_feedback_that_is_waited_for_says_what_became_of_it(session, workers):
    def told(query_id, label):
        done = session.run("feedback", query_id, "--label", label, "--wait", "60")
        return done.code, done.out.strip(), [line.partition(":")[0] for line in done.err]

    first, second = session.ask("[7]")["query_id"], session.ask("[8]")["query_id"]
    assert told(first, "7") == (exits.OK, "applied", [])
    assert told(first, "7") == (exits.REPEATED, "repeated", ["error"])
    assert told(second, '"eight"') == (exits.REFUSED, "refused", ["error"])
    assert told(second, "8") == (exits.OK, "applied", [])
    assert told(f"0-{'0' * 32}", "1") == (exits.ORPHAN, "orphan", ["error"])


def test_load_is_answered_and_reported(session, workers):
    arguments = ("--application", "sums", "--rate", "100", "--seconds", "1", "--feedback-delay-ms", "10")
    done = session.run("loadgen", *arguments, "--json", "-")
    report = json.loads(done.out)
    assert (done.code, [line for line in done.err if not line.startswith("warning: ")]) == (0, [])
    assert report["queries"] == report["answered"] == report["feedback_sent"] > 50
    assert (report["missing"], report["duplicates"], report["defaults"]) == (0, 0, {})
    assert report["latency"]["p99_ms"] > 0


@pytest.mark.parametrize(
    ("line", "code", "says"),
    [
        ("predict sums [1,", exits.USAGE, "is no JSON"),
        ("feedback 0-1", exits.USAGE, "exactly one of --label, --loss and --reward"),
        ("feedback mine --label 1", exits.FAILURE, "which partition query 'mine' is in"),
        ("apply --config nowhere.toml", exits.SETUP, "nowhere.toml: No such file"),
        ("worker host who:1 --instance x", exits.SETUP, "'who:1'"),
        ("loadgen --application nobody --seconds 1", exits.SETUP, "'nobody'"),
        ("predict sums [1] --set kafka.prefix=none", exits.SETUP, "none.queries"),
        ("topics create --set kafka.partitions=3", exits.SETUP, "has 2 partitions"),
        ("predict sums [1] --timeout-s 0.1 --bootstrap NOBODY", exits.SETUP, "NOBODY"),
    ],
)
def test_each_problem_is_told_in_one_line_with_an_exit_code(session, applied, line, code, says):
    with reserved_port() as nobody:
        words = [word.replace("NOBODY", f"127.0.0.1:{nobody}") for word in line.split(maxsplit=2 if code == 2 else -1)]
        done = session.run(*words)
        assert says.replace("NOBODY", f"127.0.0.1:{nobody}") in done.err[-1]
    assert (done.code, done.out) == (code, "")
    assert code == exits.USAGE or all(line.startswith("error: ") for line in done.err)


def test_a_manifest_that_changes_is_followed_by_running_workers(session, workers):
    configuration = (session.folder / "clipper.toml").read_text()
    (session.folder / "changed.toml").write_text(configuration.replace("default_output = -1", "default_output = -7"))
    told = session.printed("apply", "--config", "changed.toml").splitlines()
    assert told[0] == "~ application sums"
    assert "default_output -1 -> -7" in told[1]
    assert told[-1] == "application sums revision 2: update"
    until("the new default", lambda: session.ask('"text"')["output"] == -7)


def test_a_question_that_nobody_answers_ends_with_1(session, kafka):
    with own_topics(kafka) as idle:
        elsewhere = ("--set", f"kafka.prefix={idle.prefix}")
        session.printed("topics", "create", *elsewhere)
        for command, says in (
            (("predict", "sums", "[1]", "--timeout-s", "1"), "no answer"),
            (("feedback", "0@1", "--label", "1", "--wait", "1"), "no router"),
        ):
            done = session.run(*command, *elsewhere)
            assert (done.code, done.out, len(done.err)) == (exits.FAILURE, "", 1)
            assert says in done.err[0]
