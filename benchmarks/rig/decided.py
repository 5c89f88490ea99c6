"""What the predictions say about their decisions, beyond what a load generator reads."""

from collections.abc import Callable
from typing import Any

import msgspec
from rig.systems import Place

from clipper_stream.client.kafka import assigned_consumer

QUIET_MS = 1_000


class Decided(msgspec.Struct):
    """The fields of a prediction that are counted."""

    query_id: str
    application: str
    output: Any = None
    default: bool = False
    models: list[Any] = []
    missing: list[Any] = []


_decode = msgspec.json.Decoder(Decided).decode


async def decisions(place: Place, wanted: Callable[[Decided], bool]) -> list[Decided]:
    """All predictions on the topic that are wanted, read from the beginning until it is quiet."""
    topic = place.catalogue.predictions
    consumer = await assigned_consumer(place.connection, topic, at_end=False, isolation_level="read_committed")
    found: list[Decided] = []
    try:
        while fetched := await consumer.getmany(timeout_ms=QUIET_MS):
            read = (_decode(record.value) for records in fetched.values() for record in records)
            found += [one for one in read if wanted(one)]
    finally:
        await consumer.stop()
    return found


def shares(found: list[Decided], right: Any) -> dict[str, float | None]:
    """Share of model answers that were missing, of defaults, and of right outputs, over all the predictions."""
    asked = sum(len(one.models) + len(one.missing) for one in found)
    return {
        "missing_ratio": round(sum(len(one.missing) for one in found) / asked, 5) if asked else None,
        "accuracy": round(sum(one.output == right for one in found) / len(found), 5) if found else None,
    }
