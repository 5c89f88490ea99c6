"""The packaged OpenAPI document is what the code says, and the page about the HTTP API has what is in it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from clipper_agents.settings.sections import GatewaySection
from clipper_gateway import api, http_protocol, pending_answers, server
from clipper_gateway.openapi import FILE, RESPONSE_HEADERS, document
from clipper_topics.http_messages import MOST_BATCH_ROWS
from clipper_topics.query import MOST_ROWS

PAGE = (Path(__file__).parents[2] / "docs/reference/http-api.md").read_text(encoding="utf-8")
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if line.startswith("| ")]
IN_ALL = {"400", "403", "431", "500"}


def test_the_packaged_document_is_what_would_be_written_now():
    command = [sys.executable, "-m", "clipper_gateway.openapi"]
    written = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert FILE.read_text(encoding="utf-8") == written, f"run `{' '.join(command[1:])} > {FILE.name}` and commit it"


def statuses(text):
    return set(re.findall(r"\d{3}", text))


def test_the_page_has_each_request_with_its_statuses():
    told = {row[0].strip("`"): (statuses(row[2]), statuses(row[3])) for row in ROWS if len(row) == 4}
    del told["request"]
    documented = {}
    for path, item in document()["paths"].items():
        for method, operation in item.items():
            answers = {status for status, response in operation["responses"].items() if "$ref" not in response}
            refusals = set(operation["responses"]) - answers
            assert refusals >= IN_ALL
            documented[f"{method.upper()} {path}"] = answers, refusals - IN_ALL
    assert told == documented
    assert f"answered by {', '.join(sorted(IN_ALL)[:-1])} or {max(IN_ALL)}" in PAGE


def test_the_page_names_every_header_and_parameter():
    parameters = {one["name"] for one in document()["components"]["parameters"].values() if one["in"] != "path"}
    assert [name for name in {*parameters, *RESPONSE_HEADERS} if not re.search(rf"\b{name}\b", PAGE)] == []


@pytest.mark.parametrize(
    ("what", "bound"),
    [
        ("headers", f"{http_protocol.MOST_HEADER_BYTES // 1024} KiB, {http_protocol.MOST_HEADERS} headers"),
        ("time for the headers", f"{http_protocol.HEADERS_S:g} s"),
        ("body", f"`gateway.max_body_bytes`, {GatewaySection().max_body_bytes // 2**20} MiB"),
        ("time for the body", f"{http_protocol.BODY_S:g} s"),
        ("time in which a byte of the answer is taken", f"{http_protocol.STALLED_S:g} s"),
        ("time between two requests of a connection", f"{server.IDLE_S} s"),
        ("connections", f"{server.MOST_CONNECTIONS:,}"),
        ("calls of an application that wait", f"`gateway.max_in_flight`, {GatewaySection().max_in_flight:,}; "),
        ("wait without an objective or a deadline", f"`gateway.timeout_s`, {GatewaySection().timeout_s:g} s"),
        ("rows of a query", f"{MOST_ROWS:,}"),
        ("rows of a Clipper batch", f"{MOST_BATCH_ROWS:,}"),
        ("feedback in one request", f"{api.MOST_FEEDBACK:,}"),
    ],
)
def test_the_page_has_the_bounds_that_count(what, bound):
    (found,) = [row[1] for row in ROWS if row[0] == what]
    assert found.startswith(bound)


def test_the_page_has_the_bounds_of_streams():
    assert f"`wait_s`, 0 to {api.MOST_WAIT_S:g}," in PAGE
    assert f"more than {pending_answers.MOST_UNREAD:,}" in PAGE
