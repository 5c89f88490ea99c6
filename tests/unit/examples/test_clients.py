"""Clients in other languages, and clients that others wrote: each says in a line how it went."""

import dataclasses
import json
import re
import sys
from pathlib import Path

import pytest

from examples.clients import http_judges as judges
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


# --- judges of the gateway ------------------------------------------------------------------------------------------
GATEWAY = judges.JudgedGateway(address="h:9", grpc_address="h:9", folder=Path("/none"), tools=Path("/none"), requests=1)


@pytest.mark.parametrize(
    ("found", "said", "printed"),
    [
        ("", "ok", ""),
        ("10,000 rows", "ok, 10,000 rows", ""),
        (judges.ToolMissing("go"), "not installed: go", ""),
        (judges.JudgeFailed("no sum", "two\nlines"), "failed: no sum", "two\nlines\n"),
        (KeyError("outputs"), "failed: an answer cannot be read: KeyError('outputs')", ""),
    ],
)
def test_a_judge_says_in_a_line_how_it_went_and_prints_what_it_has_printed(found, said, printed, capsys):
    def judge(_):
        if isinstance(found, Exception):
            raise found
        return found

    assert judges.verdict(judge, GATEWAY) == said
    assert capsys.readouterr().err == printed


def test_a_command_that_fails_says_its_last_line_and_one_that_does_not_end_fails():
    assert judges.command_output(sys.executable, "-c", "print(3)") == "3\n"
    with pytest.raises(judges.JudgeFailed, match=r"ended with 1: two$") as caught:
        judges.command_output(sys.executable, "-c", "raise SystemExit('one\\ntwo')")
    assert caught.value.output == "one\ntwo"
    with pytest.raises(judges.JudgeFailed, match="did not end within"):
        judges.command_output(sys.executable, "-c", "import time; time.sleep(60)", within_s=0.0)


def test_what_is_not_as_expected_is_said_and_a_program_is_not_built_again(tmp_path):
    judges.check_equal("the sum", 3, 3)
    with pytest.raises(judges.JudgeFailed, match="the sum: 2, not 3"):
        judges.check_equal("the sum", 2, 3)
    (tmp_path / "grpcurl").touch()
    assert judges.grpcurl_of(tmp_path) == tmp_path / "grpcurl"
    assert judges.named_document("/v2/models/${MODEL_NAME}/versions/${MODEL_VERSION}") == "/v2/models/sums/versions/1"
