"""The join of predictions, audits and feedback by DuckDB: the tables of the logs become a row a decision.

Rules of this file:
- Of several predictions about a query of the application the first is the decision. Feedback that names no application
  is about the first decision under its id, whosever it is.
- An audit is about a decision when it names the same record of the query, and the prediction says that one follows; the
  first counts. A model that both name has said what the prediction says.
- Of the feedback about a decision the first that can be used counts. What names another context, or a label that cannot
  be compared, cannot be used; what comes after the one that counted is a duplicate.
- Losses are those of `clipper_stream.feedback.update.score`; a test compares the two, decision by decision. A label and
  an output are compared once, however many decisions they are met in.
- Decisions come out in the order of time; of one millisecond, in the order of partitions and offsets.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Self

import duckdb
import pyarrow as pa
from duckdb.func import SPECIAL
from duckdb.sqltypes import BOOLEAN, DOUBLE, VARCHAR

from clipper_agents.replay.log_tables import TABLES, json_of, value_of
from clipper_stream.errors import InvalidLabel
from clipper_stream.feedback.update import loss_of, loss_of_rows, same
from clipper_topics.query_ids import PARTITION_PATTERN

MEMORY = "512MB"
"""What has no room in it waits in the folder."""
_OFFSET_BITS = (1 << 48) - 1

_JOIN = """
CREATE TABLE known AS
SELECT place >> 48 AS partition, query_id, min(place) AS first, min(place) FILTER (own) AS first_own,
    count(*) FILTER (own) AS own_predictions
FROM (SELECT place, query_id, true AS own FROM predictions UNION ALL SELECT place, query_id, own FROM other_predictions)
GROUP BY ALL;

CREATE TABLE decision AS
SELECT *, logged_ms + getvariable('horizon_ms') AS until_ms
FROM predictions WHERE place IN (SELECT first_own FROM known);

CREATE TABLE audit AS
SELECT decision.place AS decision, min(audits.place) AS place
FROM decision JOIN audits USING (query_id, query_offset)
WHERE decision.audited AND audits.place >> 48 = decision.place >> 48 AND audits.logged_ms <= decision.until_ms
GROUP BY ALL;

CREATE TABLE asked AS
SELECT * FROM models WHERE place IN (SELECT place FROM decision)
UNION ALL
SELECT audit_models.* REPLACE (audit.decision AS place, number - 1099511627776 AS number, false AS served)
FROM audit_models JOIN audit USING (place);

DELETE FROM asked USING (
    SELECT place, model, max(number) AS last FROM asked GROUP BY place, model HAVING count(*) > 1
) AS twice
WHERE asked.place = twice.place AND asked.model = twice.model AND asked.number < twice.last;

CREATE TABLE served AS
SELECT place, count(*) AS members, count(*) = 1 AND NOT bool_and(answered) AS silent,
    if(count(*) = 1, any_value(propensity), 1.0) AS probability
FROM asked WHERE served GROUP BY place;

CREATE MACRO shown(value) AS if(starts_with(value, '!'), json_of(value), value);

CREATE MACRO named(query_id) AS try_cast(regexp_extract(query_id, getvariable('pattern'), 1) AS BIGINT);

CREATE MACRO unknown(query_id, place, sent_on) AS if(
    NOT sent_on AND named(query_id) <> place >> 48 AND named(query_id) < getvariable('partitions'),
    'forwarded', 'orphans');

CREATE TABLE told AS
SELECT feedback.place AS feedback, known.first_own AS decision, given, said_ms, if(given IS NULL, label, NULL) AS label,
    feedback.context IS NULL OR feedback.context IS NOT DISTINCT FROM decision.context AS fits,
    several, answer, is_default, members, coalesce(silent, false) AS silent,
    coalesce(served_propensity, probability) AS probability,
    CASE
        WHEN feedback.application <> getvariable('application') AND known.first IS NOT NULL THEN 'not_wanted'
        WHEN feedback.application <> getvariable('application')
            THEN replace(unknown(feedback.query_id, feedback.place, sent_on), 'orphans', 'not_wanted')
        WHEN feedback.application IS NULL AND known.first_own IS DISTINCT FROM known.first THEN 'not_wanted'
        WHEN known.first_own IS NULL THEN unknown(feedback.query_id, feedback.place, sent_on)
        WHEN decision.place IS NULL THEN 'not_wanted'
        WHEN said_ms > until_ms THEN 'late'
    END AS unused
