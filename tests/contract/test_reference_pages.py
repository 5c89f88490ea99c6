import dataclasses
import re
import tomllib

import msgspec
import pytest
from sources import FOLDERS, ROOT, page_script

from clipper_agents.settings import Settings
from clipper_agents.settings.sections import GatewaySection
from clipper_gateway import api, http_protocol, server
from clipper_stream.client import errors
from clipper_stream.selection.registry import POLICIES
from clipper_topics import codec
from clipper_topics.catalogue import Catalogue
from clipper_topics.connection import VARIABLES
from clipper_topics.feedback import OUTCOMES, Feedback, FeedbackAck, check_feedback
from clipper_topics.manifests import ApplicationManifest, ModelManifest
from clipper_topics.prediction import REASONS, Prediction
from clipper_topics.query import MOST_ROWS, Query, check_query
from clipper_topics.rights import rights_of

OPENAPI = page_script("openapi_document")
ARCHITECTURE = (ROOT / "docs/explanation/architecture.md").read_text(encoding="utf-8")
CONFIGURATION, CONTRACT, HTTP = (
    (ROOT / f"docs/reference/{name}.md").read_text(encoding="utf-8")
    for name in ("configuration", "wire-contract", "http-api")
)


# --- the architecture -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("title", "most"), [("A query", 25), ("A feedback", 12), ("A deploy", 18)])
def test_a_walk_through_the_code_is_short_and_names_what_exists(title, most):
    """A function belongs to the module before it."""
    section = ARCHITECTURE.split(f"\n## {title}\n")[1].split("\n## ")[0]
    source, named, steps = "", set(), re.findall(r"`([\w/]+\.py)`|`([A-Za-z_][\w.]*)\(\)`", section)
    assert len(steps) >= 10
    places = {ROOT, *(folder.parent for folder in FOLDERS)}
    for path, name in steps:
        if path:
            (source,) = [(place / path).read_text() for place in places if (place / path).exists()]
            named.add(path)
        for part in filter(None, name.split(".")):
            assert re.search(rf"^ *(?:async def|def|class) {part}\b", source, re.MULTILINE), f"{name} is not there"
    assert len(named) <= most


OFF_THE_MAP = {
    "answers",
    "blocking_client",
    "demo",
    "errors",
    "examples",
    "exits",
    "memory",
    "names",
    "observability",
    "threads",
}


@pytest.mark.parametrize("container", ["clipper_agents", "clipper_stream"])
def test_the_map_has_the_layers_of_the_import_linter(container):
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = [one["layers"] for one in contracts if one.get("containers") == [container]]
    named = [{*re.findall(r"\w+", layer)} - OFF_THE_MAP for layer in layers]
    picture = ARCHITECTURE.split(f"─ {container}: ")[1].split("─ clipper_")[0]
    lines = [re.split(r"\s{2,}", row)[0] for row in re.findall(r"│ (\w.*?) *│\n", picture)]
    assert [{*line.split(" · ")} for line in lines] == [layer for layer in named if layer]


# --- settings -------------------------------------------------------------------------------------------------------
TABLES = [field for field in msgspec.structs.fields(Settings) if isinstance(field.type, type)]
SECTIONS = {f"[{field.encode_name}]": field.type for field in TABLES}
SECTIONS |= {"[[application]]": ApplicationManifest, "[[model]]": ModelManifest}


@pytest.mark.parametrize("section", SECTIONS)
def test_every_key_and_every_plain_default_is_in_the_reference(section):
    text = CONFIGURATION.split(f"## `{section}`")[1].split("\n## ")[0]
    rows = re.findall(r"^- (`[^(]+`) \((.*?)\):", text, flags=re.MULTILINE)
    told = {key.split(".")[0]: default.strip(" `") for keys, default in rows for key in re.findall(r"`([^`]+)`", keys)}
    for field in msgspec.structs.fields(SECTIONS[section]):
        default, found = field.default, told[field.encode_name]
        if isinstance(default, bool | str):
            assert found == (str(default).lower() if isinstance(default, bool) else default), field.name
        elif isinstance(default, int | float):
            assert float(found) == default, field.name


@pytest.mark.parametrize("name", POLICIES)
def test_every_policy_and_its_parameters_are_in_the_reference(name):
    (row,) = re.findall(rf"^\| `{name}` \|.*", CONFIGURATION.split("### Selection policies")[1], re.MULTILINE)
    for field in dataclasses.fields(POLICIES[name]):
        assert (f"`{field.name}` {field.default:g}" if isinstance(field.default, float) else f"`{field.name}`") in row


# --- the wire contract ----------------------------------------------------------------------------------------------
def shown(name):
    """Key and value of the example below this mark; its lines are one record."""
    (block,) = re.findall(rf"<!-- {name} -->\n((?:    .*\n)+)", CONTRACT)
    key, _, value = "".join(line.strip(" \n") + " " for line in block.splitlines()).rpartition("\t")
    return key, value.encode()


