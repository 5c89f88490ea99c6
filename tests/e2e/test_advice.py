"""What a message tells to type is typed, and then the refused command is taken, or there is nothing left to do."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from e2e.any_client import AnyClient
from e2e.gateways import own_topics
from e2e.programs import environment_of, run_here

from clipper_agents import exits
from clipper_topics.catalogue import Catalogue
from clipper_topics.connection import KafkaConnection

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

EXAMPLE = Path(__file__).parents[2] / "examples/clipper.toml"
DEPLOY = "model deploy slow-sum:2 --uri clipper_agents.examples.models:slow --application sums --unchecked"


@dataclass(frozen=True)
class Shell:
    """A folder with the example's configuration, and topics that are not made yet."""

    folder: Path
    environ: dict[str, str]
    topics: Catalogue

    def done(self, line: str, code: int = exits.OK) -> str:
        """What a command says that ends with this code."""
        done = run_here(*shlex.split(line), folder=self.folder, environ=self.environ)
        assert done.code == code, (line, done)
        return "\n".join([done.out, *done.err])

    def refused(self, line: str, code: int = exits.FAILURE) -> list[str]:
        """The commands that the message of a refused one tells to type."""
        return re.findall(r"`clipper-stream ([^`]+)`", self.done(line, code))


@pytest.fixture
def shell(kafka: KafkaConnection, tmp_path: Path) -> Iterator[Shell]:
    (tmp_path / "clipper.toml").write_text(EXAMPLE.read_text())
    with own_topics(kafka) as topics:
        yield Shell(tmp_path, environment_of(kafka, topics), topics)


def test_where_topics_are_missing_the_command_that_makes_them_is_named(shell: Shell) -> None:
    for line in ("watch", "feedback 0-1 --label 1", "replay verify"):
        assert shell.refused(line, exits.SETUP)[0] == "topics create", line
    assert shell.refused("status")[0] == "topics create"
    shell.done("topics create")
    shell.done("apply")
    assert "sums" in shell.done("application list")


def test_each_refused_change_names_the_one_that_is_meant(shell: Shell) -> None:
    for line in ("topics create", "apply", DEPLOY, "model abort slow-sum:2 --application sums"):
        shell.done(line)
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
    assert "no applications" in shell.done("application list")


def test_a_position_without_a_letter_and_a_record_nobody_reads_are_found_as_told(
    shell: Shell, kafka: KafkaConnection
) -> None:
    shell.done("topics create")
    assert shell.refused("dead-letters show 7") == ["dead-letters list"]
    shell.done("dead-letters list")
    with AnyClient(kafka.bootstrap) as client:
        client.send(shell.topics.control, b"no manifest", key=b"model/broken:1", partition=0)
    (discard,) = set(re.findall(r"`clipper-stream (topics discard \d+)`", shell.done("status", exits.FAILURE)))
    shell.done(discard)
    assert "topics discard" not in shell.done("status", exits.FAILURE)
