"""How long does a router take to serve again, with a million decisions that feedback may still be about?

    python benchmarks/recovery.py --json results/recovery.json      # about a minute
    python benchmarks/recovery.py --quick

The pipeline with its model inside the router (`configs/colocated.toml`) starts three ways: with nothing in its topics;
with a million predictions and a hundred thousand feedbacks there and its data directory kept; and with the same and its
data directory wiped, so that all of it is read again. The predictions are valid records, written by a producer within
the feedback horizon; the feedback was learned from by a router before it is restarted.

Time runs from the start of the process (the supervisor's) to the answer to a query that waits in its topic. Records a
second are those of the wiped start, by its time beyond that of an empty start; and, where the router's log says it, by
the time that recovery took.
"""

import argparse
import asyncio
import re
import shutil
import time
from collections.abc import Iterator
from typing import Any

import msgspec
from confluent_kafka import Message
from rig.flood import Record, produce_all
from rig.measuring import rows
from rig.metrics import Growth, counters
from rig.predictions import ends_of, is_default, records_from
from rig.results import Measures, Run, Summary, Target, load_average
from rig.session import Session, parsed, report, session, system_options, told
from rig.systems import Place, served, tables_of

from clipper_agents.broker.properties import free_port
from clipper_agents.kafka.topics import ensure_topics
from clipper_topics import codec
from clipper_topics.feedback import Feedback
from clipper_topics.prediction import ModelAnswer, PolicyRef, Prediction
from clipper_topics.query import Query

CONFIG, APPLICATION = "colocated.toml", "digits-backlog"
EMPTY, KEPT, WIPED = "nothing to recover", "data directory kept", "data directory wiped"
RECOVERED = re.compile(r"recovery done .*seconds=([0-9.]+)")
APPLIED = ("clipper_feedback_total", 'outcome="applied"')
FIRST = "first answer, s"
MEASURES: Measures = {
    FIRST: lambda run: run["first_answer_s"],
    "ready, s": lambda run: run["ready_s"],
    "recovery, s": lambda run: run["recovery_s"],
    "read a second": lambda run: run.get("read_per_s"),
    "in recovery": lambda run: run.get("read_per_s_in_recovery"),
}
ANSWER_S = 60.0
QUICK = {"rounds": 1, "decisions": 5_000, "feedback": 500}


def main() -> None:
    options = arguments()
    with session(options) as here:
        runs = list(told({"system": "recovery"}, restarts(here, options)))
    title = f"restart with {options.decisions:,} decisions and {options.feedback:,} feedbacks"
    report(options, title, runs, MEASURES, targets)


def targets(found: Summary) -> list[Target]:
    return [
        Target.of("H", f"{row}: {FIRST}", (found, row, FIRST), "<=", most_s)
        for row, most_s in ((EMPTY, 1.5), (KEPT, 1.5), (WIPED, 10.0))
    ]


def restarts(here: Session, options: argparse.Namespace) -> Iterator[Run]:
    """Empty starts, then the records, then restarts with and without a data directory."""
    place = here.place("recovery")
    asyncio.run(ensure_topics(place.connection, place.catalogue))
    if not options.quick:
        started(place)  # the first in a broker takes seconds longer
    empty: list[Run] = []
    for number in range(options.rounds):
        shutil.rmtree(tables_of(place), ignore_errors=True)
        empty.append({"round": number, "system": EMPTY, **started(place)})
        yield empty[-1]
    filled(place, options)
    read = options.decisions + options.feedback
    for number in range(options.rounds):
        yield {"round": number, "system": KEPT, **started(place)}
        shutil.rmtree(tables_of(place))
        run = started(place)
        longer_s = run["first_answer_s"] - empty[number]["first_answer_s"]
        run["read_per_s"] = round(read / longer_s, 1) if longer_s > 0 else None
        run["read_per_s_in_recovery"] = round(read / run["recovery_s"], 1) if run["recovery_s"] else None
        yield {"round": number, "system": WIPED, **run}


