"""The end of a case: what the logs say, and say once more when they are compacted and a router has lost everything."""

import shutil
import signal
from collections.abc import Sequence
from dataclasses import replace

from e2e.any_client import AnyClient, Record
from e2e.programs import Program, until
from e2e.traffic import Traffic
from faults.compaction import compact
from faults.deployment import APPLICATIONS, OwnDeployment
from faults.verdict import Verdict, elsewhere, judge

LATE = "late order"
"""Ids of what is asked at the end begin with it."""
QUERIES = 200
"""Enough for each context of each application to be learned about again."""


def judge_twice(deployment: OwnDeployment, *running: Program) -> Verdict:
    """Judge a deployment that is asked nothing more, and once more when it has lost everything but its topics.

    Args:
        deployment: All of its routers are among what runs, or have ended.
        running: Ended in between; hosts may stay.
    """
    before = judge(deployment.client, deployment.catalogue.prefix, APPLICATIONS)
    return judge_restored(deployment, before, *running)


def judge_restored(deployment: OwnDeployment, before: Verdict, *running: Program) -> Verdict:
    """Compact, restore, ask and tell, and judge; of two verdicts the worse. Arguments as of `judge_twice`.

    The router reads a compacted changelog into an empty directory and goes on from its rows; it is told about every
    earlier answer once more, of which nothing may count.
    """
    client, catalogue = deployment.client, deployment.catalogue
    learned = [name for name in APPLICATIONS if name != "slow"]  # whose model may be gone with its host
    end(*(program for program in running if program.code is None))
    compact(client, catalogue.selection_changelog)
    shutil.rmtree(deployment.data, ignore_errors=True)
    with deployment.worker("router") as router:
        router.ready()
        with (
            client.reading(catalogue.predictions) as answers,
            Traffic(client, catalogue.prefix, catalogue.partitions, rate_per_s=QUERIES, ids=LATE) as traffic,
        ):
            # what is asked while it takes partitions over may all be late, and then nothing is learned from it
            answers.until("answers by models", lambda records: {*learned} <= answered_late(records))
            until("queries", lambda: traffic.asked >= QUERIES)
            traffic.finish(lambda: without_prediction(client, catalogue.prefix))
        after = judge(client, catalogue.prefix, APPLICATIONS)
        end(router)
    assert all(after.applied[name] > before.applied[name] for name in learned), (before.applied, after.applied)
    return replace(
        after,
        lost=before.lost | after.lost,
        unaudited=before.unaudited | after.unaudited,
        double_counted=max(before.double_counted, after.double_counted),
        uncounted=max(before.uncounted, after.uncounted),
        rows_differing={**after.rows_differing, **before.rows_differing},
        parted=[*before.parted, *after.parted],
    )


def answered_late(records: Sequence[Record]) -> set[str]:
    """Applications of which a query of this end of a case was answered by a model."""
    answers = (one.content for one in records if LATE.encode() in (one.value or b""))
    return {answer["application"] for answer in answers if not answer.get("default")}


def end(*programs: Program) -> None:
    """End programs in order."""
    for program in programs:
        program.signal(signal.SIGTERM)
    for program in programs:
        assert program.ended() == 0, program.log[-4000:]


def without_prediction(client: AnyClient, prefix: str) -> set[tuple[int, int]]:
    """Queries that have no prediction of their own and need none."""
    return elsewhere(client, prefix, client.read(f"{prefix}.queries"), client.read(f"{prefix}.predictions"))
