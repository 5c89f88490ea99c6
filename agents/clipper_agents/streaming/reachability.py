"""Whether Kafka answers, for the operator: one line when it falls silent, one when it is back, and a metric.

The same question asks for the ids of topics: a process ends when one was deleted and created again.

Rules of this file:
- One broker that answers is enough: what a single one does is the cluster's business, and the clients'.
- The question goes over a connection of its own: behind a produce request that waits for copies it would wait as well.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from aiokafka.client import ConnectionGroup
from aiokafka.errors import KafkaError, TopicAuthorizationFailedError

from clipper_agents.kafka.clients import make_client, translated_errors
from clipper_agents.kafka.errors import TopicMadeAnew
from clipper_agents.kafka.retry import retry
from clipper_agents.kafka.topic_ids import TopicIds, TopicIdsRequest, find_topics, topics_of
from clipper_stream.client.kafka import stop
from clipper_topics.connection import KafkaConnection

logger = logging.getLogger(__name__)

ASK_EVERY_S = 1.0
ANSWER_WITHIN_S = 2.0
SILENT_AFTER_S = 5.0
"""A broker that elects, collects garbage or is busy pauses for a moment; a consumer's session lasts twice as long."""


async def run_until_one_ends(*works: Awaitable[Any]) -> None:
    """Run these until one ends, then end all; a task group would swallow a cancellation from outside meanwhile."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def watch_kafka(kafka: KafkaConnection, reachable: Callable[[bool], None], topics: Iterable[str]) -> None:
    """Do as `watch_brokers`, with a client of its own, for topics that are known from when they are there.

    Says nothing until a broker has answered for the first time.
    """
    client, ids = make_client(kafka), TopicIds()
    try:
        await retry("start of a client", client.bootstrap)
        learning = asyncio.ensure_future(ids.learn(client, topics))
        try:
            await watch_brokers(client, reachable, ids)
        finally:
            learning.cancel()
    finally:
        await stop(client)


async def watch_brokers(client: Any, reachable: Callable[[bool], None], topics: TopicIds) -> None:
    """Ask the brokers whether they answer, until cancelled, and say after each attempt whether Kafka is `reachable`.

    The client is aiokafka's, and somebody else starts and stops it. Errors about topics as of `TopicIds.note`.
    """
    answered_s, is_silent = time.monotonic(), False
    while True:
        answered = await _some_answer(client, [broker.nodeId for broker in client.cluster.brokers()], topics)
        silent_s = time.monotonic() - answered_s
        if answered:
            if is_silent:
                logger.warning("a broker answers again seconds=%.0f", silent_s)
            answered_s, is_silent = answered_s + silent_s, False
        elif not is_silent and silent_s >= SILENT_AFTER_S:
            logger.warning("no broker answers seconds=%.0f: records wait in this process, nothing is lost", silent_s)
            is_silent = True
        reachable(not is_silent)
        await asyncio.sleep(ASK_EVERY_S)


async def watch_topics(kafka: KafkaConnection, topics: Iterable[str], answers: Callable[[bool], None]) -> None:
    """Ask which of the topics there are, and say each time whether Kafka answers; raise when there are others."""
    client, wanted, first = make_client(kafka), list(topics), None
    try:
        async with translated_errors(kafka):
            await client.bootstrap()
        while True:
            try:
                async with asyncio.timeout(ANSWER_WITHIN_S):
                    found = await find_topics(client, wanted)
            except (KafkaError, OSError, TimeoutError) as error:
                answers(isinstance(error, TopicAuthorizationFailedError))
            else:
                answers(True)  # noqa: FBT003 (the answer to whether it does)
                if first not in (None, found):
                    raise TopicMadeAnew("topics were created or deleted")
                first = found
            await asyncio.sleep(ASK_EVERY_S)
    finally:
        await stop(client)


async def _some_answer(client: Any, nodes: Iterable[int], topics: TopicIds) -> bool:
    questions = [asyncio.ensure_future(_answers(client, node, topics)) for node in nodes]
    try:
        for question in asyncio.as_completed(questions):
            if await question:
                return True
    finally:
        for question in questions:
            question.cancel()
    return False


async def _answers(client: Any, node: int, topics: TopicIds) -> bool:
    try:
        async with asyncio.timeout(ANSWER_WITHIN_S):
            response = await client.send(node, TopicIdsRequest(topics.known), group=ConnectionGroup.COORDINATION)
    except (KafkaError, OSError, TimeoutError):
        return False
    topics.note(topics_of(response))
    return True