FROM feedback
LEFT JOIN known ON known.query_id = feedback.query_id AND known.partition = feedback.place >> 48
LEFT JOIN decision ON decision.place = known.first_own
LEFT JOIN served ON served.place = known.first_own;

CREATE VIEW about AS SELECT * FROM told WHERE unused IS NULL;

CREATE TABLE compared AS
SELECT *, compare(label, output, several) AS loss FROM (
    SELECT label, output, several FROM about JOIN asked ON asked.place = decision WHERE label IS NOT NULL AND answered
    UNION
    SELECT label, answer, several FROM about WHERE label IS NOT NULL
);

CREATE TABLE score AS
SELECT feedback, decision, model, fits, label IS NOT NULL AND answered AS heard, compared.loss IS NULL AS refused,
    CASE
        WHEN silent AND served THEN 1.0
        WHEN label IS NOT NULL THEN if(answered, coalesce(compared.loss, 1.0), NULL)
        WHEN silent OR is_default OR NOT (served AND answered) THEN NULL
        WHEN members = 1 OR agree(output, answer) THEN given
    END AS loss,
    if(label IS NOT NULL AND answered, propensity, probability) AS weight
FROM about LEFT JOIN asked ON asked.place = decision LEFT JOIN compared USING (label, output, several);

CREATE TABLE judged AS
SELECT feedback, decision,
    any_value(fits) AND NOT coalesce(bool_and(refused) FILTER (heard), false)
        AND bool_and(loss IS NULL OR coalesce(weight > 0 AND weight <= 1, false)) AS usable
FROM score GROUP BY feedback, decision;

CREATE TABLE used AS
SELECT decision, min(feedback) FILTER (usable) AS feedback FROM judged GROUP BY decision;
"""

_COUNTS = """
SELECT 'decisions' AS name, count(*) AS records FROM decision
UNION ALL SELECT 'repeated', coalesce(sum(own_predictions), 0) - count(first_own) FROM known
UNION ALL SELECT 'no_audit', count(*) FILTER (audited) - (SELECT count(*) FROM audit) FROM decision
UNION ALL SELECT unused, count(*) FROM told WHERE unused IS NOT NULL GROUP BY unused
UNION ALL SELECT 'with_feedback', count(feedback) FROM used
UNION ALL SELECT if(judged.feedback > used.feedback, 'duplicates', 'invalid'), count(*)
    FROM judged JOIN used USING (decision) WHERE judged.feedback IS DISTINCT FROM used.feedback GROUP BY ALL
"""

_ROWS = """
WITH entry AS MATERIALIZED (
    SELECT asked.place, {
        model: asked.model, propensity: propensity, served: served, answered: answered, latency_ms: latency_ms,
        output: shown(output), loss: score.loss
    } AS model
    FROM asked
    LEFT JOIN used ON used.decision = asked.place
    LEFT JOIN score ON score.feedback = used.feedback AND score.model = asked.model
),
several AS (SELECT place FROM entry GROUP BY place HAVING count(*) > 1),
entries AS (  -- a list of one is six times as fast without an aggregate
    SELECT place, [model] AS models FROM entry ANTI JOIN several USING (place)
    UNION ALL
    SELECT place, list(model) AS models FROM entry SEMI JOIN several USING (place) GROUP BY place
)
SELECT (place >> 48)::INTEGER AS partition, place & getvariable('offset_bits') AS "offset",
    nullif(query_offset, -1) AS query_offset, predicted_at_ms AS at_ms, revision,
    coalesce(served_propensity, served.probability) AS served_propensity, confidence,
    decision.is_default AS "default", about.feedback & getvariable('offset_bits') AS feedback_offset,
    said_ms AS feedback_at_ms,
    CASE
        WHEN about.feedback IS NULL THEN NULL
        WHEN decision.is_default AND NOT low_confidence THEN 1.0
        ELSE coalesce(given, compared.loss, 1.0)
    END AS answer_loss,
    decision.several AS several_rows, context, policy, shown(decision.answer) AS answer, shown(about.label) AS label,
    coalesce(entries.models, []) AS models, features, input
