"""What a message tells to type is typed, and then the refused command is taken, or there is nothing left to do."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import pytest
from e2e.any_client import AnyClient
from e2e.programs import Done, environment_of, run

from clipper_agents import exits
from clipper_topics.catalogue import Catalogue
from clipper_topics.connection import KafkaConnection

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

EXAMPLE = Path(__file__).parents[2] / "examples/clipper.toml"
DEPLOY = "model deploy slow-sum:2 --uri clipper_agents.examples.models:slow --application sums --unchecked"


@dataclass(frozen=True)
class Shell:
    """A folder with the example's configuration, and an environment that names the Kafka."""

    folder: Path
    environ: dict[str, str]

    def type(self, line: str) -> Done:
        return run(*shlex.split(line), folder=self.folder, environ=self.environ)

    def refused(self, line: str) -> list[str]:
        """The commands that the message of a refused one tells to type."""
        done = self.type(line)
        assert done.code in {exits.FAILURE, exits.SETUP}, (line, done)
        advised = re.findall(r"`clipper-stream ([^`]+)`", "\n".join([done.out, *done.err]))
        assert advised, (line, done)
        return advised

    def done(self, line: str) -> str:
        done = self.type(line)
        assert done.code == exits.OK, (line, done)
        return done.out


@pytest.fixture
def shell(kafka: KafkaConnection, tmp_path: Path) -> Shell:
    (tmp_path / "clipper.toml").write_text(EXAMPLE.read_text())
    return Shell(tmp_path, environment_of(kafka, Catalogue(prefix=f"advice{tmp_path.name[-12:]}", partitions=2)))


def test_where_topics_are_missing_the_command_that_makes_them_is_named(shell: Shell) -> None:
    for line in ("predict sums [1]", "status", "watch", "feedback 0-1 --label 1", "replay verify"):
        assert shell.refused(line)[0] == "topics create", line
    shell.done("topics create")
    shell.done("apply")
    assert "sums" in shell.done("application list")


def test_each_refused_change_names_the_one_that_is_meant(shell: Shell) -> None:
    shell.done("topics create")
    shell.done("apply")
    shell.done(DEPLOY)
    shell.done("model abort slow-sum:2 --application sums")
    promote = "model promote slow-sum:2 --application sums"
    for line, advised in (
        (promote, "model shadow slow-sum:2 --application sums"),
        (f"{promote} --revision 1", "application history sums"),
    ):
        assert shell.refused(line) == [advised]
        shell.done(advised)
    shell.done(promote)
    for line, advised in (
        ("model abort slow-sum:2 --application sums", "model retire slow-sum:2 --application sums"),
        ("model delete slow-sum:1", "model retire slow-sum:1 --application sums"),
        ("model retire sum:1 --application sums", "application delete sums"),
    ):
        assert shell.refused(line) == [advised]
        shell.done(advised)
    shell.done("model delete slow-sum:1")
    assert shell.done("application list") == "no applications\n"


def test_a_position_without_a_letter_and_a_record_nobody_reads_are_found_as_told(
    shell: Shell, kafka: KafkaConnection
) -> None:
    shell.done("topics create")
    assert shell.refused("dead-letters show 7") == ["dead-letters list"]
    shell.done("dead-letters list")
    topics = Catalogue(prefix=shell.environ["CLIPPER_KAFKA_PREFIX"], partitions=2)
    with AnyClient(kafka.bootstrap) as client:
        client.send(topics.control, b"no manifest", key=b"model/broken:1", partition=0)
    told = shell.type("status")
    (discard,) = set(re.findall(r"`clipper-stream (topics discard \d+)`", told.out))
    shell.done(discard)
    assert "topics discard" not in shell.type("status").out
