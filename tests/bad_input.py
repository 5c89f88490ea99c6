"""Records that are wrong: what is no valid query or feedback, and Hypothesis strategies of anything between."""

import math
from pathlib import Path
from typing import Any

import msgspec
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from clipper_stream.models.row_spec import LISTED, NUMERIC
from clipper_topics.codec import CONTENT_TYPE, FRAME_VERSION

Fields = list[tuple[dict[str, Any], str]]
INVALID_QUERIES: Fields = [
    ({}, "neither input nor inputs"),
    ({"input": 1, "inputs": [1]}, "both input"),
    ({"inputs": []}, "inputs is empty"),
    ({"inputs": [1] * 10_001}, "10001 rows"),
    ({"input": 1, "deadline_ms": 0}, "deadline_ms is 0:"),
    ({"input": 1, "deadline_ms": 0.5}, "deadline_ms is 0.5"),
    ({"input": 1, "deadline_ms": -5}, "deadline_ms is -5"),
    ({"input": 1, "models": []}, "models is empty"),
    ({"input": 1, "query_id": ""}, "query_id has 0 characters"),
    ({"input": 1, "query_id": "x" * 257}, "query_id has 257 characters"),
    ({"input": 1, "query_id": "3@41"}, "query_id '3@41'"),
    ({"input": 1, "context": ""}, "context has 0 characters"),
    ({"input": 1, "context": "x" * 257}, "context has 257 characters"),
    ({"input": 1, "features": []}, "0 features"),
    ({"input": 1, "features": [0.0] * 17}, "17 features"),
    ({"input": 1, "features": [1.0, -1.1e6]}, "the feature -1.1e"),
]
"""What makes a query of an application no valid one, and what its refusal names: the codecs, the check and the schema
refuse all of it (`unit/topics`, `contract`), so a door that queries come in by needs one row to show that it asks."""
NO_NUMBERS: Fields = [
    ({"input": 1, "deadline_ms": math.nan}, "deadline_ms is nan"),
    ({"input": 1, "deadline_ms": math.inf}, "deadline_ms is inf"),
    ({"input": 1, "features": [math.nan]}, "the feature nan"),
    ({"input": 1, "features": [1.0, math.inf]}, "the feature inf"),
]
"""The same of what only msgpack can write."""
VALID_QUERIES: list[dict[str, Any]] = [
    {"input": None},
    {"input": []},
    {"inputs": [None]},
    {"input": None, "inputs": [1]},
    {"inputs": [1] * 10_000},
    {"input": 1, "features": [-1e6] * 16},
    {"input": 1, "deadline_ms": 1, "models": ["svm"], "query_id": "x" * 256, "context": "é"},
]
INVALID_FEEDBACK: Fields = [
    ({}, "no truth"),
    ({"loss": None, "reward": None}, "no truth"),
    ({"label": 1, "loss": 0.5}, "label and loss"),
    ({"label": None, "loss": 0.5, "reward": 0.5}, "loss and reward"),
    ({"label": 1, "loss": 0.5, "reward": 0.5}, "label and loss and reward"),
    ({"loss": 1.5}, "loss"),
    ({"reward": -0.5}, "reward"),
    ({"query_id": "", "label": 1}, "query_id is empty"),
    ({"label": 1, "metrics": {"revenue": "3"}}, "metrics is"),
    ({"label": 1, "metrics": {"revenue": 1e13}}, "metrics is"),
]
"""The same of feedback about query `0-1`."""
VALID_FEEDBACK: list[dict[str, Any]] = [
    {"label": None}, {"label": [1, 2]}, {"loss": 0.0}, {"reward": 1.0}, {"label": None, "loss": 0.5}
]  # fmt: skip

# --- anything -------------------------------------------------------------------------------------------------------
GOLDEN = [path.read_bytes() for path in sorted((Path(__file__).with_name("contract") / "golden").iterdir())]
ODD = [b"[" * 9, b"NaN", b"\\ud800", b"1e999", b"\xcb\x7f\xf8"]

