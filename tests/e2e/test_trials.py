"""Versions on trial as an application sees them: nobody waits for a shadow, and feedback scores whatever was asked."""

import signal
import tomllib
from pathlib import Path

import oracle
import pytest
from e2e.any_client import AnyClient
from e2e.programs import Program, environment_of, run, until

from clipper_topics.catalogue import Catalogue
from clipper_topics.connection import KafkaConnection

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

CONFIGURATION = Path(__file__).with_name("trials.toml")
APPLICATIONS = {one["name"]: one for one in tomllib.loads(CONFIGURATION.read_text())["application"]}
QUERIES = 60
CONTEXTS = 20
"""Every second query has one of these."""


def ask_all(client: AnyClient, topic: str) -> None:
    for number in range(QUERIES):
        context = {"context": f"c{number % CONTEXTS}"} if number % 2 else {}
        content = {"query_id": f"q{number}", "application": "tried", "input": [number, 1], **context}
        client.send_json(topic, content, key=context.get("context", f"q{number}").encode())


def test_a_slow_shadow_delays_no_answer_and_trials_are_scored_by_labels(
    kafka: KafkaConnection, catalogue: Catalogue, tmp_path: Path
):
    environ = environment_of(kafka, catalogue)
    settings = ("--config", str(CONFIGURATION), "--set", f"router.data_dir={tmp_path / 'data'}")
    assert run("apply", "--config", str(CONFIGURATION), folder=tmp_path, environ=environ).code == 0
    with (
        AnyClient(kafka.bootstrap) as client,
        Program("worker", "router", "--instance", "r", *settings, folder=tmp_path, environ=environ) as router,
    ):
        router.ready()
        ask_all(client, catalogue.queries)
        with client.reading(catalogue.predictions) as reading:
            answers = reading.until("every query is answered", lambda found: len(found) >= QUERIES)
        for one in answers:
            told = {"query_id": one.content["query_id"], "label": number_of(one.content) + 1}
            client.send_json(catalogue.feedback, told, key=one.key, partition=one.partition)
        feedback = client.read(catalogue.feedback)
        ends = {one.partition: one.offset for one in feedback}
        table = until(
            "all feedback is in the table",
            lambda: (
                found
                if oracle.positions(found := oracle.table(client.read(catalogue.selection_changelog))) == ends
                else None
            ),
        )
        audits = client.read(catalogue.audits)
        router.signal(signal.SIGTERM)
        assert router.ended() == 0, router.log
    by_query = {one.content["query_id"]: one.content for one in audits}
    assert len(audits) == len(by_query) == QUERIES
    by_canary = 0
    for answer in (one.content for one in answers):
        audit = by_query[answer["query_id"]]
        served = answer["models"][0]["model"]
        by_canary += served == "three"
        assert answer["audited"]
        assert answer["output"] == (3 if served == "three" else number_of(answer) + 1)
        assert answer["served_propensity"] == pytest.approx(0.4 if served == "three" else 0.6)
        asked = {one["model"]: one["output"] for one in audit["models"]}
        assert asked == {
            "slow-sum": number_of(answer) + 1,
            **({"sum": number_of(answer) + 1} if served == "three" else {}),
        }
        assert "missing" not in audit
        assert answer["predicted_at_ms"] < audit["audited_at_ms"], "the answer waited for the shadow"
    assert 5 < by_canary < QUERIES - 5
    assert oracle.unaudited(answers, audits) == set()
    expected = oracle.fold(answers, feedback, APPLICATIONS, audits)
    assert {key: row.bits for key, row in table.items()} == {key: row.bits for key, row in expected.items()}
    counts = {"sum:1": 0.0, "three:1": 0.0, "slow-sum:1": 0.0}
    for row in table.values():
        for model, sums in row.totals.items():
            counts[model] += sums[0]
    assert counts == {"sum:1": QUERIES, "three:1": by_canary, "slow-sum:1": QUERIES}
    assert len([context for _, context, _ in table if context]) == CONTEXTS // 2


def number_of(content: dict) -> int:
    return int(content["query_id"][1:])
