"""A worker is let in, refused, or waits for a Kafka that is not there yet, and says so."""

import asyncio
import os
import signal

import pytest

from clipper_agents.kafka.startup_check import wait_for_access
from clipper_agents.observability.probes import ProcessHealth
from clipper_stream.client import AccessRefused, BrokerUnavailable
from clipper_topics.connection import KafkaConnection

KAFKA = KafkaConnection("nowhere:9092")


class Door:
    """Answers knocks with these errors, one each; None lets in."""

    def __init__(self, *errors):
        self._errors = list(errors)
        self.knocks = 0

    async def __call__(self, kafka):
        self.knocks += 1
        error = self._errors.pop(0) if self._errors else None
        if error is not None:
            raise error


def wait(door, **options):
    return asyncio.run(wait_for_access(KAFKA, ProcessHealth(), again_s=0.0, check=door, **options))


def test_who_is_let_in_does_not_wait(caplog):
    door = Door()
    assert wait(door)
    assert (door.knocks, caplog.text) == (1, "")


def test_a_kafka_that_is_not_there_yet_is_waited_for_and_said_at_intervals(caplog):
    door = Door(*[BrokerUnavailable("nobody")] * 5)
    assert wait(door, say_every_s=60.0)
    assert door.knocks == 6
    assert [record.getMessage() for record in caplog.records] == ["waiting for kafka since 0 s: nobody"]


def test_every_knock_in_vain_is_said_when_the_interval_has_passed(caplog):
    assert wait(Door(*[BrokerUnavailable("nobody")] * 3), say_every_s=0.0)
    assert len(caplog.records) == 3


def test_a_process_is_unready_while_nobody_answers_and_no_longer():
    health, said = ProcessHealth("the model is loading"), []

    async def knock(kafka):
        said.append(health.reasons())
        if len(said) < 3:
            raise BrokerUnavailable("nobody")

    assert asyncio.run(wait_for_access(KAFKA, health, again_s=0.0, check=knock))
    waiting = ["no broker answers", "the model is loading"]
    assert said == [["the model is loading"], waiting, waiting]
    assert health.reasons() == ["the model is loading"]


def test_a_refusal_ends_the_wait_at_once():
    door = Door(BrokerUnavailable("nobody"), AccessRefused("wrong password"))
    with pytest.raises(AccessRefused, match="wrong password"):
        wait(door)
    assert door.knocks == 2


def test_who_is_told_to_end_while_waiting_does_not_start():
    async def never(kafka):
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.Event().wait()

    before = signal.getsignal(signal.SIGTERM)
    assert not wait(never)
    assert signal.getsignal(signal.SIGTERM) is before
