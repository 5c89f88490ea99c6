"""The code holds its rules, and each rule is seen to fail on a sample that breaks it."""

from collections.abc import Callable

import pytest
from code_rules import (
    ROOT,
    Module,
    classes_of_one_name,
    fragments,
    imported_by_no_product,
    is_riddle,
    long_test_names,
    modules_below,
    over_budget,
    product,
    riddles,
)

from clipper_stream.models.registry import RUNTIMES
from clipper_stream.selection.registry import POLICIES

PRODUCT = product()
TESTS = modules_below("tests", ROOT / "tests")
ENTRY_POINTS = (
    "clipper_agents.cli.main",  # the command line program
    "clipper_agents.examples.models",  # named as a URI, `clipper_agents.examples.models:sum_of_row`
    "clipper_stream.caching.dict_store",  # for programs that use the library without RocksDB
    "clipper_stream.evaluation.log.arrays",  # for logs of other systems
)
"""Modules that users name, and no module of the product."""

BUDGETS: dict[str, int] = {
    "clipper_agents": 25,
    # the AOT cache, and the process that makes it
    "clipper_agents.broker": 1035,
    # the evidence of a trial in a line, tables that cut nothing, what became of a feedback, `up MODEL`, addresses
    # that are found, models loaded before they are published, `model delete`, what was sent by a command that breaks,
    # missing extras, refused records of the control topic, a worker for all hosts, publishing only what is new, the
    # commands of the gateway, questions over HTTP, logs in two formats, sparklines
    "clipper_agents.cli": 4430,
    # deleted versions, failures since a deploy, refused records that a command replaces, what is new in a file and
    # what differs, with who changed it, plans that the console shows
    "clipper_agents.control": 2215,
    # letters by position, and a list of them sent again, for the console
    "clipper_agents.dead_letters": 425,
    "clipper_agents.demo": 1240,
    "clipper_agents.examples": 75,
    # the note of where a policy or loss took effect, forgotten contexts, acknowledgements
    "clipper_agents.feedback": 450,
    # refused formats of databases, an allocated journal, how long batches wait, models that fail, outputs that are
    # safe at once, spans of batches, probes, stages of a batch
    "clipper_agents.host": 1735,
    # offsets without a record, positions outside of a log, ids of topics, limits of brokers, incremental fetches,
    # packed requests, connections without a task and a timer for each answer, groups asked for at once, batches
    # nobody can read, one check of a topic's partitions, a task for each broker, a pause between fetches, what is
    # skipped
    "clipper_agents.kafka": 2775,
    # latency by stage, batches that failed, errors without a traceback, metrics of the gateway, probes, exemplars,
    # bounded series, logs as JSON, spans and their exporter
    "clipper_agents.observability": 2160,
    # the part of a range that was not sent
    "clipper_agents.replay": 5110,
    # ids of two applications, ids of topics, decisions that wait for feedback, shares, known losses, comparisons as
    # records
    "clipper_agents.rollout": 1810,
    # one writer a changelog partition, ends of logs, the bound of contexts, large steps in turns, deferred queries,
    # rows that stay bytes, partitions apart, backlogs left for later, queries in blocks, rows that cannot be decoded,
    # echoed headers, ensembles in blocks, spans of sampled queries, reasons why a router is not ready
    "clipper_agents.router": 5020,
    # the address of the `up` of a folder, two keys of what may be loaded, rows that applications state, data by
    # prefix, the gateway, the console, the supervisor's metrics
    "clipper_agents.settings": 915,
    # ids of topics, text that a terminal does not obey, models that fail or are late, what became of a feedback,
    # retired versions that leave, losses of a trial, what the logs say about one query, comparisons, a log of which a
    # sample is read, moving windows, figures of pages, the past read again
    "clipper_agents.status": 2940,
    # one writer a changelog partition, one process of a name, the log's time, deleted rows, limits of brokers,
    # partitions apart, dead letters in a task of their own, offsets left for later, records beside rows, one wait for
    # records, reasons why a process is not ready, topics that are followed, a database of bounded size, a process that
    # asks whether it is still a member
    "clipper_agents.streaming": 2830,
    # the template of workers, and the processes forked from it, a start that keeps what is live and tells its steps,
    # a gateway without which all else goes on, metrics of its own, a file of targets
    "clipper_agents.supervisor": 1885,
    # HTTP and gRPC, who may ask, tensors, repeats, overload, slow clients, the OpenAPI document and its page, spans
    # of calls, callers with a session
    "clipper_gateway": 3850,
    # what pages show, sessions, actions, a history of hours
    "clipper_gateway.console": 1921,
    "clipper_loadgen": 1495,
    # text that a terminal does not obey, an interval that holds at all times
    "clipper_stream": 210,
    "clipper_stream.batching": 765,
    "clipper_stream.caching": 285,
    # two lines an outage in place of aiokafka's, queries and feedback as records, with keys and headers, spans of
    # what is sent
    "clipper_stream.client": 1430,
    "clipper_stream.combining": 201,
    "clipper_stream.drift": 350,
    # joint intervals, support of candidates that learn, rows of a query
    "clipper_stream.evaluation": 5305,
    # labels of another kind than the outputs, labels that are not finite
    "clipper_stream.feedback": 535,
    "clipper_stream.http": 404,
    # runtimes by the name of a file, models loaded in another process within a bound
    "clipper_stream.models": 3060,
    # shares of applications, rows that stay bytes, queries that have waited too long, queries in blocks, integers in
    # float form, ensembles in blocks, the header of a trace, times that models need at least, defaults in blocks
    "clipper_stream.query": 3020,
    # states that age by the time of the log, draws of many queries
    "clipper_stream.selection": 1880,
    # scores of drawn queries, losses that are not known, silence, samples, candidates over the same queries
    "clipper_stream.sequential_testing": 897,
    # ids of topics, timestamps of queries, refused formats, forgotten contexts, states that age, plain queries,
    # schemas that say what is accepted, integers in float form, nested fields of later releases, acknowledgements,
    # echoed headers, bodies of the gateway's API, comparisons, trace contexts
    "clipper_topics": 3400,
}
"""Lines that a package may have; above a number that was raised, what the lines do that no existing module could."""


