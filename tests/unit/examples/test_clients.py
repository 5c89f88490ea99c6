"""Clients in other languages, and clients that others wrote: each says in a line how it went."""

import dataclasses
import json
import re
from pathlib import Path

import pytest

from examples.clients.run import PROGRAMS, plain_lines, problem

PAGE = Path(__file__).parents[3] / "docs/how-to/write-a-client.md"
PREDICTION = {"query_id": "q", "application": "sums", "output": 3.0}
ACK = {"query_id": "q", "outcome": "applied", "feedback_offset": 0}


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([PREDICTION, ACK], ""),
        ([PREDICTION], "1 lines"),
        ([PREDICTION | {"output": -1, "default": True}, ACK], "not the sum"),
        ([PREDICTION, ACK | {"outcome": "orphan"}], "not acknowledged"),
        ([PREDICTION, ACK | {"query_id": "other"}], "not acknowledged"),
    ],
)
def test_a_client_that_prints_anything_but_a_prediction_and_its_acknowledgement_has_failed(lines, said):
    found = problem([json.dumps(line) for line in lines])
    assert (found is None) == (said == "")
    assert said in (found or "")


def test_every_client_is_on_the_page_says_which_tool_is_missing_and_prints_no_codes_of_a_terminal():
    (program, *_) = PROGRAMS
    assert dataclasses.replace(program, tools=("no-such-tool",)).missing == ["no-such-tool"]
    assert plain_lines("\x1b[0m{}\n\n{}\n\x1b[0m\x1b[1;31m\n") == ["{}", "{}"]
    folders = re.findall(r"examples/clients/(\w+)/", PAGE.read_text())
    assert folders == [program.language for program in PROGRAMS]
