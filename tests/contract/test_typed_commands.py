"""Every command that a page or a message tells to type is one that the program takes, with all that it needs."""

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import typer.core
import typer.main

from clipper_agents.cli.main import app

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "examples").rglob("*.md"))]
SOURCES = [
    path
    for folder in ("agents", "clipper_stream", "loadgen", "topics")
    for path in (ROOT / folder).rglob("*.py")
    if path != ROOT / "agents/clipper_agents/cli/reference.py"  # whose text is a page
]
PROGRAM = typer.main.get_command(app)
VALUE = "1"
"""What a message puts in at run time, and what a page writes in capitals."""


def commands_of_page(text: str) -> Iterator[str]:
    """What is typed on a page: lines of its blocks, and what stands between backticks."""
    joined = re.sub(r"\\\n\s*", "", text)
    yield from re.findall(r"^ {4,}(?:\$ )?(?:docker compose run --rm \w+ )?clipper-stream (.+)", joined, re.MULTILINE)
    yield from re.findall(r"^\$ clipper-stream (.+)", joined, re.MULTILINE)
    named = (re.sub(r"\s+", " ", found) for found in re.findall(r"`clipper-stream\s+([^`]+)`", joined))
    yield from (found for found in named if not re.fullmatch(r"[a-z -]+", found))  # a name alone is not typed


def texts_of(path: Path) -> Iterator[str]:
    """The strings of a module but its docstrings, with `VALUE` for what is put in at run time."""
    tree = ast.parse(path.read_text())
    docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    inner = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in ast.walk(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else VALUE for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and not {id(node)} & (docs | inner):
            yield node.value


def refusal(typed: str) -> str | None:
    """Why the program would not take what is typed; None when it would."""
    words = shlex.split(typed.partition(" > ")[0])
    words = [VALUE if re.fullmatch(r"[A-Z][A-Z_]+", word) else word for word in words]
    command: Any = PROGRAM
    context = typer.Context(command, info_name="clipper-stream")
    try:
        while words and isinstance(command, typer.core.TyperGroup):
            _, command, words = command.resolve_command(context, words)
            context = typer.Context(command, parent=context)
        if words or not isinstance(command, typer.core.TyperGroup):  # a group alone is named, not typed
            command.make_context(command.name, words, parent=context.parent)
    except typer.Exit:
        return None  # --help and --version
    except Exception as error:  # noqa: BLE001 - of a class that is not public
        return f"{type(error).__name__}: {error}"
    return None


def said(path: Path) -> list[str]:
    if path.suffix == ".md":
        return [typed for typed in commands_of_page(path.read_text()) if typed != "COMMAND [OPTIONS]"]
    return [found for text in texts_of(path) for found in re.findall(r"`clipper-stream ([^`]+)`", text)]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_a_page_tells_to_type_is_taken(path: Path) -> None:
    assert {typed: why for typed in said(path) if (why := refusal(typed))} == {}


def test_what_messages_tell_to_type_is_taken() -> None:
    typed = {command: path.name for path in SOURCES for command in said(path)}
    assert len(typed) > 15
    assert {(path, command): why for command, path in typed.items() if (why := refusal(command))} == {}


@pytest.mark.parametrize("typed", ["model deployed a:1", "status --nothing", "feedback", "topics discard one"])
def test_what_the_program_does_not_take_is_found(typed: str) -> None:
    assert refusal(typed)
