import json
import re

import generate_schemas
import mistakes
import pytest
from sources import page_script

from clipper_gateway import server

command_line, library, metrics, openapi = map(
    page_script, ("command_line", "library_reference", "metrics_reference", "openapi_document")
)


@pytest.mark.parametrize(
    ("path", "generated", "command"),
    [
        (command_line.PAGE, command_line.reference, "python docs/command_line.py"),
        (metrics.PAGE, metrics.reference, "python docs/metrics_reference.py"),
        (library.PAGE, library.reference, "python docs/library_reference.py"),
        (server.DOCUMENT, openapi.document, "python docs/openapi_document.py"),
        (mistakes.PAGE, mistakes.reference, "python tests/mistakes.py"),
    ],
)
def test_a_generated_file_is_what_would_be_written_now(path, generated, command):
    found = generated()
    text = found if isinstance(found, str) else json.dumps(found, indent=2, ensure_ascii=False) + "\n"
    assert path.read_text(encoding="utf-8") == text, f"run {command} > {path}"


def test_the_packaged_schemas_are_what_would_be_written_now():
    packaged = {file.name: file.read_text(encoding="utf-8") for file in generate_schemas.FOLDER.iterdir()}
    assert packaged == generate_schemas.documents(), "run python tests/generate_schemas.py"


def test_the_page_of_mistakes_has_fifty_of_them_and_none_says_the_same_as_another():
    rows = re.findall(r"^\| (.*) \| (.*) \|$", mistakes.PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert len([row for row in rows if row[0] != "mistake"]) >= 50
    assert len({mistake for mistake, _ in rows}) == len(rows) - len(mistakes.SECTIONS) + 1


def test_every_public_name_of_the_library_has_a_line_that_says_something():
    assert library.PUBLIC - library.names() == set()
    lines = [line for line in library.reference().splitlines() if line.startswith("- `")]
    assert len(lines) >= len(library.PUBLIC)
    assert [line for line in lines if len(line.split("`: ")[-1]) < 10] == []
