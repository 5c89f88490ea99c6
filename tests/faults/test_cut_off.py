"""A router that is cut off from the broker, one way or both, while another one takes its partitions."""

import time

import pytest
from e2e.programs import until
from faults.cut_off import broker_with_a_door
from faults.deployment import Deployment
from faults.routers import PARTITIONS, Routers
from faults.verdict import STOPS_WITHIN_MS
from kafka_fixture import temporary_topics

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]

WAYS = {"both ways": ("to_broker", "from_broker"), "to the broker": ("to_broker",), "from the broker": ("from_broker",)}
BEYOND_S = 40.0
"""Four sessions, and longer than a request may take."""


@pytest.mark.parametrize(
    "ways", [pytest.param(way, marks=pytest.mark.short if way == "both ways" else ()) for way in WAYS]
)
def test_a_router_that_was_cut_off_answers_nothing_that_another_has_answered(ways, tmp_path, fault_report, short):
    """It went on to decide about what it had fetched, and wrote that when it was back: thousands of second answers."""
    with broker_with_a_door() as (kafka, through_the_door, door), temporary_topics(kafka, PARTITIONS) as catalogue:
        deployment = Deployment.on(kafka, catalogue, tmp_path)
        with deployment.worker("host", "slow-sum:1") as host, Routers(deployment, fault_report) as routers:
            host.ready()
            first = routers.join("router-0")
            far = [routers.join("router-1", "far", KAFKA_BOOTSTRAP_SERVERS=through_the_door.bootstrap)]
            routers.settled("router-0", "router-1")
            routers.faults_s.clear()
            for _ in range(1 if short else 3):
                routers.fault()
                cut_ms = 1e3 * time.time()
                for way in WAYS[ways]:
                    getattr(door, way).clear()
                routers.stood_still.append((cut_ms, 1e3 * time.time() + STOPS_WITHIN_MS))
                routers.settled("router-0")
                if not short:
                    until("it was away for long", lambda s=cut_ms: time.time() - s / 1e3 > BEYOND_S)
                routers.fault()
                door.mend()
                until("it is back, or has ended", lambda z=far[-1]: "router-1" in routers.owned() or z.code is not None)
                if far[-1].code is not None:  # as its supervisor would
                    far.append(routers.join("router-1", "far", KAFKA_BOOTSTRAP_SERVERS=through_the_door.bootstrap))
                routers.settled("router-0", "router-1")
            verdict = routers.judged(first, far[-1])
            note = f"{len(far) - 1} restarts, {verdict.repeated} repeated"
            routers.conclude(f"a router cut off {ways}", verdict, note=note)
