"""Whatever other people call their things: a terminal shows it, and obeys nothing of it."""

import ast
import json
import logging
import re
from pathlib import Path

import pytest
from rich.text import Text

from clipper_agents.cli import terminal
from clipper_agents.observability.logging import KeyValueFormatter

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
    assert ":smile: caf\u00e9" in text
    assert text.count("\n") == 1


def test_a_console_has_no_markup_and_escapes_whatever_it_is_given(capsys):
    screen = terminal.console(400)
    screen.print(FOREIGN)
    screen.print(Text(FOREIGN, "red"))
    screen.print(terminal.table(["name"], [[FOREIGN], [Text(FOREIGN, "red")]]))
    text = shown(capsys)
    assert text.count("[bold red]\\x1b[31m \\u009b31m") == 4
    assert text.count(":smile:") == 4


@pytest.mark.parametrize("wrapped", [("why",), ("record", "why"), ()])
def test_a_table_of_eighty_columns_cuts_neither_headings_nor_cells(capsys, monkeypatch, wrapped):
    monkeypatch.setenv("COLUMNS", "80")
    headings = ("revision", "changed at", "record", "partition", "under-replicated", "why")
    cells = ("123", "2026-11-25 23:57:15", f"{'long-name-' * 6}:12", "3", "1,2,3,4,5,6,7,8,9,10,11", "worse " * 20)
    terminal.console().print(terminal.table(headings, [cells], wrapped=wrapped))
    heading, *lines = shown(capsys).splitlines()
    assert heading.split() == " ".join(headings).split()
    assert max(map(len, [heading, *lines])) <= 80
    starts = [heading.index(name) for name in headings]
    ends = [*starts[1:], 80]
    columns = ["".join(line[at:end] for line in lines) for at, end in zip(starts, ends, strict=True)]
    assert [text.replace(" ", "") for text in columns] == [cell.replace(" ", "") for cell in cells]


def test_json_with_such_names_is_the_same_json(capsys):
    name = FOREIGN.replace("\ud800", "")
    terminal.print_json({"name": name})
    assert json.loads(shown(capsys)) == {"name": name}


def test_a_log_line_escapes_the_same():
    record = logging.LogRecord("clipper", logging.INFO, "", 0, f"host {FOREIGN}", (), None)
    line = KeyValueFormatter().format(record)
    assert not OBEYED.search(line)
    assert "\\u009b31m" in line


def test_commands_write_by_the_module_of_the_terminal_alone():
    found = []
    for path in sorted(CLI.glob("*.py")):
        if path.name in {"terminal.py", "reference.py"}:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in {
                "print",
                "typer.echo",
                "Console",
                "click.echo",
            }:
                to_a_file = any(each.arg == "file" and ast.unparse(each.value) == "lines" for each in node.keywords)
                found += [] if to_a_file else [f"{path.name}:{node.lineno}"]
    assert found == []


def test_a_line_of_a_table_ends_without_blanks(capsys):
    rows = [("a", "1", "its text ends so  "), ("b", "2", "")]
    terminal.console(80).print(terminal.table(("name", "count", "note"), rows, right=("count",)))
    lines = shown(capsys).splitlines()
    assert lines == ["name  count  note", "a         1  its text ends so", "b         2"]