def started(place: Place) -> dict[str, Any]:
    """Start with a query in the topic, wait for its answer, and stop."""
    load_before = load_average()
    before = ends_of(place.connection, place.catalogue.predictions, place.catalogue.partitions)
    produce_all(place.connection, place.catalogue.queries, iter([(0, None, query())]))
    began_s = time.time()
    with served(place, CONFIG):
        ready_s = time.time() - began_s
        answer = first_answer(place, before)
    log = (place.logs / f"{place.catalogue.prefix}-{CONFIG}.log").read_text(errors="replace")
    found = [float(seconds) for seconds in RECOVERED.findall(log)]
    return {
        "first_answer_s": round(answer.timestamp()[1] / 1000 - began_s, 2),
        "ready_s": round(ready_s, 2),
        "recovery_s": max(found, default=None),
        "default": is_default(answer),
        "load_before": load_before,
        "load_after": load_average(),
    }


def first_answer(place: Place, before: list[int]) -> Message:
    """The first prediction behind these offsets; a marker of the router's is no prediction, and comes earlier."""
    give_up_s = time.monotonic() + ANSWER_S
    while not (answers := records_from(place.connection, place.catalogue.predictions, before)):
        assert time.monotonic() < give_up_s, "the query was not answered"
    return answers[0]


def query() -> bytes:
    """A new input each time, so that a model is asked."""
    return codec.queries.encode(Query(application=APPLICATION, input=rows(1, time.monotonic_ns()).row(0)))


def filled(place: Place, options: argparse.Namespace) -> None:
    """Predictions and feedback in their topics, the feedback learned from."""
    began_s = time.monotonic()
    produce_all(place.connection, place.catalogue.predictions, predictions(options.decisions, place))
    print(f"{options.decisions:,} predictions written in {time.monotonic() - began_s:.0f} s", flush=True)
    produce_all(place.connection, place.catalogue.feedback, feedback(options.feedback, place))
    port = free_port()
    with (
        served(place, CONFIG, f"router.metrics_port={port}"),
        Growth(lambda: counters(port, {"applied": APPLIED}), base=0.0) as growth,
    ):
        assert growth.reached("applied", options.feedback), f"feedback was applied {growth.grown('applied')} times"
    print(f"{options.feedback:,} feedbacks learned from after {time.monotonic() - began_s:.0f} s", flush=True)


def predictions(count: int, place: Place) -> Iterator[Record]:
    """Valid records, one like the other but for the query's id."""
    mark = "0" * 16
    encoded = codec.predictions.encode(example(mark))
    assert msgspec.json.decode(encoded, type=Prediction).query_id == mark
    head, _, tail = encoded.partition(mark.encode())
    for number in range(count):
        partition = number % place.catalogue.partitions
        yield partition, None, head + query_id(partition, number).encode() + tail


def example(name: str) -> Prediction:
    now_ms = round(time.time() * 1000)
    return Prediction(
        query_id=name,
        application=APPLICATION,
        output=3,
        confidence=1.0,
        policy=PolicyRef(name="single"),
        served_propensity=1.0,
        models=[ModelAnswer(model="digits", version="1", propensity=1.0, output=3, latency_ms=1.25)],
        query_offset=0,
        queried_at_ms=now_ms,
        predicted_at_ms=now_ms + 2,
        latency_ms=2.0,
    )


def feedback(count: int, place: Place) -> Iterator[Record]:
    """Labels for the first queries."""
    for number in range(count):
        partition = number % place.catalogue.partitions
        label = Feedback(query_id=query_id(partition, number), label=number % 10)
        yield partition, None, codec.feedback.encode(label)


def query_id(partition: int, number: int) -> str:
    """Names its partition, as ids of the client do."""
    return f"{partition}-{number:014x}"


def arguments() -> argparse.Namespace:
    parser = system_options(__doc__)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--decisions", type=int, default=1_000_000)
    parser.add_argument("--feedback", type=int, default=100_000)
    return parsed(parser, QUICK)


if __name__ == "__main__":
    main()
