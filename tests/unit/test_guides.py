"""Code and configurations in the documentation can be used as they stand."""

import ast
import re
import tomllib
from pathlib import Path

import numpy as np
import pytest
from builders.pages import blocks

from clipper_agents.settings import load_settings

DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
TUTORIAL = DOCS / "tutorial/first-pipeline.md"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_configuration_is_toml_and_every_program_is_python(page: Path) -> None:
    for block in blocks(page, "toml"):
        tomllib.loads(block)
    for block in blocks(page, "python"):
        ast.parse(block)


def test_the_configuration_of_the_tutorial_is_accepted(tmp_path: Path) -> None:
    whole = next(block for block in blocks(TUTORIAL, "toml") if "[[application]]" in block)
    file = tmp_path / "clipper.toml"
    file.write_text(whole)
    settings = load_settings(file, {})
    assert [model.ref for model in settings.models] == ["careful:1", "careless:1"]


def test_the_models_of_the_tutorial_differ_as_it_says() -> None:
    shop: dict[str, object] = {}
    exec(blocks(TUTORIAL, "python")[0], shop)
    basket = np.array([[0.2, 0.3, 0.4, 1.9]], dtype="float32")
    assert [shop[name](basket).tolist() for name in ("careful", "careless")] == [[1], [0]]  # type: ignore[operator]


def test_every_promise_names_tests_that_exist():
    pages = [DOCS / name for name in ("explanation/delivery.md", "reference/faults.md", "reference/wrong-decisions.md")]
    named = {name for page in pages for name in re.findall(r"`(test_\w+)`", page.read_text())}
    sources = [path.read_text() for path in (DOCS.parent / "tests").rglob("test_*.py")]
    defined = {name for source in sources for name in re.findall(r"def (test_\w+)\(", source)}
    assert len(named) > 30
    assert not named - defined


def test_every_case_of_the_fault_suite_is_named_by_a_promise():
    said = (DOCS / "explanation/delivery.md").read_text()
    sources = [path.read_text() for path in (DOCS.parent / "tests/faults").glob("test_*.py")]
    cases = {name for source in sources for name in re.findall(r"^(?:async )?def (test_\w+)\(", source, re.MULTILINE)}
    assert not [name for name in sorted(cases) if f"`{name}`" not in said]


def test_the_program_of_the_evaluation_evaluates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    pytest.importorskip("pyarrow")
    from builders.known_truth import log_of

    from clipper_stream.evaluation.log.parquet import FileFacts, writing

    monkeypatch.chdir(tmp_path)
    with writing(Path("day.parquet"), FileFacts(application="digits", loss_kind="zero_one")) as writer:
        writer.write(log_of(1_500)[0])
    exec(blocks(DOCS / "how-to/evaluate-before-switching.md", "python")[0], {})
    assert capsys.readouterr().out.startswith("model b:1 Estimate(")
    assert "<svg" in Path("digits.html").read_text()
