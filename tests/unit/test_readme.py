"""The code in README.md runs: the library's as it stands, the client's as far as a type checker would go."""

import ast
import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from clipper_topics import codec

README = Path(__file__).parents[2] / "README.md"
NEEDS_KAFKA = "clipper_stream.client"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README.read_text(), flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("code", [code for code in blocks("python") if NEEDS_KAFKA not in code])
def test_code_that_needs_no_kafka_runs(code: str) -> None:
    exec(compile(code, str(README), "exec"), {"__name__": "readme"})


@pytest.mark.parametrize("code", [code for code in blocks("python") if NEEDS_KAFKA in code])
def test_code_that_needs_a_kafka_imports_what_exists(code: str) -> None:
    imports: list[ast.stmt] = [node for node in ast.parse(code).body if isinstance(node, (ast.Import, ast.ImportFrom))]
    assert imports
    exec(compile(ast.Module(imports, type_ignores=[]), str(README), "exec"), {})


def test_the_query_and_the_prediction_shown_are_records_of_the_wire_contract() -> None:
    shown = [line for block in blocks("json") for line in block.splitlines() if line]
    kinds: dict[str, codec.Codec[Any]] = {
        "input": codec.queries,
        "predicted_at_ms": codec.predictions,
        "label": codec.feedback,
    }
    for line in shown:
        kind = next(decoder for field, decoder in kinds.items() if field in json.loads(line))
        record = kind.decode(line.encode())
        assert set(json.loads(line)) <= set(msgspec.structs.asdict(record))


def test_the_page_is_short() -> None:
    assert len(README.read_text().splitlines()) <= 150
