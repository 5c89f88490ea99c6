"""Pages can be used as they stand: programs run, configurations load, links lead somewhere, promises name tests."""

import ast
import json
import re
import tomllib
from itertools import product
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from builders.pages import blocks
from sources import FOLDERS, PAGES, ROOT, relative

from clipper_agents.settings import load_settings
from clipper_topics import codec

DOCS, README = ROOT / "docs", ROOT / "README.md"
INDEX, TUTORIAL = DOCS / "README.md", DOCS / "tutorial/first-pipeline.md"
NEEDS_KAFKA = "clipper_stream.client"


# --- code -----------------------------------------------------------------------------------------------------------
def test_every_configuration_is_toml_and_every_program_is_python():
    for page, (kind, read) in product(DOCS.rglob("*.md"), {"toml": tomllib.loads, "python": ast.parse}.items()):
        for block in blocks(page, kind):
            read(block)


def test_the_programs_of_the_readme_run_or_import_what_exists_where_they_need_a_kafka():
    programs = blocks(README, "python")
    assert {NEEDS_KAFKA in program for program in programs} == {True, False}
    for program in map(ast.parse, programs):
        if NEEDS_KAFKA in ast.unparse(program):
            program.body = [node for node in program.body if isinstance(node, ast.Import | ast.ImportFrom)]
        exec(compile(program, str(README), "exec"), {"__name__": "readme"})


def test_the_records_of_the_readme_are_those_of_the_wire_contract():
    kinds: dict[str, Any] = {"input": codec.queries, "predicted_at_ms": codec.predictions, "label": codec.feedback}
    for line in filter(None, "".join(blocks(README, "json")).splitlines()):
        fields = json.loads(line).keys()
        kind = next(kinds[field] for field in kinds if field in fields)
        assert fields <= msgspec.structs.asdict(kind.decode(line.encode())).keys()


def test_the_tutorial_has_a_configuration_and_models_that_differ(tmp_path):
    (tmp_path / "clipper.toml").write_text(next(text for text in blocks(TUTORIAL, "toml") if "[[application]]" in text))
    settings = load_settings(tmp_path / "clipper.toml", {})
    assert [model.ref for model in settings.models] == ["careful:1", "careless:1"]
    shop = {}
    exec(blocks(TUTORIAL, "python")[0], shop)
    basket = np.array([[0.2, 0.3, 0.4, 1.9]], dtype="float32")
    assert [shop[name](basket).tolist() for name in ("careful", "careless")] == [[1], [0]]


def test_the_program_of_the_evaluation_evaluates(tmp_path, monkeypatch, capsys):
    pytest.importorskip("pyarrow")
    from builders.decision_files import write_decisions
    from builders.known_truth import log_of

    monkeypatch.chdir(tmp_path)
    write_decisions(Path("day.parquet"), log_of(1_500)[0])
    exec(blocks(DOCS / "how-to/evaluate-before-switching.md", "python")[0], {})
    assert "model b:1 Estimate(" in capsys.readouterr().out
    assert "<svg" in Path("digits.html").read_text()


# --- links and names ------------------------------------------------------------------------------------------------
def anchors_of(page):
    headings = re.findall(r"^#+ (.+)$", page.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links_of(page):
    """Targets in the repository, each as its file and its anchor."""
    prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if not target.startswith(("http://", "https://", "mailto:")):
            path, _, anchor = target.partition("#")
            yield (page.parent / path).resolve() if path else page, anchor


def test_every_link_leads_somewhere_and_every_page_is_in_the_index():
    anchors = {page: anchors_of(page) for page in PAGES}
    links = [(page, *link) for page in PAGES for link in links_of(page)]
    lost = [link for link in links if not link[1].exists() or (link[2] and link[2] not in anchors[link[1]])]
    assert lost == []
    assert {*DOCS.rglob("*.md")} - {INDEX} - {target for target, _ in links_of(INDEX)} == set()


def names_of_tests(folder, pattern):
    sources = [path.read_text() for path in (ROOT / folder).rglob("*.*") if path.suffix in (".py", ".md")]
    return {name for source in sources for name in re.findall(pattern, source, re.MULTILINE)}


def test_every_promise_names_tests_that_exist_and_every_case_of_the_fault_suite_is_promised():
    defined, named = r"^(?:async )?def (test_\w+)\(", r"`(test_\w+)`"
    promised = {*re.findall(named, (DOCS / "explanation/delivery.md").read_text())}
    assert names_of_tests("tests/faults", defined) - promised == set()
    assert names_of_tests("docs", named) - names_of_tests("tests", defined) == set()


def test_the_readme_is_short_and_its_layout_has_every_package():
    text = README.read_text()
    assert len(text.splitlines()) <= 150
    layout = text.split("## Layout")[1].split("\n## ")[0]
    inside = [path.parent for folder in FOLDERS for path in folder.glob("*/__init__.py")]
    packages = [path.name for path in inside if path.parent.name != "clipper_gateway"]
    assert [name for name in packages if f"`{name}/`" not in layout] == []


def test_no_page_installs_the_package_from_an_index_as_long_as_it_is_in_none():
    says = re.compile(r"(pip|uv|pipx|uvx)\b[^\n]*[ '\"]clipper-stream\b(?!/)")
    assert [relative(page) for page in PAGES if says.search(page.read_text())] == []


def test_one_page_says_how_the_package_is_installed_and_the_others_lead_there():
    """Elsewhere stand what an error says, and PACKAGE for what that page says."""
    says = re.compile(r"pip install(?!.*PACKAGE)|clipper-stream\[")
    found = {relative(page) for page in PAGES if says.search(page.read_text())}
    assert found == {"docs/how-to/install.md", "docs/reference/mistakes.md"}


def test_pages_give_only_commands_that_the_makefile_has_and_kill_no_process_by_name():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    for page in PAGES:
        text = page.read_text()
        assert set(re.findall(r"^\s*make ([a-z-]+)", text, flags=re.MULTILINE)) <= targets, relative(page)
        assert not re.search(r"pkill|killall|kill [^\n]*pgrep", text), relative(page)
