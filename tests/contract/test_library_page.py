"""The reference page of the library is what its docstrings say now, and names what exists."""

import importlib.util
from pathlib import Path

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "docs/library_reference.py"


def loaded():
    spec = importlib.util.spec_from_file_location("library_reference", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_what_would_be_generated_now():
    script = loaded()
    assert script.PAGE.read_text() == script.reference(), "run python docs/library_reference.py and commit the page"


def test_every_public_name_is_defined_in_the_library():
    script = loaded()
    assert not script.PUBLIC - script.names()


def test_every_line_of_the_page_says_something():
    lines = [line for line in loaded().reference().splitlines() if line.startswith("- `")]
    assert len(lines) > 50
    assert not [line for line in lines if len(line.split("`: ")[-1]) < 10]
