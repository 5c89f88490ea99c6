"""The examples of runtimes run as a user runs them."""

import runpy
import sys
from pathlib import Path

import pytest
from stub_server import StubServer, serving

EXAMPLES = Path(__file__).parents[3] / "examples"
pytestmark = pytest.mark.runtime


def test_the_example_of_boosters_tells_the_classes(capsys):
    pytest.importorskip("lightgbm", reason="the extra lightgbm is not installed")
    pytest.importorskip("xgboost", reason="the extra xgboost is not installed")
    runpy.run_path(str(EXAMPLES / "boosters.py"), run_name="__main__")
    said = [line.partition(" ")[2] for line in capsys.readouterr().out.splitlines()]
    assert len(said) == 3
    assert len(set(said)) == 1


def test_the_example_of_a_server_prints_its_output(capsys, monkeypatch):
    pytest.importorskip("urllib3", reason="the extra oip is not installed")
    with serving(StubServer()) as stub:
        monkeypatch.setattr(sys, "argv", ["oip.py", stub.url, "1.5,2"])
        runpy.run_path(str(EXAMPLES / "oip.py"), run_name="__main__")
    assert capsys.readouterr().out == "1.5\n"
