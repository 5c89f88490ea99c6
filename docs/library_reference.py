"""The reference page of the library: `python docs/library_reference.py > docs/reference/library.md`.

Rules of this file:
- What is public is named here; a test fails when a name is gone or the page is out of date.
- The source is parsed and never imported, so the page does not depend on which extras are installed.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LIBRARY = ROOT / "clipper_stream"
PAGE = ROOT / "docs/reference/library.md"

INTERNAL = "query"
"""The stages of a query's way are the routers' own."""
_PUBLIC = """
BatchLimit make_limit Aimd RelaxedTarget Fixed Window
ClockCache version_digest row_hashes
Client SyncClient Answer
HttpClient SyncHttpClient
ClipperError RequestError SetupError ModelFailed ModelUnavailable
Combined vote mean
ScoreSums TrialEvidence TrialPlan TrialRule
Adwin
LoggedDecision Label GivenLoss loss_of
Model Column RowSpec Runtime load_model predict_rows FileRules FunctionModel check_model assert_model Report
parse_candidate DecisionColumns Estimator make_estimators
Question
evaluate Evaluation read_facts read_chunks write_page
SelectionPolicy SelectionState Decision make_policy query_rng
"""
PUBLIC = frozenset(_PUBLIC.split())
"""Names of the classes and functions on the page, each unique in the library."""

_HEAD = """# Library

<!-- Generated: python docs/library_reference.py > docs/reference/library.md -->

The classes and functions of `clipper_stream` that programs use, with their modules below the package. `help(name)`
shows arguments, units and an example. Only `client` and `http` do I/O. Errors of the client are in the [wire
contract](wire-contract.md#from-python).
"""


def reference() -> str:
    """The page."""
    return "\n".join([_HEAD, *_lines()]) + "\n"


def names() -> set[str]:
    """The public names that the library defines."""
    return {node.name for path in _modules() for node in _public(path)}


def _modules() -> list[Path]:
    return [path for path in sorted(LIBRARY.rglob("*.py")) if path.relative_to(LIBRARY).parts[0] != INTERNAL]


def _lines() -> Iterator[str]:
    package = ""
    for path in _modules():
        parts = [part for part in path.relative_to(LIBRARY).with_suffix("").parts if part != "__init__"]
        for node in _public(path):
            if parts[0] != package:
                yield from ("",) if package else ()
                package = parts[0]
                yield f"## {package}\n"
            yield f"- `{'.'.join(parts[1:])}.{node.name}`{_kind(node)}: {_sentence(node)}".replace("`.", "`")


def _public(path: Path) -> Iterator[ast.ClassDef | ast.FunctionDef]:
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name in PUBLIC:
            yield node


def _kind(node: ast.ClassDef | ast.FunctionDef) -> str:
    bases = [ast.unparse(base).split("[")[0] for base in getattr(node, "bases", [])]
    return " (Protocol)" if "Protocol" in bases else ""


def _sentence(node: ast.ClassDef | ast.FunctionDef) -> str:
    """The first sentence of the docstring, up to a semicolon."""
    paragraph = (ast.get_docstring(node) or "").split("\n\n")[0].replace("\n", " ")
    return paragraph.split("; ")[0].split(". ")[0].removesuffix(".") + "."


if __name__ == "__main__":
    print(reference(), end="")