PACKAGES = {".".join(name.split(".")[:2]) for name in PRODUCT if name.count(".") > 1}


def package_of(name: str) -> str:
    package = ".".join(name.split(".")[:2])
    return package if package in PACKAGES else name.partition(".")[0]


def lines_by_package() -> dict[str, int]:
    lines: dict[str, int] = {}
    for name, module in PRODUCT.items():
        lines[package_of(name)] = lines.get(package_of(name), 0) + module.lines
    return lines


def registered() -> set[str]:
    """Modules that a registry makes reachable by name (runtimes, policies, commands), and the registries."""
    by_registry = {*RUNTIMES.values(), *POLICIES.values()}
    names = {getattr(entry, "__module__", None) or getattr(entry, "__name__", "") for entry in by_registry}
    return names | {name for name in PRODUCT if name.startswith("clipper_agents.cli.") or name.endswith(".registry")}


def test_no_class_name_stands_twice_in_the_product() -> None:
    assert classes_of_one_name(PRODUCT.values()) == []


def test_no_module_has_a_name_that_is_a_riddle() -> None:
    assert riddles(PRODUCT.values()) == []


def test_nothing_in_the_wheel_is_used_by_tests_and_examples_alone() -> None:
    assert imported_by_no_product(PRODUCT, ENTRY_POINTS) == []


def test_no_small_module_serves_a_single_neighbour() -> None:
    assert fragments(PRODUCT, registered()) == []


def test_every_package_keeps_its_budget_of_lines() -> None:
    assert over_budget(lines_by_package(), BUDGETS) == []


def test_no_test_has_a_name_of_more_than_eighty_characters() -> None:
    assert long_test_names(TESTS.values()) == []


ONE = Module("pkg.one", "class Answer: ...\n")
TWO = Module("pkg.two", "from pkg import one\n\nclass Answer: ...\n")


@pytest.mark.parametrize(
    ("rule", "sample"),
    [
        (classes_of_one_name, [ONE, TWO]),
        (riddles, [Module("pkg.asking", "")]),
        (riddles, [Module("pkg.scored", "")]),
        (long_test_names, [Module("test_x", f"def test_{'a' * 80}(): ...\n")]),
    ],
)
def test_a_rule_of_modules_fails_when_it_is_broken(rule: Callable[[list[Module]], list[str]], sample: list[Module]):
    assert rule(sample) != []


def test_a_module_that_nobody_imports_is_found_unless_it_is_an_entry_point() -> None:
    product = {module.name: module for module in (ONE, TWO)}
    assert imported_by_no_product(product, []) == ["pkg.two"]
    assert imported_by_no_product(product, ["pkg.two"]) == []


def test_a_fragment_is_found_unless_it_has_two_importers_or_a_registry() -> None:
    product = {module.name: module for module in (ONE, TWO)}
    assert fragments(product, []) == ["pkg.one (1 lines)"]
    assert fragments(product, ["pkg.one"]) == []
    assert fragments({**product, "pkg.three": Module("pkg.three", "import pkg.one\n")}, []) == []


def test_a_package_over_its_budget_or_without_one_is_found() -> None:
    assert over_budget({"pkg": 11, "new": 1}, {"pkg": 10}) == ["new: 1 lines, 0 allowed", "pkg: 11 lines, 10 allowed"]
    assert over_budget({"pkg": 10}, {"pkg": 10}) == []


@pytest.mark.parametrize("stem", ["batching", "prediction_log", "with_trials", "single"])
def test_a_name_of_the_field_is_no_riddle(stem: str) -> None:
    assert not is_riddle(stem)