texts = st.one_of(st.text(max_size=8), st.sampled_from(["\0", "a b", "x" * 300, "0-1", "7-x", "sum:1"]))
numbers = st.one_of(
    st.integers(), st.floats(), st.sampled_from([10**400, -(10**4000), 2**63, 2**64, -1, 0, 1e308, math.nan])
)
values = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, texts),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(texts, inner, max_size=3)),
    max_leaves=12,
)
deep = st.builds(
    lambda levels, opening, closing: opening * levels + b"1" + closing * levels,
    st.integers(1, 4000),
    st.sampled_from([b"[", b'{"input":', b'{"a":[', b"\x91", b"\x81\xa1a"]),
    st.sampled_from([b"]", b"}", b"]}", b""]),
)


@st.composite
def mutated(draw):
    """Bytes of the contract with some of them replaced, cut, doubled or followed by others."""
    value = bytearray(draw(st.sampled_from(GOLDEN)))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(value)))
        value[at : at + draw(st.integers(0, 3))] = draw(st.binary(max_size=3) | st.sampled_from(ODD))
    return bytes(value[: draw(st.integers(0, len(value)))] if draw(st.booleans()) else value)


def written(contents):
    """Contents as JSON or msgpack, whichever can hold them."""

    def write(content, as_msgpack):
        try:
            return msgspec.msgpack.encode(content) if as_msgpack else msgspec.json.encode(content)
        except (OverflowError, TypeError):
            return msgspec.json.encode(content)

    return st.builds(write, contents, st.booleans())


def nearly(**fields):
    """A record with these fields, any of which may be missing or anything."""
    return st.fixed_dictionaries({}, optional={name: st.one_of(good, values) for name, good in fields.items()})


queries = nearly(
    application=st.just("app"), query_id=texts, context=texts, input=values, inputs=st.lists(values, max_size=4),
    deadline_ms=numbers, models=st.lists(texts, max_size=3),
)  # fmt: skip
feedback = nearly(query_id=texts, application=texts, context=texts, label=values, loss=numbers, reward=numbers)
dtypes = st.sampled_from([*NUMERIC, *LISTED])
parameters = st.sampled_from(["eta", "exploration", "half_life", "epsilon", "shares", "model", "weights"])
policies = nearly(
    name=st.sampled_from(["single", "split", "exp3", "exp4", "epsilon_greedy"]),
    parameters=st.dictionaries(parameters, values, max_size=3),
)
manifests = nearly(
    revision=numbers, policy=policies, input=nearly(dtype=dtypes, shape=st.lists(numbers, max_size=3)),
    objective_ms=numbers, seed=st.integers(), default_output=values, confidence_threshold=numbers, audit_ratio=numbers,
    models=st.lists(st.just("a:1")), parameters=values,
).map(lambda more: {"name": "app", "models": ["a:1"], "uri": "m:f"} | more)  # fmt: skip
contents = st.one_of(
    st.none(), st.binary(max_size=40), mutated(), deep, written(values), written(queries), written(feedback)
)
kinds = st.sampled_from([b"application/json", b"application/msgpack", b"APPLICATION/JSON; charset=x", b""])
names = st.one_of(st.just(CONTENT_TYPE), st.sampled_from(["Content-Type", "", "clipper-forwarded"]))
headers = st.lists(st.tuples(names, st.one_of(kinds, st.none(), st.binary(max_size=5))), max_size=3).map(tuple)
frames = st.one_of(contents, st.builds(lambda content: bytes([FRAME_VERSION]) + (content or b""), contents))
request_frames = st.builds(
    lambda *fields: bytes([FRAME_VERSION]) + msgspec.msgpack.encode(fields),
    st.binary(max_size=100),
    st.integers(0, 2**64 - 1),
    st.integers(-1, 3),
    dtypes | st.just("object"),
    st.lists(st.one_of(st.integers(-1, 3), st.sampled_from([2**40, 2**63])), max_size=70),
    st.binary(max_size=32),
    st.lists(st.integers(0, 3), max_size=3),
    st.binary(max_size=24),
)


def pool(strategy: st.SearchStrategy[Any], size: int) -> list[Any]:
    """About so many examples of a strategy, the same ones at each run."""
    found: list[Any] = []
    checks = list(HealthCheck)

    @settings(max_examples=size, derandomize=True, database=None, phases=[Phase.generate], suppress_health_check=checks)
    @given(strategy)
    def collect(example: Any) -> None:
        found.append(example)

    collect()
    return found
