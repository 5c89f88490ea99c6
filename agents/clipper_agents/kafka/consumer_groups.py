"""Consumer groups of hosts: whether they have read everything, and how they end.

aiokafka neither makes a static member leave (KIP-345) nor deletes a group, so the requests for that are here. Without
the first, a host that has ended keeps its partition for the session timeout, and its group for as long. Errors are
those of `clients.translated_errors`.
"""

import contextlib
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from typing import Any

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import GroupIdNotFound, NonEmptyGroup, UnknownMemberIdError, for_code
from aiokafka.protocol.admin import DeleteGroupsRequest, DescribeGroupsRequest
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import Array, Int16, Int32, Schema, String

from clipper_agents.kafka.clients import administration, unreachable
from clipper_agents.kafka.reader import Range, open_reader
from clipper_agents.kafka.retry import TIMEOUT_S, retry
from clipper_agents.kafka.topics import existing_topics
from clipper_topics.connection import KafkaConnection

EMPTY_WITHIN_S = 15.0
"""A member that died is in its group for the session timeout of 10 s, unless it is made to leave."""
UUID_LENGTH = 36
_TEXT = String("utf-8")
_MEMBER = ("member_id", _TEXT), ("group_instance_id", _TEXT)


class _LeaveResponse(Response):  # type: ignore[misc]
    API_KEY = 13  # pyright: ignore[reportIncompatibleMethodOverride, reportAssignmentType]
    API_VERSION = 3  # pyright: ignore[reportIncompatibleMethodOverride, reportAssignmentType]
    SCHEMA = Schema(
        ("throttle_time_ms", Int32), ("error_code", Int16), ("members", Array(*_MEMBER, ("error_code", Int16)))
    )


class _LeaveStruct(RequestStruct):  # type: ignore[misc]
    API_KEY = 13
    API_VERSION = 3
    RESPONSE_TYPE = _LeaveResponse
    SCHEMA = Schema(("group_id", _TEXT), ("members", Array(*_MEMBER)))


class LeaveByInstance(Request[_LeaveStruct]):  # type: ignore[misc]
    """Members leave a group by their instance names: version 3 of LeaveGroup (KIP-345)."""

    API_KEY = 13

    def __init__(self, group: str, instances: Iterable[str]) -> None:
        self._group, self._instances = group, list(instances)

    def build(self, request_struct_class: type[_LeaveStruct]) -> _LeaveStruct:
        return request_struct_class(self._group, [("", instance) for instance in self._instances])


async def remove_members(connection: KafkaConnection, group: str, instances: Iterable[str]) -> None:
    """Have static members leave their group now, so that nothing waits for their session timeout.

    A group that does not exist is fine, and so is the name of a process that is no member.
    """
    request = LeaveByInstance(group, instances)
    async with administration(connection) as admin:
        response = await _of_group(admin, group, request)
    codes = [response.error_code, *(code for *_, code in response.members)]
    for error in map(for_code, filter(None, codes)):
        if error not in {UnknownMemberIdError, GroupIdNotFound}:
            raise await unreachable(connection, error(group))


def instance_of(member_id: str) -> str:
    """The instance name in a member's id: a static member's is the name, a hyphen and a UUID (KIP-345).

    >>> instance_of("router-0-7f0d3c4e-58f5-4d3f-9d8e-2f4b8a3d6c11")
    'router-0'
    """
    return member_id[: -UUID_LENGTH - 1] or member_id


async def member_instances(send: Callable[[Any], Awaitable[Any]], group: str) -> set[str]:
    """Return the instance names of a group's members, by `send` to its coordinator; none where it is not that."""
    response = await send(DescribeGroupsRequest([group]))
    return {instance_of(member[0]) for _, _, _, _, _, members, *_ in response.groups for member in members}


async def members_of(connection: KafkaConnection, group: str) -> set[str]:
    """Return the instance names of a group's members; none of a group that does not exist."""
    async with administration(connection) as admin:
        return await member_instances(partial(_of_group, admin, group), group)


async def delete_group(connection: KafkaConnection, group: str, empty_within_s: float = EMPTY_WITHIN_S) -> bool:
    """Delete a group with its offsets, as soon as it is empty; one that does not exist is fine.

    False when it has members after so many seconds: then somebody else uses it, and it stays.
    """

    async def delete() -> bool:
        async with administration(connection) as admin:
            ((_, code),) = (await _of_group(admin, group, DeleteGroupsRequest([group]))).results
        if code == NonEmptyGroup.errno:
            raise NonEmptyGroup(group)
        if code not in (0, GroupIdNotFound.errno):
            raise await unreachable(connection, for_code(code)(group))
        return True

    with contextlib.suppress(NonEmptyGroup):
        return await retry("group", delete, empty_within_s, passes=lambda error: isinstance(error, NonEmptyGroup))
    return False


async def unread(connection: KafkaConnection, group: str, topic: str) -> int:
    """Return the number of records of a topic that a group has not committed; 0 when there is no such topic."""
    count = (await existing_topics(connection)).get(topic, 0)
    partitions = [TopicPartition(topic, number) for number in range(count)]
    async with administration(connection) as admin, open_reader(connection) as reader:
        _, committed = await describe_group(admin, group, partitions)
        return sum(lag_of(committed, await reader.ranges(partitions)).values())


async def describe_group(
    admin: AIOKafkaAdminClient, group: str, partitions: list[TopicPartition], within_s: float = TIMEOUT_S
) -> tuple[Mapping[str, Any], dict[TopicPartition, int]]:
    """Return what a group's coordinator says of it, and its committed offsets of these partitions."""

    async def ask() -> tuple[Mapping[str, Any], dict[TopicPartition, int]]:
        node = await admin.find_coordinator(group)
        (response,) = await admin.describe_consumer_groups([group], node)
        found = await admin.list_consumer_group_offsets(group, node, partitions) if partitions else {}
        return response.to_object()["groups"][0], {tp: one.offset for tp, one in found.items()}

    return await retry("group", ask, within_s)


def lag_of(committed: Mapping[TopicPartition, int], there: Mapping[TopicPartition, Range]) -> dict[TopicPartition, int]:
    """Return the records of each partition that are not committed; without a commit, all that are there.

    >>> lag_of({TopicPartition("a", 0): 7}, {TopicPartition("a", 0): Range(5, 9), TopicPartition("a", 1): Range(5, 9)})
    {TopicPartition(topic='a', partition=0): 2, TopicPartition(topic='a', partition=1): 4}
    """
    return {tp: max(0, end - max(committed.get(tp, -1), first)) for tp, (first, end) in there.items()}


async def _of_group(admin: AIOKafkaAdminClient, group: str, request: Any) -> Any:
    node: int = await retry("coordinator of a group", lambda: admin.find_coordinator(group), TIMEOUT_S)
    return await admin._send_request(request, node)
