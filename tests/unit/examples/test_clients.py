"""Clients in other languages: what they print is checked, and one without its toolchain is named."""

import dataclasses
import json
import re
from pathlib import Path

import pytest

from examples.clients.run import PROGRAMS, plain_lines, problem

PAGE = Path(__file__).parents[3] / "docs/how-to/write-a-client.md"
PREDICTION = {"query_id": "q", "application": "sums", "output": 3.0}
ACK = {"query_id": "q", "outcome": "applied", "feedback_offset": 0}


def test_a_prediction_and_its_acknowledgement_are_what_a_client_prints():
    assert problem([json.dumps(PREDICTION), json.dumps(ACK)]) is None


def test_codes_of_a_terminal_are_no_lines_of_a_client():
    assert plain_lines("\x1b[0m{}\n\n{}\n\x1b[0m\x1b[1;31m\n") == ["{}", "{}"]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([PREDICTION], "1 lines"),
        ([PREDICTION | {"output": -1, "default": True}, ACK], "not the sum"),
        ([PREDICTION, ACK | {"outcome": "orphan"}], "not acknowledged"),
        ([PREDICTION, ACK | {"query_id": "other"}], "not acknowledged"),
    ],
)
def test_a_client_that_prints_anything_else_has_failed(lines, said):
    assert said in problem([json.dumps(line) for line in lines])


def test_a_client_whose_toolchain_is_not_installed_says_which_tool_is_missing():
    (program, *_) = PROGRAMS
    assert dataclasses.replace(program, tools=("no-such-tool",)).missing == ["no-such-tool"]


def test_every_client_is_on_the_page():
    folders = re.findall(r"examples/clients/(\w+)/", PAGE.read_text())
    assert folders == [program.language for program in PROGRAMS]
