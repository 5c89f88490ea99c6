"""What an application asks: one record on the queries topic.

Rules of this file:
- Types decide whether the bytes are a query at all; a record that is none becomes a dead letter.
- `check_query` finds what is wrong with a query that could be read: its application is answered, with the reason.
"""

import math
from typing import Annotated, Any

import msgspec

from clipper_topics.query_ids import OFFSET_ID_PATTERN, is_offset_id, offset_id, partition_of

ID_CHARACTERS = 256
"""Longest query id and context: both become keys in the routers' state."""

MOST_ROWS = 10_000
"""Of one query: each router process decides about a query at one go, and 10 000 rows take it a tenth of a second."""

MOST_FEATURES = 16
"""Of one query: a row of the routers' state has half as many numbers a model as the square of this."""
LARGEST_FEATURE = 1e6
"""In size: sums of products of millions of them stay exact enough."""

_Identifier = Annotated[str, msgspec.Meta(extra_json_schema={"minLength": 1, "maxLength": ID_CHARACTERS})]
_OwnId = Annotated[_Identifier, msgspec.Meta(extra_json_schema={"not": {"pattern": OFFSET_ID_PATTERN}})]
_Milliseconds = Annotated[int | float, msgspec.Meta(extra_json_schema={"minimum": 1})]
_Feature = Annotated[float, msgspec.Meta(extra_json_schema={"minimum": -LARGEST_FEATURE, "maximum": LARGEST_FEATURE})]


class Query(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One question to an application's models, of one row (`input`) or of several (`inputs`)."""

    application: str
    """Name of a registered application."""
    query_id: _OwnId | None = None
    """Identifies the query among those of its application and partition; absent: `<partition>@<offset>` of this record,
    a form that no query may choose."""
    context: _Identifier | None = None
    """Whose weights to use (a user, a device); the record's key must then be the context."""
    input: Any = msgspec.UNSET
    """One row: numbers, nested numbers, text, or `{"base64": ...}`; the application's input spec says which."""
    inputs: Annotated[list[Any], msgspec.Meta(extra_json_schema={"minItems": 1, "maxItems": MOST_ROWS})] | None = None
    """Several rows, at most 10 000, answered together by one decision. Exactly one of `input` and `inputs` is given;
    beside the other, null counts as absent."""
    deadline_ms: _Milliseconds | None = None
    """Answer within so many milliseconds of the record's timestamp; at most the application's objective counts."""
    models: Annotated[list[str], msgspec.Meta(extra_json_schema={"minItems": 1})] | None = None
    """Ask exactly these models (`name` or `name:version`) instead of those that the policy would choose."""
    features: (
        Annotated[list[_Feature], msgspec.Meta(extra_json_schema={"minItems": 1, "maxItems": MOST_FEATURES})] | None
    ) = None
    """Numbers that a policy such as `lin_ucb` chooses by, at most 16, best about as large as 1."""


class RawQuery(Query, kw_only=True, omit_defaults=True):
    """A query whose rows are not decoded: a megabyte may hold a million objects, and its application may want none."""

    input: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    inputs: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET  # type: ignore[assignment]


def check_query(query: Query) -> str | None:
    """What is wrong with the query by itself and what to do about it; None when it can be used.

    >>> check_query(Query(application="digits", input=[0.5]))
    >>> check_query(Query(application="digits"))
    'the query has neither input nor inputs: give one of them'
    """
    return _check_rows(query) or _check_options(query)


def check_answered(query_id: str, context: str | None, partitions: int) -> str | None:
    """What shows that no query has this id and context; None when one may. An id does not say when it was given.

    >>> check_answered("3@41", None, 4), check_answered("order 7", "user-42", 4)
    (None, None)
    >>> check_answered("4@41", None, 4)
    "query_id '4@41' names partition 4, there are 4, from 0 on: is the id whole?"
    """
    if wrong := _check_identifier("context", context):
        return wrong
    if len(query_id) > ID_CHARACTERS:
        return f"query_id has {len(query_id)} characters, none has more than {ID_CHARACTERS}: is the id whole?"
    partition = partition_of(query_id)
    if is_offset_id(query_id):
        partition, offset = map(int, query_id.split("@"))
        if offset >= 2**63 or offset_id(partition, offset) != query_id:
            return f"query_id {query_id!r} is not as routers write ids (3@41): is the id whole?"
    if partition is not None and partition >= partitions:
        return f"query_id {query_id!r} names partition {partition}, there are {partitions}, from 0 on: is the id whole?"
    return None


def _check_rows(query: Query) -> str | None:
    if query.inputs is None:
        return "the query has neither input nor inputs: give one of them" if query.input is msgspec.UNSET else None
    if query.input is not msgspec.UNSET and query.input is not None:
        return "the query has both input (one row) and inputs (several rows): leave one of them out"
    if not query.inputs:
        return "inputs is empty: give at least one row"
    if len(query.inputs) > MOST_ROWS:
        return f"inputs has {len(query.inputs)} rows: give at most {MOST_ROWS}, and the others in further queries"
    return None


def _check_options(query: Query) -> str | None:
    if query.deadline_ms is not None and not 1 <= query.deadline_ms < math.inf:
        return f"deadline_ms is {query.deadline_ms}: give at least 1, or leave it out for the application's objective"
    if query.models is not None and not query.models:
        return "models is empty: name at least one model, or leave it out for the policy to choose"
    if query.features is not None and (wrong := _check_features(query.features)):
        return wrong
    return _check_query_id(query.query_id) or _check_identifier("context", query.context)


def _check_features(features: list[float]) -> str | None:
    if not 1 <= len(features) <= MOST_FEATURES:
        return f"there are {len(features)} features: give 1 to {MOST_FEATURES}, or leave them out"
    for value in features:
        if not (math.isfinite(value) and abs(value) <= LARGEST_FEATURE):
            return f"the feature {value:g} is too large: give numbers of at most {LARGEST_FEATURE:g} in size"
    return None


def _check_query_id(query_id: str | None) -> str | None:
    if query_id is not None and is_offset_id(query_id):
        return f"query_id {query_id!r} has the form of ids that routers give: choose another id, or leave it out"
    return _check_identifier("query_id", query_id)


def _check_identifier(name: str, value: str | None) -> str | None:
    if value is None or 1 <= len(value) <= ID_CHARACTERS:
        return None
    return f"{name} has {len(value)} characters: use 1 to {ID_CHARACTERS}, or leave it out"
