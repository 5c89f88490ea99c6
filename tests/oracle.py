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
from typing import Any, TypeAlias

from known_fields import Told, known_fields
from msgspec.msgpack import decode as unpack

EARLY_MS = 5_000
"""Feedback may come so long before its query, by the timestamps of the broker."""
RESTORE, FORWARDED = "clipper-restore", "clipper-forwarded"
MOST_MODELS = 256
"""Of a row: beyond so many those that were scored longest ago are dropped."""
TRUTHS = ("label", "loss", "reward")

Record: TypeAlias = Any
"""A record of a topic, with what `e2e.any_client.Record` has."""
Content: TypeAlias = Mapping[str, Any]
Decisions: TypeAlias = dict[tuple[int, str], list[tuple[int, Content]]]
"""By partition and query id: offset and content of the predictions that count."""
RowKey = tuple[str, str | None, int]
"""Application, context, partition; the empty application holds the partition's position, and with an application's name
as context which restore of it was the last."""
AuditKey = tuple[int, int, str]
"""Partition, offset of the query's record, query id."""


@dataclass
class Row:
    """Totals of one application and context in one partition."""

    offset: int = -1
    applied: int = 0
    totals: dict[str, list[float]] = field(default_factory=dict)
    """By model: count, loss, weighted loss, weighted count; then, if there are any, moments."""
    by_confidence: dict[str, list[float]] = field(default_factory=dict)
    """By model that gives a confidence: count and loss of each bin; then labels, expected, its variance, measured."""
    aging: tuple[int, float | None] = (0, None)
    """Milliseconds at which the totals are said, and the seconds after which they weigh half."""

    @property
    def bits(self) -> tuple[Any, ...]:
        """The row with every float as its eight bytes, models in the order in which they were first scored."""
        totals = [(model, struct.pack(f"<{len(sums)}d", *sums)) for model, sums in self.totals.items()]
        calibration = [
            (model, struct.pack("<28d", *sums)) for model, sums in sorted(self.by_confidence.items()) if sums
        ]
        return (self.offset, self.applied, self.aging, *totals, *calibration)


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
        sums = {model: [*four[:4], *chain(*four[4:5])] for model, *four in totals}
        by_confidence = {model: [*chain(*four[5:])] for model, *four in totals if any(four[5:])}
        at_ms, half_life_s = others[3:5] or (0, None)
        rows[application, context, partition] = Row(offset, applied, sums, by_confidence, (at_ms, half_life_s))
    return rows


def positions(rows: Mapping[RowKey, Row]) -> dict[int, int]:
    """The last feedback offset that is in the rows, by partition."""
    return {partition: row.offset for (name, context, partition), row in rows.items() if not name and context is None}