FROM decision
LEFT JOIN served USING (place)
LEFT JOIN entries USING (place)
LEFT JOIN used ON used.decision = place
LEFT JOIN about ON about.feedback = used.feedback
LEFT JOIN compared
    ON compared.label = about.label AND compared.output = decision.answer AND compared.several = decision.several
LEFT JOIN inputs ON inputs.place = (decision.place >> 48 << 48) + query_offset
ORDER BY predicted_at_ms, decision.place
"""


class DecisionJoin:
    """The join of the tables that `LogTables` has written to a folder; a context manager.

    Args:
        folder: The folder; what does not fit into memory waits there too.
        application: Whose decisions are wanted.
        loss_kind: How a label is compared with an output.
        horizon_ms: How long after its decision a feedback still counts, in milliseconds.
        partitions: Of the feedback topic.
        threads: Threads of the database.

    Attributes:
        counts: Counts of records by outcome, with the names in `docs/reference/replay-files.md`.
        models: References of all models that were asked, in order.
        revisions: Of the manifests that decided.
    """

    def __init__(
        self,
        folder: Path,
        *,
        application: str,
        loss_kind: str,
        horizon_ms: float = float("inf"),
        partitions: int = 1,
        threads: int = 1,
    ) -> None:
        self._database = duckdb.connect(
            config={
                "memory_limit": MEMORY,
                "temp_directory": str(folder),
                "threads": threads,
                "preserve_insertion_order": False,
            }
        )
        for name, columns in TABLES.items():
            files = [pa.ipc.open_file(pa.memory_map(str(path))) for path in folder.glob(f"{name}-*.arrow")]
            found = [pa.schema(list(columns.items())).empty_table(), *(file.read_all() for file in files)]
            self._database.register(name, pa.concat_tables(found))
        compare, add = partial(_compare, loss_kind), self._database.create_function
        add("compare", compare, [VARCHAR, VARCHAR, BOOLEAN], DOUBLE, null_handling=SPECIAL)
        add("agree", lambda one, other: same(value_of(one), value_of(other)), [VARCHAR, VARCHAR], BOOLEAN)
        add("json_of", lambda text: json_of(value_of(text)), [VARCHAR], VARCHAR)
        variables = {
            "application": application,
            "horizon_ms": horizon_ms,
            "partitions": partitions,
            "pattern": f"^(?:{PARTITION_PATTERN})$",
            "offset_bits": _OFFSET_BITS,
        }
        for name, value in variables.items():
            self._database.execute(f"SET VARIABLE {name} = $1", [value])
        self._database.execute(_JOIN)
        self.counts: dict[str, int] = dict(self._database.execute(_COUNTS).fetchall())
        found = self._database.execute("SELECT DISTINCT model FROM asked ORDER BY model").fetchall()
        self.models: tuple[str, ...] = tuple(model for (model,) in found)
        found = self._database.execute("SELECT DISTINCT revision FROM decision ORDER BY revision").fetchall()
        self.revisions: tuple[int, ...] = tuple(revision for (revision,) in found if revision is not None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    def write(self, path: Path, metadata: Mapping[str, str], group_rows: int) -> None:
        """Write the decisions to a Parquet file in the order of time, in row groups of so many."""
        keys = ", ".join(f"'{key}': '{_quoted(value)}'" for key, value in metadata.items())
        options = f"FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE {group_rows}, KV_METADATA {{{keys}}}"
        self._database.execute(f"COPY ({_ROWS}) TO '{_quoted(str(path))}' ({options})")


def _quoted(text: str) -> str:
    return text.replace("'", "''")


def _compare(kind: str, label: str, output: str, several_rows: bool) -> float | None:
    said, found = value_of(label), value_of(output)
    try:
        if several_rows:
            return loss_of_rows(kind, said, found if isinstance(found, list) else [])
        return loss_of(kind, said, found)
    except InvalidLabel:
        return None
