"""What `status` and `watch` cost in a deployment of two hundred applications, in seconds of a processor."""

import io
import time
from typing import TypeAlias

import pytest
from builders.status import NOW_S, report
from rich.console import Console

from clipper_agents.cli.sparklines import RecentCurves
from clipper_agents.cli.status_view import COLUMNS, lines, page, show
from clipper_agents.status.build import StatusBuilder
from clipper_agents.status.deployment_view import DeploymentView
from clipper_agents.status.model import Status
from clipper_agents.status.problems import reasons_of
from clipper_agents.status.traffic_window import LONGEST_S, TrafficWindow
from clipper_agents.status.watch import take_snapshot
from clipper_topics import codec
from clipper_topics.control_keys import key_of
from clipper_topics.manifests import ApplicationManifest, ModelManifest, PolicySpec
from clipper_topics.prediction import ModelAnswer, Prediction
from clipper_topics.selection_rows import ROW_VERSION, ModelTotalsRecord, RowKey, SelectionRow, encode_key, encode_row

APPLICATIONS, PARTITIONS, CONTEXTS = 200, 4, 100
"""Contexts are those of one application: 20,000 rows, as many as `status` reads."""
ANSWERS_WITHIN_S = 1.0
Deployment: TypeAlias = tuple[DeploymentView, TrafficWindow]


def declare(found: DeploymentView, number: int) -> None:
    """An application of two versions, with a host and totals of each, and contexts."""
    refs = [f"model-{number}:{version}" for version in (1, 2)]
    for ref in refs:
        name, _, version = ref.partition(":")
        manifest = ModelManifest(name=name, version=version, uri="shop:svm")
        found.control(key_of(manifest), codec.models.encode(manifest))
        report(found, ref, f"host.{ref}", "ready")
    application = ApplicationManifest(name=f"app-{number}", models=refs, policy=PolicySpec(name="exp3"))
    found.control(key_of(application), codec.applications.encode(application))
    totals = [ModelTotalsRecord(model=ref, count=9, loss=1, weighted_count=9, weighted_loss=1) for ref in refs]
    row = encode_row(SelectionRow(version=ROW_VERSION, offset=9, applied=9, totals=totals))
    for partition in range(PARTITIONS):
        found.totals(encode_key(RowKey(application.name, None, partition)), row)
    for context in range(CONTEXTS):
        found.context(encode_key(RowKey(application.name, f"user-{context}", context % PARTITIONS)), row)


@pytest.fixture(scope="module")
def deployment() -> Deployment:
    """Two hundred applications, each with a query a second."""
    facts, recent = DeploymentView(), TrafficWindow()
    for number in range(APPLICATIONS):
        declare(facts, number)
        for second in range(LONGEST_S):
            answer = ModelAnswer(model=f"model-{number}", version="1", propensity=0.5, output=1, latency_ms=2.0)
            told = Prediction(query_id="0-1", application=f"app-{number}", models=[answer], latency_ms=9.0)
            recent.predicted(told, NOW_S - LONGEST_S + second, NOW_S)
    return facts, recent


def test_the_status_of_two_hundred_applications_is_made_and_shown_within_a_second(deployment: Deployment) -> None:
    facts, recent = deployment
    began_s, shown = time.process_time(), io.StringIO()
    found = StatusBuilder(facts=facts, recent=recent, now_s=NOW_S, window_s=LONGEST_S).applications()
    status = Status(prefix="clipper", at_s=NOW_S, applications=found)
    show(Console(file=shown, width=COLUMNS), status, reasons_of(status))
    assert time.process_time() - began_s < ANSWERS_WITHIN_S
    assert found["app-7"].contexts == CONTEXTS
    assert shown.getvalue().count(": exp3, objective 100 ms") == APPLICATIONS


def test_a_page_and_the_lines_of_two_hundred_applications_take_less_than_a_second(deployment: Deployment) -> None:
    facts, recent = deployment
    began_s, shown = time.process_time(), io.StringIO()
    look = take_snapshot(facts, recent, NOW_S, 0)
    screen, curves = Console(file=shown, width=COLUMNS, height=10 * APPLICATIONS), RecentCurves()
    curves.add(look)
    screen.print(page(look, "clipper", curves.tables(screen)))
    told = [*lines(look, ())]
    assert time.process_time() - began_s < ANSWERS_WITHIN_S
    assert sum(" q/s" in line for line in told) == APPLICATIONS
    assert shown.getvalue().count("weight model-7:2") == 1
    assert shown.getvalue().count(": exp3, objective 100 ms") == APPLICATIONS
