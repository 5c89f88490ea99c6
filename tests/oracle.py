"""What the selection table has to hold, from the logs alone: written apart from the pipeline, and slower and simpler.

Rules of this file:
- Nothing of the pipeline is imported. The rules are those of the documentation (docs/explanation).
- A marker of a restored state counts when the control topic declares its digest, and sets all rows of its application.
- Of several predictions about a query of one application the first is the decision. Feedback is folded in log order;
  the first one about a decision that can be used counts. One without an application is about the first decision under
  its id. The query was asked within the horizon before the feedback, or a few seconds after it.
- A decision that says so has an audit: the first one in the log that names the query, and the offset of its record.
"""

import contextlib
import hashlib
import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Protocol

from known_fields import Told, known_fields
from plain_msgpack import unpack

FORWARDED = "clipper-forwarded"
EARLY_MS = 5_000
"""Feedback may come so long before its query, by the timestamps of the broker."""
RESTORE = "clipper-restore"
MOST_MODELS = 256
"""Of a row: beyond so many those that were scored longest ago are dropped."""

RowKey = tuple[str, str | None, int]
"""Application, context, partition; the empty application holds the partition's position, and with an application's name
as context which restore of it was the last."""


class Record(Protocol):
    """A record of a topic, as `e2e.any_client.Record`."""

    @property
    def partition(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def timestamp_ms(self) -> int: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Mapping[str, bytes]: ...
    @property
    def kind(self) -> str: ...
    @property
    def content(self) -> Any: ...


@dataclass
class Row:
    """Totals of one application and context in one partition."""

    offset: int = -1
    applied: int = 0
    totals: dict[str, list[float]] = field(default_factory=dict)
    """By model: count, loss, weighted loss, weighted count; then, if there are any, moments."""
    aging: tuple[int, float | None] = (0, None)
    """Milliseconds at which the totals are said, and the seconds after which they weigh half."""

    @property
    def bits(self) -> tuple[int, int, tuple[int, float | None], tuple[tuple[str, bytes], ...]]:
        """The row with every float as its eight bytes, models in the order in which they were first scored."""
        return (
            self.offset,
            self.applied,
            self.aging,
            tuple((m, struct.pack(f"<{len(sums)}d", *sums)) for m, sums in self.totals.items()),
        )


def table(changelog: Iterable[Record]) -> dict[RowKey, Row]:
    """The table that a changelog describes, as it is and as compaction leaves it: of the rows with one key the last."""
    rows: dict[RowKey, Row] = {}
    for record in changelog:
        application, context, partition = unpack(record.key or b"")
        if not application and (context or "").endswith("/config"):
            continue
        if record.value is None:
            rows.pop((application, context, partition), None)
            continue
        _, offset, applied, totals, *others = unpack(record.value)
        if not application and offset < 0:
            continue  # a position before the first feedback
        totals = {model: [*sums[:4], *chain(*sums[4:])] for model, *sums in totals}
        at_ms, half_life_s = others[3:5] or (0, None)
        rows[application, context, partition] = Row(offset, applied, totals, (at_ms, half_life_s))
    return rows


def positions(rows: Mapping[RowKey, Row]) -> dict[int, int]:
    """The last feedback offset that is in the rows, by partition."""
    return {
        partition: row.offset
        for (application, context, partition), row in rows.items()
        if not application and context is None
    }


def fold(
    predictions: Iterable[Record],
    feedback: Iterable[Record],
    applications: Mapping[str, Mapping[str, Any]],
    audits: Iterable[Record] = (),
    control: Iterable[Record] = (),
    changelog: Iterable[Record] = (),
    horizon_s: float = 3600.0,
) -> dict[RowKey, Row]:
    """The table that the logs lead to, positions included.

    Args:
        predictions: The predictions topic, by partition in log order.
        feedback: The feedback topic, by partition in log order.
        applications: Manifests by name, as they stand in a configuration.
        audits: The audits topic, by partition in log order.
        control: The control topic, in log order; needed where a state was restored.
        changelog: The table's, which says what contexts were forgotten; needed where some were.
        horizon_s: How long after its query a feedback counts, in seconds.
    """
    declared, horizon_ms = _declared(control), horizon_s * 1000
    decisions = _decisions(predictions, horizon_ms)
    said_besides = first_audits(audits)
    rows: dict[RowKey, Row] = {}
    counted: set[tuple[int, int]] = set()
    forgotten = _forgotten(changelog)
    for record in feedback:
        _forget(rows, forgotten, record)
        rows[("", None, record.partition)] = Row(record.offset)
        if RESTORE in record.headers:
            _restore(rows, record, declared.get(record.headers[RESTORE]))
            continue
        found = _readable(record)
        if found is None:
            continue
        known = _about(decisions, record, found, horizon_ms)
        if known is None:
            continue  # an orphan, or for another partition
        offset, decision = known
        about = record.partition, offset
        if about in counted or found.get("context") not in (None, decision.get("context")):
            continue
        name, context = decision["application"], decision.get("context")
        policy = decision.get("policy")
        if policy is None or policy["name"] == "named" or name not in applications:
            counted.add(about)
            continue
        try:
            besides = said_besides.get(_audit_about(record.partition, decision)) if decision.get("audited") else None
            losses = _losses(decision, besides or {}, found, applications[name].get("loss", "zero_one"))
        except (TypeError, ValueError):  # a label that is no number, or not one a row
            continue
        counted.add(about)
        keep = _keep(applications[name])
        features = decision.get("features", ()) if _looks_at_features(applications[name]) else ()
        row = rows.setdefault((name, context, record.partition), Row())
        row.offset, row.applied = record.offset, row.applied + 1
        _age(row, record.timestamp_ms, applications[name], bool(losses))
        _add(row.totals, losses, keep, features)
    _forget(rows, forgotten)
    return rows


def _forgotten(changelog: Iterable[Record]) -> set[tuple[int, int, int]]:
    """Partition, the first feedback offset that was folded without them, and before which offset they are forgotten."""
    found: set[tuple[int, int, int]] = set()
    for record in changelog:
        application, context, partition = unpack(record.key or b"")
        if not application and context is None:
            found |= {(partition, first, before) for first, before in [*unpack(record.value or b""), (), (), ()][6]}
    return found


def _forget(rows: dict[RowKey, Row], forgotten: set[tuple[int, int, int]], at: Record | None = None) -> None:
    """Drop the contexts that were forgotten before a feedback, or behind the last one."""
    for one in sorted(one for one in forgotten if at is None or (one[0] == at.partition and one[1] <= at.offset)):
        forgotten.remove(one)
        for name, context, partition in [*rows]:
            row = rows[name, context, partition]
            if name and context is not None and partition == one[0] and row.offset < one[2]:
                del rows[name, context, partition]


def _decisions(
    predictions: Iterable[Record], horizon_ms: float
) -> dict[tuple[int, str], list[tuple[int, Mapping[str, Any]]]]:
    """The decisions with their offsets by partition and query id: of an application and a time the first record."""
    decisions: dict[tuple[int, str], list[tuple[int, Mapping[str, Any]]]] = {}
    for record in predictions:
        under = decisions.setdefault((record.partition, record.content["query_id"]), [])
        if not any(_repeats(record.content, one, horizon_ms) for _, one in under):
            under.append((record.offset, record.content))
    return decisions


def _repeats(later: Mapping[str, Any], first: Mapping[str, Any], horizon_ms: float) -> bool:
    apart_ms = abs(later.get("queried_at_ms", 0) - first.get("queried_at_ms", 0))
    return bool(later["application"] == first["application"] and apart_ms <= horizon_ms + EARLY_MS)


def _about(
    decisions: Mapping[tuple[int, str], Sequence[tuple[int, Mapping[str, Any]]]],
    record: Record,
    found: Mapping[str, Any],
    horizon_ms: float,
) -> tuple[int, Mapping[str, Any]] | None:
    """The first decision of the application (any, when the feedback names none) whose query was asked in time."""
    for offset, one in decisions.get((record.partition, found["query_id"]), ()):
        after_ms = record.timestamp_ms - one.get("queried_at_ms", 0)
        if found.get("application") in (None, one["application"]) and -EARLY_MS <= after_ms <= horizon_ms:
            return offset, one
    return None


def _declared(control: Iterable[Record]) -> dict[bytes, Record]:
    """The first declaration of each restore that can be read, by id."""
    declared: dict[bytes, Record] = {}
    for one in control:
        if (one.key or b"").startswith(b"restore/") and one.value:
            with contextlib.suppress(ValueError):
                assert one.content
                declared.setdefault((one.key or b"").removeprefix(b"restore/"), one)
    return declared


def _restore(rows: dict[RowKey, Row], marker: Record, declared: Record | None) -> None:
    """The rows of the application in the marker's partition become its rows; how many feedbacks counted goes on."""
    said = {} if declared is None else declared.content
    value, partition = marker.value or b"", marker.partition
    if declared is None or said["digests"].get(str(partition)) != hashlib.sha256(value).hexdigest():
        return
    saved = unpack(value)
    name, note = saved["application"], ("", saved["application"], partition)
    if name != said["application"] or declared.offset <= rows.get(note, Row(applied=-1)).applied:
        return  # declared for another; or this one, or a later one, was here before
    if any(one["partition"] != partition for one in saved["rows"]):
        return
    for (application, _, number), row in rows.items():
        if (application, number) == (name, partition):
            row.offset, row.totals, row.aging = marker.offset, {}, (0, None)
    for one in saved["rows"]:
        row = rows.setdefault((name, one.get("context"), partition), Row())
        row.offset, row.aging = marker.offset, (one.get("at_ms", 0), one.get("half_life_s"))
        row.totals = {
            model: [count, loss, weighted_loss, weighted_count, *one.get("moments", {}).get(model, ())]
            for model, (count, loss, weighted_count, weighted_loss) in one["totals"].items()
        }
    rows[note] = Row(marker.offset, declared.offset)


AuditKey = tuple[int, int, str]
"""Partition, offset of the query's record, query id."""


def first_audits(audits: Iterable[Record]) -> dict[AuditKey, Mapping[str, Any]]:
    """The audit that counts, by the record of the query that it is about."""
    found: dict[AuditKey, Mapping[str, Any]] = {}
    for record in audits:
        found.setdefault(_audit_about(record.partition, record.content), record.content)
    return found


def unaudited(predictions: Iterable[Record], audits: Iterable[Record]) -> set[AuditKey]:
    """Decisions that say that an audit follows, where none does."""
    decisions: dict[tuple[int, str, str], AuditKey | None] = {}
    for record in predictions:
        about = _audit_about(record.partition, record.content) if record.content.get("audited") else None
        decisions.setdefault((record.partition, record.content["query_id"], record.content["application"]), about)
    return {about for about in decisions.values() if about is not None} - first_audits(audits).keys()


def _audit_about(partition: int, content: Mapping[str, Any]) -> AuditKey:
    return partition, content["query_offset"], content["query_id"]


def _readable(record: Record) -> dict[str, Any] | None:
    """What the record says, if it says what the page of the wire contract allows: anybody may write it."""
    try:
        found = known_fields(record, Told)
    except ValueError:
        return None
    if not isinstance(found, dict) or not all(isinstance(name, str) and _is_text(name) for name in found):
        return None
    given = {name for name in ("loss", "reward") if found.get(name) is not None}
    absent = {"loss", "reward"} - given | ({"label"} if given and found.get("label") is None else set())
    found = {name: value for name, value in found.items() if name not in absent}
    truths = [name for name in ("label", "loss", "reward") if name in found]
    optional = [found.get(name) for name in ("application", "context")]
    texts = all(one is None or (isinstance(one, str) and _is_text(one)) for one in optional)
    query_id = found.get("query_id")
    if len(truths) != 1 or not texts or not query_id or not isinstance(query_id, str) or not _is_text(query_id):
        return None
    unit = found.get("loss", found.get("reward", 0))
    number = isinstance(unit, int | float) and not isinstance(unit, bool) and 0 <= unit <= 1
    return found if number and _all_text(found.get("label")) else None


def _is_text(value: str) -> bool:
    return value.encode("utf-8", "ignore").decode() == value  # half a surrogate pair is no text


def _all_text(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(_all_text, value)) and all(map(_all_text, value.values()))
    return all(map(_all_text, value)) if isinstance(value, list) else not isinstance(value, str) or _is_text(value)


def _keep(application: Mapping[str, Any]) -> float:
    half_life = application.get("policy", {}).get("parameters", {}).get("half_life")
    return 1.0 if half_life is None else 0.5 ** (1.0 / half_life)


def _age(row: Row, at_ms: int, application: Mapping[str, Any], scored: bool) -> None:
    if not scored:
        return
    said_ms, before_s = row.aging
    if before_s is not None and at_ms > said_ms:
        keep = 0.5 ** ((at_ms - said_ms) / (1000.0 * before_s))
        for sums in row.totals.values():
            sums[:] = [value * keep for value in sums]
    half_life_s = application.get("policy", {}).get("parameters", {}).get("half_life_s")
    row.aging = (0, None) if half_life_s is None else (max(at_ms, said_ms), half_life_s)


def _looks_at_features(application: Mapping[str, Any]) -> bool:
    return application.get("policy", {}).get("name") == "lin_ucb"


def _add(
    totals: dict[str, list[float]], losses: Mapping[str, tuple[float, float]], keep: float, features: Sequence[float]
) -> None:
    if losses and keep != 1.0:
        for sums in totals.values():
            sums[:] = [value * keep for value in sums]
    in_order = len(totals) >= MOST_MODELS // 2
    for model, (loss, propensity) in losses.items():
        sums = totals.setdefault(model, [0.0, 0.0, 0.0, 0.0])
        if in_order:  # of the last score; in a smaller row of the first
            totals[model] = totals.pop(model)
        added = [1.0, loss, loss / propensity, 1.0 / propensity, *_moments(features, loss)]
        sums += [0.0] * (len(added) - len(sums))
        if features:
            added += [0.0] * (len(sums) - len(added))  # a sum of -0.0 becomes 0.0; without features it stays
        for index, value in enumerate(added):
            sums[index] += value
    for model in [*totals][:-MOST_MODELS]:
        del totals[model]


def _moments(features: Sequence[float], loss: float) -> list[float]:
    """Of x = (1, features), a column of the upper triangle of x x^T after the other, each followed by loss x."""
    if not features:
        return []
    x = [1.0, *map(float, features)]
    triangle = [[x[row] * x[column] for row in range(column + 1)] + [loss * x[column]] for column in range(len(x))]
    return [value for column in triangle for value in column]


def _losses(
    decision: Mapping[str, Any], audit: Mapping[str, Any], found: Mapping[str, Any], kind: str
) -> dict[str, tuple[float, float]]:
    """Loss and propensity of each model that the truth scores, as the table in docs/explanation says."""
    answered = {_ref(one): one for one in decision.get("models", ())}
    asked = {**answered, **{_ref(one): one for one in decision.get("missing", ())}}
    served = [ref for ref, one in asked.items() if one.get("served", True)]
    of_answer = decision["served_propensity"]
    missing = {served[0]: (1.0, of_answer)} if len(served) == 1 and served[0] not in answered else {}
    if "label" in found:
        for one in audit.get("models", ()):
            if _ref(one) not in asked:
                answered[_ref(one)] = one
        return _label_losses(kind, found["label"], answered) | missing
    given = found["loss"] if "loss" in found else 1.0 - found["reward"]
    if missing or decision.get("default"):
        return missing
    agreeing = [ref for ref in served if ref in answered and _said(answered[ref]) == _said(decision)]
    return dict.fromkeys(served if len(served) == 1 else agreeing, (given, of_answer))


def _label_losses(kind: str, label: Any, answered: Mapping[str, Mapping[str, Any]]) -> dict[str, tuple[float, float]]:
    """Whoever's output the label cannot be compared with has the loss 1, if it can be with somebody's."""
    losses: dict[str, float | None] = {}
    for ref, one in answered.items():
        try:
            losses[ref] = _loss(kind, label, _said(one))
        except (TypeError, ValueError):
            losses[ref] = None
    if losses and all(loss is None for loss in losses.values()):
        raise ValueError("no output to compare with")
    return {ref: (1.0 if loss is None else loss, answered[ref]["propensity"]) for ref, loss in losses.items()}


def _ref(one: Mapping[str, Any]) -> str:
    return f"{one['model']}:{one['version']}"


def _said(one: Mapping[str, Any]) -> Any:
    return one["outputs"] if "outputs" in one else one["output"]


def _loss(kind: str, label: Any, output: Any) -> float:
    if isinstance(output, list):
        if not isinstance(label, list) or len(label) != len(output):
            raise ValueError("not one label a row")
        return sum([_loss(kind, *pair) for pair in zip(label, output, strict=True)]) / len(output)
    if label is None or not _is_finite(label):
        raise ValueError("no label")
    if output is None:  # a row that the model did not answer
        return 1.0
    if kind == "zero_one":
        if not _of_one_kind(label, output):
            raise ValueError("another kind than the output")
        return 0.0 if _same(label, output) else 1.0
    true, said = _number(label), _number(output)
    if true is None or said is None or not math.isfinite(true):
        raise ValueError("no number to compare")
    return float(min(1.0, abs(true - said)) ** (2 if kind == "squared" else 1)) if math.isfinite(said) else 1.0


def _is_finite(value: Any) -> bool:
    return (
        all(map(_is_finite, value)) if isinstance(value, list) else not isinstance(value, float) or math.isfinite(value)
    )


def _same(label: Any, output: Any) -> bool:
    """Two texts as texts; else 3, 3.0 and "3" are equal, because one side is often read from a file."""
    if isinstance(label, list) and isinstance(output, list):
        return len(label) == len(output) and all(map(_same, label, output))
    if isinstance(label, str) == isinstance(output, str):
        return bool(label == output)
    numbers = _number(label), _number(output)
    return None not in numbers and numbers[0] == numbers[1]


def _of_one_kind(label: Any, output: Any) -> bool:
    if isinstance(label, list) and isinstance(output, list):
        return all(_of_one_kind(*pair) for pair in zip(label, output, strict=False))
    if (
        label is None
        or output is None
        or any(isinstance(label, kind) and isinstance(output, kind) for kind in (str, dict))
    ):
        return True
    number = _number(label)
    return number is not None and math.isfinite(number) and _number(output) is not None


def _number(value: Any) -> float | None:
    if not isinstance(value, bool | int | float | str):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf
    except ValueError:
        return None