def test_the_records_shown_can_be_sent_under_their_context_as_key_and_read():
    (query_key, query), (feedback_key, feedback) = shown("query"), shown("feedback")
    asked, learned = codec.queries.decode(query), codec.feedback.decode(feedback)
    assert (check_query(asked), check_feedback(learned)) == (None, None)
    assert query_key == feedback_key == asked.context == learned.context
    assert asked.query_id == learned.query_id
    assert codec.predictions.decode(shown("prediction")[1]).output == 3


def test_the_page_lists_reasons_and_outcomes_with_their_meanings():
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", CONTRACT, re.MULTILINE))
    assert {word: rows.get(word) for word in (*REASONS, *OUTCOMES)} == REASONS | OUTCOMES


def test_the_pages_name_every_field_topic_header_error_and_variable():
    fields = {name for record in (Query, Prediction, Feedback, FeedbackAck) for name in record.__struct_fields__}
    inner = {"outputs", "selection", "hosts", "router-selection-changelog"}
    topics = {spec.name for spec in Catalogue().fixed_topics()} - {f"clipper.{name}" for name in inner}
    raised = {name for name, one in vars(errors).items() if getattr(one, "__module__", "") == errors.__name__}
    assert [name for name in fields | topics | {*codec.ECHOED} | raised if f"`{name}`" not in CONTRACT] == []
    assert [variable for variable in VARIABLES.values() if f"`{variable}`" not in CONFIGURATION] == []


# --- the HTTP API ---------------------------------------------------------------------------------------------------
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in HTTP.splitlines() if line.startswith("| ")]
IN_ALL = {"400", "403", "431", "500"}


def test_the_page_has_each_request_with_its_statuses_and_every_header_and_parameter():
    statuses = re.compile(r"\d{3}").findall
    told = {row[0].strip("`"): ({*statuses(row[2])}, {*statuses(row[3])}) for row in ROWS if len(row) == 4}
    del told["request"]
    documented = {}
    for path, item in OPENAPI.document()["paths"].items():
        for method, operation in item.items():
            answers = {status for status, response in operation["responses"].items() if "$ref" not in response}
            refusals = set(operation["responses"]) - answers
            assert refusals >= IN_ALL
            documented[f"{method.upper()} {path}"] = answers, refusals - IN_ALL
    assert told == documented
    assert f"answered by {', '.join(sorted(IN_ALL)[:-1])} or {max(IN_ALL)}" in HTTP
    parameters = {one["name"] for one in OPENAPI.document()["components"]["parameters"].values() if one["in"] != "path"}
    assert [name for name in {*parameters, *OPENAPI.RESPONSE_HEADERS} if not re.search(rf"\b{name}\b", HTTP)] == []


DEFAULTS = GatewaySection()
BOUNDS = {
    "headers": f"{http_protocol.MOST_HEADER_BYTES // 1024} KiB, {http_protocol.MOST_HEADERS} headers",
    "time for the headers": f"{http_protocol.HEADERS_S:g} s",
    "body": f"`gateway.max_body_bytes`, {DEFAULTS.max_body_bytes // 2**20} MiB",
    "time for the body": f"{http_protocol.BODY_S:g} s",
    "time in which a byte of the answer is taken": f"{http_protocol.STALLED_S:g} s",
    "time between two requests of a connection": f"{server.IDLE_S} s",
    "connections": f"{server.MOST_CONNECTIONS:,}",
    "calls of an application that wait": f"`gateway.max_in_flight`, {DEFAULTS.max_in_flight:,}; ",
    "wait without an objective or a deadline": f"`gateway.timeout_s`, {DEFAULTS.timeout_s:g} s",
    "rows of a query": f"{MOST_ROWS:,}",
    "feedback in one request": f"{api.MOST_FEEDBACK:,}",
}


def test_the_page_has_the_bounds_that_count():
    told = [(row[0], row[1]) for row in ROWS if row[0] in BOUNDS]
    assert sorted(what for what, _ in told) == sorted(BOUNDS)
    assert [(what, bound) for what, bound in told if not bound.startswith(BOUNDS[what])] == []
    assert f"`wait_s`, 0 to {api.MOST_WAIT_S:g}," in HTTP


# --- rights on Kafka --------------------------------------------------------------------------------------------------
def test_the_page_has_the_rights_of_each_role():
    page, role, told = (ROOT / "docs/how-to/secure-kafka.md").read_text(), "", set()
    line = r"^\*\*([\w -]+)\*\*$|^- (topic|group|transactional-id) ([\w, ]+): (.+(?:\n  .+)*)$"
    for heading, kind, operations, names in re.findall(line, page, re.MULTILINE):
        role = heading.replace(" ", "-") or role
        told |= {(role, kind, name, *operations.split(", ")) for name in re.findall("`([^`]+)`", names)}
    needed = rights_of(Catalogue(), ["<model>.<version>"])
    assert told == {(one.role, one.kind, one.name + "*" * one.is_prefix, *one.operations) for one in needed}
