import ast
import json
import logging
import re
from functools import partial
from pathlib import Path

import pytest
from rich.text import Text

from clipper_agents.cli import registry_view, terminal
from clipper_agents.cli.dead_letters import letter_row, record_of
from clipper_agents.control.state import Manifests
from clipper_agents.dead_letters.reader import Letter
from clipper_agents.observability.logging import KeyValueFormatter
from clipper_topics.change import Change
from clipper_topics.dead_letter import DeadLetter
from clipper_topics.host_report import HostReport
from clipper_topics.manifests import ApplicationManifest, ModelManifest, Trial

CLI = Path(terminal.__file__).parent
FOREIGN = "[bold red]\x1b[31m \x9b31m \x85 \x7f \u202e \U000e0001 :smile: caf\u00e9\n\ud800"
OBEYED = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e\U000e0001]")


def shown(capsys) -> str:
    said = capsys.readouterr()
    text = said.out + said.err
    assert not OBEYED.search(text)
    return text


@pytest.mark.parametrize("stderr", [False, True])
def test_a_line_says_what_is_there_and_stays_one_line(capsys, stderr):
    terminal.say(f"application {FOREIGN} is retired", stderr=stderr)
    text = shown(capsys)
    assert text.startswith("application [bold red]\\x1b[31m \\u009b31m \\u0085 \\u007f \\u202e ")
    assert (":smile: caf\u00e9" in text, text.count("\n")) == (True, 1)


def test_a_console_a_log_line_and_json_escape_the_same(capsys):
    screen = terminal.console(400)
    for one in (FOREIGN, Text(FOREIGN, "red"), terminal.TextTable(["name"], [[FOREIGN], [Text(FOREIGN, "red")]])):
        screen.print(one)
    text = shown(capsys)
    assert (text.count("[bold red]\\x1b[31m \\u009b31m"), text.count(":smile:")) == (4, 4)
    line = KeyValueFormatter().format(logging.LogRecord("clipper", logging.INFO, "", 0, f"host {FOREIGN}", (), None))
    assert (OBEYED.search(line), "\\u009b31m" in line) == (None, True)
    name = FOREIGN.replace("\ud800", "")
    terminal.print_json({"name": name})
    assert json.loads(shown(capsys)) == {"name": name}


def columns_of(text: str, headings: tuple[str, ...]) -> list[str]:
    """The text of each column as a terminal of eighty columns shows it, without blanks."""
    heading, *lines = text.splitlines()
    assert heading.split() == " ".join(headings).split()
    assert max(map(len, [heading, *lines])) <= 80
    starts = [heading.index(name) for name in headings]
    ends = [*starts[1:], 80]
    columns = ["".join(line[at:end] for line in lines) for at, end in zip(starts, ends, strict=True)]
    return [column.replace(" ", "") for column in columns]


def test_a_table_of_eighty_columns_cuts_neither_headings_nor_cells(capsys):
    headings = ("revision", "changed at", "record", "partition", "under-replicated", "why")
    cells = ("123", "2026-11-25 23:57:15", f"{'long-name-' * 6}:12", "3", "1,2,3,4,5,6,7,8,9,10,11", "worse " * 20)
    terminal.console(80).print(terminal.TextTable(headings, [cells]))
    assert columns_of(shown(capsys), headings) == [cell.replace(" ", "") for cell in cells]


MESSAGE = (
    "no decision about query '3-0123456789abcdef0123456789abcdef' in partition 3: send the feedback with the query's "
    "key, at most 5 s before it and the feedback horizon after it"
)
ORPHAN = DeadLetter(
    exception="clipper_agents.feedback.OrphanFeedback", message=MESSAGE, topic="clipper.feedback", partition=3,
    offset=123_456,
)  # fmt: skip


@pytest.mark.parametrize(
    ("said", "cells"),
    [(ORPHAN, ["feedback[3]@123456", f"OrphanFeedback:{MESSAGE}".replace(" ", "")]), (None, ["", ""])],
    ids=["a letter", "a record that is none"],
)
def test_a_dead_letter_keeps_its_record_and_its_whole_message_at_eighty_columns(capsys, said, cells):
    letter = Letter(position=41, at_ms=1_700_000_000_000, key=None, value=None, headers=(), said=said)
    row = letter_row("clipper", record_of(letter))
    terminal.console(80).print(terminal.TextTable([*row], [row.values()]))
    text = shown(capsys)
    assert columns_of(text, tuple(text.partition("\n")[0].split())) == ["41", "2023-11-1422:13:20Z", *cells]


def test_commands_write_by_the_module_of_the_terminal_alone():
    found, writers = [], {"print", "typer.echo", "Console", "click.echo"}
    for path in {*CLI.glob("*.py")} - {CLI / "terminal.py"}:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in writers:
                to_a_file = any(each.arg == "file" and ast.unparse(each.value) == "lines" for each in node.keywords)
                found += [] if to_a_file else [f"{path.name}:{node.lineno}"]
    assert found == []


def test_a_line_of_a_table_ends_without_blanks(capsys):
    rows = [("a", "1", "its text ends so  "), ("b", "2", "")]
    terminal.console(80).print(terminal.TextTable(("name", "count", "note"), rows, right=("count",)))
    lines = shown(capsys).splitlines()
    assert lines == ["name  count  note", "a         1  its text ends so", "b         2"]


# --- models and changes -----------------------------------------------------------------------------------------------
MODELS = (
    ModelManifest(name="svm", version="2", uri="m:f", colocated=True),
    ModelManifest(name="svm", uri="m:f"),
    ModelManifest(name="svm", version="0", uri="m:f", retired=True),
)
DIGITS = ApplicationManifest(
    name="digits", models=["svm:1"], trials=[Trial(model="svm:2", stage="canary", share=0.05, automatic=True)]
)


def test_models_and_history_are_those_of_the_golden_text(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "150")
    numbers = {
        "scores": 120, "waiting": 7, "since_s": 40, "upto_s": 59,
        "trial_feedbacks": 90, "trial_loss": 0.1, "answer_feedbacks": 90, "answer_loss": 0.112345678,
        "difference": -0.012345678, "lower": -0.03, "upper": 0.005, "of": {"a:1": 1},
    }  # fmt: skip
    of = {"application": "digits", "at_ms": 60_000}
    step = Change(**of, revision=2, command="step", model="svm:2", by="rollout", why="better", numbers=numbers)
    published = Manifests(applications={"digits": DIGITS}, models={each.ref: each for each in MODELS})
    row_of = partial(registry_view.model_row, published)
    terminal.print_records(sorted(MODELS, key=lambda each: each.ref), row_of, otherwise="no models")
    terminal.print_records([], row_of, otherwise="no models")
    create = Change(**of, revision=1, command="create", by="\x1b[31mada", why="[bold]why")
    terminal.print_records([create, step], registry_view.decision_row)
    failed = HostReport(model="svm:2", instance="a", state="failed", reason="no\nfile")
    terminal.say(registry_view.report_line(failed))
    text = "".join(f"{line.rstrip()}\n" for line in shown(capsys).splitlines())
    assert text == (CLI.parents[2] / "tests/golden/models-and-history.txt").read_text()