def fold(
    predictions: Iterable[Record],
    feedback: Iterable[Record],
    applications: Mapping[str, Content],
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
    horizon_ms, rows, counted = horizon_s * 1000, dict[RowKey, Row](), set[tuple[int, int]]()
    declared, forgotten, besides = _declared(control), _forgotten(changelog), first_audits(audits)
    decisions = _decisions(predictions, horizon_ms)
    for record in feedback:
        _forget(rows, forgotten, record)
        rows["", None, record.partition] = Row(record.offset)
        if RESTORE in record.headers:
            _restore(rows, record, declared.get(record.headers[RESTORE]))
            continue
        found = _readable(record)
        known = None if found is None else _about(decisions, record, found, horizon_ms)
        if found is None or known is None:
            continue  # an orphan, or for another partition
        offset, decision = known
        about, context = (record.partition, offset), decision.get("context")
        if about in counted or found.get("context") not in (None, context):
            continue
        name, policy = decision["application"], decision.get("policy")
        if policy is None or policy["name"] == "named" or name not in applications:
            counted.add(about)
            continue
        audit = besides.get(_audit_about(record.partition, decision)) if decision.get("audited") else None
        try:
            losses = _losses(decision, audit or {}, found, applications[name].get("loss", "zero_one"))
        except (TypeError, ValueError):  # a label that is no number, or not one a row
            continue
        counted.add(about)
        row = rows.setdefault((name, context, record.partition), Row())
        row.offset, row.applied = record.offset, row.applied + 1
        if losses:
            _add(row, losses, said_ms(record), applications[name].get("policy", {}), decision.get("features", ()))
            _calibrate(row, losses, decision, audit or {})
    _forget(rows, forgotten)
    return rows


def first_audits(audits: Iterable[Record]) -> dict[AuditKey, Content]:
    """The audit that counts, by the record of the query that it is about."""
    found: dict[AuditKey, Content] = {}
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


def _audit_about(partition: int, content: Content) -> AuditKey:
    return partition, content["query_offset"], content["query_id"]


# --- forgotten contexts and restored states -------------------------------------------------------------------------
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
        for (name, context, partition), row in [*rows.items()]:
            if name and context is not None and partition == one[0] and row.offset < one[2]:
                del rows[name, context, partition]


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
            row.offset, row.totals, row.by_confidence, row.aging = marker.offset, {}, {}, (0, None)
    for one in saved["rows"]:
        row = rows.setdefault((name, one.get("context"), partition), Row())
        row.offset, row.aging = marker.offset, (one.get("at_ms", 0), one.get("half_life_s"))
        row.totals = {
            model: [count, loss, weighted_loss, weighted_count, *one.get("moments", {}).get(model, ())]
            for model, (count, loss, weighted_count, weighted_loss) in one["totals"].items()
        }
    rows[note] = Row(marker.offset, declared.offset)


# --- what a feedback is about ---------------------------------------------------------------------------------------
def _decisions(predictions: Iterable[Record], horizon_ms: float) -> Decisions:
    """Of an application and a time the first record counts."""
    decisions: Decisions = {}
    for record in predictions:
        under = decisions.setdefault((record.partition, record.content["query_id"]), [])
        if not any(_repeats(record.content, one, horizon_ms) for _, one in under):
            under.append((record.offset, record.content))
    return decisions


def _repeats(later: Content, first: Content, horizon_ms: float) -> bool:
    apart_ms = abs(later.get("queried_at_ms", 0) - first.get("queried_at_ms", 0))
    return bool(later["application"] == first["application"] and apart_ms <= horizon_ms + EARLY_MS)


def said_ms(record: Record) -> int:
    """When it was said: what a router has sent on from another partition has the time of its first record."""
    words = next(
        (value or b"" for name, value in record.all_headers or record.headers.items() if name == FORWARDED), b""
    ).split(b" ")
    known = len(words) == 2 and words[1].isdigit() and len(words[1]) <= 16
    day_before_ms = record.timestamp_ms - 86_400_000
    return max(day_before_ms, min(int(words[1]), record.timestamp_ms)) if known else record.timestamp_ms


def _about(decisions: Decisions, record: Record, found: Content, horizon_ms: float) -> tuple[int, Content] | None:
    """The first decision of the application (any, when the feedback names none) whose query was asked in time."""
    for offset, one in decisions.get((record.partition, found["query_id"]), ()):
        after_ms = said_ms(record) - one.get("queried_at_ms", 0)
        if found.get("application") in (None, one["application"]) and -EARLY_MS <= after_ms <= horizon_ms:
            return offset, one
    return None


def _readable(record: Record) -> Content | None:
    """What the record says, if it says what the page of the wire contract allows: anybody may write it."""
    try:
        found = known_fields(record, Told)
    except ValueError:
        return None
    if not isinstance(found, dict) or not all(isinstance(name, str) and _is_text(name) for name in found):
        return None
    units = [name for name in ("loss", "reward") if found.get(name) is not None]
    truths = [*units, *["label"] * ("label" in found and not (units and found["label"] is None))]
    texts = [found.get(name) for name in ("query_id", "application", "context")]
    if len(truths) != 1 or not texts[0] or not all(one is None or isinstance(one, str) for one in texts):
        return None
    unit = found[truths[0]] if units else 0
    number = isinstance(unit, int | float) and not isinstance(unit, bool) and 0 <= unit <= 1
    said = {name: value for name, value in found.items() if name in truths or name not in TRUTHS}
    return said if number and _is_text([*texts, found.get("label")]) and _are_metrics(found.get("metrics")) else None


def _are_metrics(metrics: Any) -> bool:
    """Whether these are at most 16 numbers by name, or none."""
    if not isinstance(metrics, dict):
        return metrics is None
    numbers = [isinstance(one, int | float) and not isinstance(one, bool) for one in metrics.values()]
    named = all(isinstance(name, str) and len(name) <= 64 for name in metrics)
    return named and len(metrics) <= 16 and all(numbers) and all(abs(one) <= 1e12 for one in metrics.values())


def _is_text(value: Any) -> bool:
    """Whether all texts in a value are some: half a surrogate pair is none."""
    if isinstance(value, dict):
        value = [*value.keys(), *value.values()]
    if isinstance(value, list):
        return all(map(_is_text, value))
    return not isinstance(value, str) or value.encode("utf-8", "ignore").decode() == value


# --- what it adds to the totals -------------------------------------------------------------------------------------
def _add(
    row: Row, losses: Mapping[str, tuple[float, float]], at_ms: int, policy: Content, features: Sequence[float]
) -> None:
    parameters = policy.get("parameters", {})
    (said_ms, before_s), half_life_s = row.aging, parameters.get("half_life_s")
    if before_s is not None and at_ms > said_ms:
        _shrink(row, 0.5 ** ((at_ms - said_ms) / (1000.0 * before_s)))
    row.aging = (0, None) if half_life_s is None else (max(at_ms, said_ms), half_life_s)
    if parameters.get("half_life") is not None:
        _shrink(row, 0.5 ** (1.0 / parameters["half_life"]))
    in_order, x = len(row.totals) >= MOST_MODELS // 2, _learned_features(policy, features, losses)
    for model, (loss, propensity) in losses.items():
        sums = row.totals.setdefault(model, [0.0, 0.0, 0.0, 0.0])
        if in_order:  # of the last score; in a smaller row of the first
            row.totals[model] = row.totals.pop(model)
        added = [1.0, loss, loss / propensity, 1.0 / propensity, *_moments(x, loss)]
        sums += [0.0] * (len(added) - len(sums))
        if x:
            added += [0.0] * (len(sums) - len(added))  # a sum of -0.0 becomes 0.0; without features it stays
        for index, value in enumerate(added):
            sums[index] += value
    for model in [*row.totals][:-MOST_MODELS]:
        del row.totals[model]
        row.by_confidence.pop(model, None)


def _learned_features(policy: Content, features: Sequence[float], losses: Mapping[str, tuple[float, float]]) -> Any:
    if policy.get("name") != "cascade" or not features:
        return features if policy.get("name") == "lin_ucb" else ()
    x = [0.0] * 12
    x[_bin(features[0])] = 1.0 / max(propensity for _, propensity in losses.values())
    return x


def _bin(confidence: float) -> int:
    return sum(edge <= confidence for edge in (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.997, 0.999))


def _calibrate(row: Row, losses: Mapping[str, tuple[float, float]], decision: Content, audit: Content) -> None:
    """Each loss against what the bin of its confidence had lost before, and then into that bin."""
    asked = {_ref(one) for one in (*decision.get("models", ()), *decision.get("missing", ()))}
    answers = [*decision.get("models", ()), *(one for one in audit.get("models", ()) if _ref(one) not in asked)]
    for one in answers:
        model, confidence = _ref(one), one.get("confidence")
        if confidence is None or model not in losses:
            continue
        place, (loss, _) = _bin(confidence), losses[model]
        before = row.by_confidence.get(model) or [0.0] * 28
        labels = math.fsum(before[:24:2])
        mean = min(
            1.0, (before[2 * place + 1] + math.fsum(before[1:24:2]) / max(labels, 1.0)) / (before[2 * place] + 1.0)
        )
        variance = mean * (1.0 - mean) + mean * (1.0 - mean) / (before[2 * place] + 1.0)
        after = [value * 0.5 ** ((1.0 if index < 24 else 4.0) / 1000.0) for index, value in enumerate(before)]
        after[26] *= 0.5 ** (4.0 / 1000.0)
        added = {2 * place: 1.0, 2 * place + 1: loss}
        if labels >= 100.0:
            added |= {24: 1.0, 25: mean, 26: variance, 27: loss}
        row.by_confidence[model] = [value + added.get(index, 0.0) for index, value in enumerate(after)]


def _shrink(row: Row, keep: float) -> None:
    for sums in row.totals.values():
        sums[:] = [value * keep for value in sums]


def _moments(features: Sequence[float], loss: float) -> list[float]:
    """Of x = (1, features), a column of the upper triangle of x x^T after the other, each followed by loss x."""
    if not features:
        return []
    x = [1.0, *map(float, features)]
    triangle = [[x[row] * x[column] for row in range(column + 1)] + [loss * x[column]] for column in range(len(x))]
    return [value for column in triangle for value in column]


def _losses(decision: Content, audit: Content, found: Content, kind: str) -> dict[str, tuple[float, float]]:
    """Loss and propensity of each model that the truth scores, as the table in docs/explanation says."""
    answered = {_ref(one): one for one in decision.get("models", ())}
    asked = answered | {_ref(one): one for one in decision.get("missing", ())}
    served = [ref for ref, one in asked.items() if one.get("served", True)]
    of_answer = decision["served_propensity"]
    missing = {served[0]: (1.0, of_answer)} if len(served) == 1 and served[0] not in answered else {}
    if "label" in found:
        beside = {_ref(one): one for one in audit.get("models", ()) if _ref(one) not in asked}
        return _label_losses(kind, found["label"], answered | beside) | missing
    if missing or decision.get("default"):
        return missing
    given = found["loss"] if "loss" in found else 1.0 - found["reward"]
    agreeing = [ref for ref in served if ref in answered and _said(answered[ref]) == _said(decision)]
    return dict.fromkeys(served if len(served) == 1 else agreeing, (given, of_answer))


def _label_losses(kind: str, label: Any, answered: Mapping[str, Content]) -> dict[str, tuple[float, float]]:
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


def _ref(one: Content) -> str:
    return f"{one['model']}:{one['version']}"


def _said(one: Content) -> Any:
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
    if isinstance(value, list):
        return all(map(_is_finite, value))
    return not isinstance(value, float) or math.isfinite(value)


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
        return all(map(_of_one_kind, label, output))
    alike = any(isinstance(label, kind) and isinstance(output, kind) for kind in (str, dict))
    if label is None or output is None or alike:
        return True
    number = _number(label)
    return number is not None and math.isfinite(number) and _number(output) is not None


def _number(value: Any) -> float | None:
    try:
        return float(value) if isinstance(value, bool | int | float | str) else None
    except OverflowError:
        return math.inf
    except ValueError:
        return None
