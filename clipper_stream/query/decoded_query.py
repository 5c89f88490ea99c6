"""A query as it was read, before anything is decided."""

from typing import Any, NamedTuple


class DecodedQuery(NamedTuple):
    """One decoded query. A tuple, because one is made for every query, four times as cheaply as a frozen dataclass.

    Attributes:
        query_id: Its id.
        application: Name of its application.
        rows: Its rows as they were decoded; one for a query with `input`. The router empties the list once it has
            converted them: thousands of queries in flight would hold a Python object for each of their numbers.
        queried_at_s: Timestamp of its record, seconds since the epoch.
        partition: Of its record, and of everything about it.
        offset: Of its record.
        generation: Of the consumer when it was read; an acknowledgement of an older generation is void.
        packed: Whether it came with `inputs`, and wants `outputs`.
        context: Whose weights to use.
        deadline_s: Its own bound after `queried_at_s`, in seconds; None: the application's objective alone counts.
        models: Ask exactly these, when given.
        key: Of its record; the prediction has the same.
        content_type: Of its value; the prediction has the same.
        invalid: What is wrong with it, when it can be read but not answered.
        features: Numbers for a contextual policy to choose by; None: it gives none.
        shares_id: Whether another application's query with the same id was answered before.
    """

    query_id: str
    application: str
    rows: list[Any]
    queried_at_s: float
    partition: int = 0
    offset: int = 0
    generation: int = 0
    packed: bool = False
    context: str | None = None
    deadline_s: float | None = None
    models: list[str] | None = None
    key: bytes | None = None
    content_type: str = "application/json"
    invalid: str | None = None
    features: list[float] | None = None
    shares_id: bool = False
