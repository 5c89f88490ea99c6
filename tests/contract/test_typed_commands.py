import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
import typer.core
import typer.main
from sources import MODULES, PAGES, relative

from clipper_agents.cli.main import app

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


def test_what_pages_tell_to_type_is_taken():
    pages = {relative(page): page.read_text() for page in PAGES if page.name != "CHANGELOG.md"}
    typed = {(page, command) for page, text in pages.items() for command in commands_of_page(text)}
    typed -= {("docs/reference/command-line.md", "COMMAND [OPTIONS]")}
    assert {told: why for told in typed if (why := refusal(told[1]))} == {}


def test_what_messages_tell_to_type_is_taken():
    """The gateway names commands without what they need."""
    sources = {name: path for name, path in MODULES.items() if not name.startswith("clipper_gateway")}
    said = {(name, text) for name, path in sources.items() for text in texts_of(path)}
    typed = {(name, command) for name, text in said for command in re.findall(r"`clipper-stream ([^`]+)`", text)}
    assert len(typed) > 15
    assert {told: why for told in typed if (why := refusal(told[1]))} == {}
    assert refusal("model deployed a:1")
