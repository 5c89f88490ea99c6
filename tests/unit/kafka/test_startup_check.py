import asyncio
import os
import signal

import pytest

from clipper_agents.kafka import retry, startup_check
from clipper_agents.kafka.startup_check import wait_for_access
from clipper_agents.observability.probes import ProcessHealth
from clipper_stream.client import AccessRefused, BrokerUnavailable
from clipper_topics.connection import KafkaConnection

LOADING, NOBODY = "the model is loading", BrokerUnavailable("nobody")


def knocked(*errors):
    """Knock at a door that answers with these errors, one each, and then lets in; what probes were told at each."""
    health, left, told = ProcessHealth(LOADING), list(errors), []

    async def check(kafka):
        told.append(health.reasons())
        if left:
            raise left.pop(0)

    assert asyncio.run(wait_for_access(KafkaConnection("nowhere:9092"), health, check))
    assert health.reasons() == [LOADING]
    return told


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(startup_check, "RESTART_WAIT_S", 0.0)


@pytest.mark.parametrize(("knocks", "say_every_s", "lines"), [(0, 60.0, 0), (5, 60.0, 1), (3, 0.0, 3)])
def test_a_kafka_that_is_not_there_yet_is_waited_for_and_said_at_intervals(
    caplog, monkeypatch, knocks, say_every_s, lines
):
    monkeypatch.setattr(retry, "SAY_EVERY_S", say_every_s)
    told = knocked(*[NOBODY] * knocks)
    assert told == [[LOADING], *[["no broker answers", LOADING]] * knocks], "unready while nobody answers"
    assert caplog.messages == ["waiting for kafka: nobody, trying again"] * lines


def test_a_refusal_ends_the_wait_at_once():
    with pytest.raises(AccessRefused, match="wrong password"):
        knocked(NOBODY, AccessRefused("wrong password"), AssertionError("knocked again"))


def test_who_is_told_to_end_while_waiting_does_not_start():
    async def never(kafka):
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.Event().wait()

    before = signal.getsignal(signal.SIGTERM)
    assert not asyncio.run(wait_for_access(KafkaConnection("nowhere:9092"), ProcessHealth(), never))
    assert signal.getsignal(signal.SIGTERM) is before
