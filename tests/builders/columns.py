"""Columns of decisions: of plain arrays, or made up by Hypothesis or by a seed."""

import json
from dataclasses import replace

import hypothesis.strategies as st
import numpy as np

from clipper_stream.evaluation.log.columns import ARRAYS, UNKNOWN, VOCABULARIES, DecisionColumns

MODELS = ("a:1", "b:1", "c:2")


def logged(
    propensity, loss, *, models=None, served=None, served_propensity=None, contexts=(None,), policies=("logged",),
    outputs=None, labels=None, **columns,
) -> DecisionColumns:  # fmt: skip
    """Decisions about which a model's loss is known wherever it is a number, (n, M); `columns` are any other arrays.

    What is left out: models `m0:1` and so on; served is the first that was asked, with that probability; all that were
    asked are scored; decided a millisecond after another in partition 0, with feedback in the same millisecond.
    """
    asked = np.asarray(propensity, float)
    rows, count = asked.shape
    number: dict[str, int] = {}

    def code(value):
        return UNKNOWN if value is None else number.setdefault(json.dumps(value), len(number))

    label = np.full(rows, code("unsaid")) if labels is None else [code(value) for value in labels]
    output = np.full((rows, count), UNKNOWN) if outputs is None else np.array([[*map(code, row)] for row in outputs])
    chosen = np.eye(count, dtype=bool)[asked.argmax(axis=1)] if served is None else np.asarray(served, bool)
    alone = asked.max(axis=1, where=chosen, initial=0.0) if served_propensity is None else served_propensity
    given = {"at_ms": np.arange(rows), **columns}
    place = dict.fromkeys(("offset", "query_offset", "feedback_offset"), np.arange(rows))
    table = DecisionColumns.empty([f"m{each}:1" for each in range(count)] if models is None else models, rows)
    filled = {
        "propensity": asked, "loss": loss, "served": chosen, "served_propensity": np.broadcast_to(alone, (rows,)),
        "answered": (asked > 0.0) & ((output != UNKNOWN) if outputs is not None else True), **place,
        "feedback_at_ms": given["at_ms"], "output": output, "label": label, **given,
    }  # fmt: skip
    configs = filled.pop("configs", {})
    typed = {name: np.asarray(array).astype(getattr(table, name).dtype) for name, array in filled.items()}
    words = dict(contexts=tuple(contexts), policies=tuple(policies), values=tuple(number))
    return replace(table, configs=configs, **words, **typed)


@st.composite
def some_columns(draw, most=12):
    """Columns that keep the rules of `columns`, of up to so many decisions."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    models = tuple(draw(st.lists(st.sampled_from(MODELS), unique=True, max_size=3)))
    words = st.lists(st.text(max_size=3), unique=True, min_size=1, max_size=3)
    contexts = draw(st.sampled_from([(None,), ("u", None), ("u", "v"), ()]))
    return made_up(
        rng, draw(st.integers(0, most)) if contexts else 0, models, contexts, tuple(draw(words)), tuple(draw(words))
    )


def made_up(
    rng, n, models=MODELS, contexts=(None,), policies=("exp3", "named"), values=("0", "1", '"x"'), partition=None
):
    """Columns of n decisions in which anything may be unknown."""
    m = len(models)
    asked = rng.random((n, m)) < 0.6
    answered = asked & (rng.random((n, m)) < 0.8)
    told = rng.random(n) < 0.7
    served = asked & (rng.random((n, m)) < 0.5)
    label = np.where(told & (rng.random(n) < 0.7), rng.integers(0, len(values), n), -1)
    scored = np.where((label >= 0)[:, None] & answered, answered, served) & told[:, None] & (rng.random((n, m)) < 0.9)
    return DecisionColumns(
        models=models,
        contexts=contexts,
        policies=policies,
        values=values,
        partition=(rng.integers(0, 3, n) if partition is None else np.full(n, partition)).astype(np.int32),
        offset=np.cumsum(rng.integers(1, 5, n)).astype(np.int64),
        query_offset=rng.integers(-1, 2**40, n),
        at_ms=rng.integers(-1, 2**50, n),
        context=rng.integers(0, max(1, len(contexts)), n).astype(np.int32),
        policy=rng.integers(-1, len(policies), n).astype(np.int32),
        revision=rng.integers(-1, 9, n).astype(np.int32),
        propensity=np.where(asked, rng.random((n, m)) * 0.9 + 0.1, 0.0),
        served=served,
        served_propensity=np.where(rng.random(n) < 0.9, rng.random(n) * 0.9 + 0.1, np.nan),
        answered=answered,
        latency_ms=np.where(answered, rng.random((n, m)) * 50, np.nan),
        output=np.where(answered, rng.integers(0, len(values), (n, m)), -1).astype(np.int32),
        answer=rng.integers(-1, len(values), n).astype(np.int32),
        confidence=rng.random(n),
        default=rng.random(n) < 0.1,
        feedback_offset=np.where(told, rng.permutation(n) * 3, -1),
        feedback_at_ms=np.where(told, rng.integers(0, 2**40, n), -1),
        label=label.astype(np.int32),
        loss=np.where(scored, rng.choice([0.0, 1.0, 0.1, 1 / 3], (n, m)), np.nan),
        answer_loss=np.where(told, rng.random(n), np.nan),
        several_rows=rng.random(n) < 0.1,
        features=_features(rng, n),
    )


def _features(rng, n):
    """Up to three numbers a query; a column that no query reaches is none."""
    lengths = rng.integers(0, 4, n) * rng.integers(0, 2)
    width = int(lengths.max(initial=0))
    return np.where(np.arange(width) < lengths[:, None], rng.random((n, width)), np.nan)


def in_words(columns):
    """Every array by its name, with words instead of their numbers, and those that are unknown as None."""
    found = {}
    for name, words in {"context": "contexts", "policy": "policies", "answer": "values", "label": "values"}.items():
        known = getattr(columns, words)
        found[name] = [None if code < 0 else known[code] for code in getattr(columns, name).tolist()]
    found["output"] = [[None if code < 0 else columns.values[code] for code in row] for row in columns.output.tolist()]
    for name in DecisionColumns.__dataclass_fields__:
        if name not in found and name not in ("contexts", "policies", "values", "configs"):
            value = getattr(columns, name)
            found[name] = value if isinstance(value, tuple) else (value.dtype, value.shape, value.tobytes())
    return found


def concatenated(parts):
    """All decisions of the parts, in their order, with the models of all of them."""
    given = [part for part in parts if len(part)] or [DecisionColumns.empty()]
    models = tuple(dict.fromkeys(model for part in given for model in part.models))
    wide = [part.of_models(models) for part in given]
    columns = {name: np.concatenate([getattr(part, name) for part in wide]) for name in ARRAYS}
    width = max(part.features.shape[1] for part in wide)
    columns["features"] = np.concatenate(
        [np.pad(part.features, ((0, 0), (0, width - part.features.shape[1])), constant_values=np.nan) for part in wide]
    )
    for vocabulary, counted in VOCABULARIES.items():
        words = list(dict.fromkeys(word for part in wide for word in getattr(part, vocabulary)))
        columns[vocabulary] = tuple(words)
        for name in counted:
            codes = [
                np.array([*map(words.index, getattr(part, vocabulary)), UNKNOWN], np.int32)[getattr(part, name)]
                for part in wide
            ]
            columns[name] = np.concatenate(codes)
    return DecisionColumns(models=models, **columns)
