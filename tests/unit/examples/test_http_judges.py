"""Clients that others wrote: each judge says in a line how it went, and one that is not there is named."""

import sys
from pathlib import Path

import pytest

from examples.clients.http_judges import (
    JudgedGateway,
    JudgeFailed,
    ToolMissing,
    check_equal,
    command_output,
    grpcurl_of,
    named_document,
    verdict,
)

GATEWAY = JudgedGateway(address="h:9", grpc_address="h:9", folder=Path("/none"), tools=Path("/none"), requests=1)


@pytest.mark.parametrize(
    ("found", "said", "printed"),
    [
        ("", "ok", ""),
        ("10,000 rows", "ok, 10,000 rows", ""),
        (ToolMissing("go"), "not installed: go", ""),
        (JudgeFailed("no sum", "two\nlines"), "failed: no sum", "two\nlines\n"),
        (KeyError("outputs"), "failed: an answer cannot be read: KeyError('outputs')", ""),
    ],
)
def test_a_judge_says_in_a_line_how_it_went_and_prints_what_it_has_printed(found, said, printed, capsys):
    def judge(_):
        if isinstance(found, Exception):
            raise found
        return found

    assert verdict(judge, GATEWAY) == said
    assert capsys.readouterr().err == printed


def test_a_command_that_fails_says_its_last_line():
    assert command_output(sys.executable, "-c", "print(3)") == "3\n"
    with pytest.raises(JudgeFailed, match=r"ended with 1: two$") as caught:
        command_output(sys.executable, "-c", "raise SystemExit('one\\ntwo')")
    assert caught.value.output == "one\ntwo"


def test_a_command_that_does_not_end_fails():
    with pytest.raises(JudgeFailed, match="did not end within"):
        command_output(sys.executable, "-c", "import time; time.sleep(60)", within_s=0.0)


def test_what_is_not_as_expected_is_said():
    check_equal("the sum", 3, 3)
    with pytest.raises(JudgeFailed, match="the sum: 2, not 3"):
        check_equal("the sum", 2, 3)


def test_a_program_that_was_built_before_is_not_built_again(tmp_path):
    (tmp_path / "grpcurl").touch()
    assert grpcurl_of(tmp_path) == tmp_path / "grpcurl"


def test_the_document_of_the_protocol_is_about_the_application():
    assert named_document("/v2/models/${MODEL_NAME}/versions/${MODEL_VERSION}") == "/v2/models/sums/versions/1"
