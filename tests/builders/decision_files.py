"""Files of decisions, as `replay export` writes them, from columns."""

import pyarrow as pa
import pyarrow.parquet as pq

from clipper_stream.evaluation.log.parquet import ENTRIES, PLAIN, WORDS, FileFacts, new_file

FACTS = dict(application="digits", loss_kind="zero_one")
KINDS = {"int32": pa.int32(), "int64": pa.int64(), "float64": pa.float64(), "bool": pa.bool_()}
MODEL = pa.struct(
    [("model", pa.string())]
    + [(name, pa.string() if name == "output" else KINDS[kind.__name__.rstrip("_")]) for name, kind in ENTRIES.items()]
)
SCHEMA = pa.schema(
    [(name, KINDS[kind.__name__.rstrip("_")]) for name, kind in PLAIN.items()]
    + [(name, pa.string()) for name in WORDS]
    + [("models", pa.list_(MODEL)), ("features", pa.list_(pa.float64()))]
)


def write_decisions(path, *parts, **facts):
    """A row group a part, in the order given."""
    parts = [part for part in parts if len(part)]
    models = sorted({model for part in parts for model in part.models})
    metadata = FileFacts(**(FACTS | dict(models=models, decisions=sum(map(len, parts))) | facts)).metadata
    with new_file(path) as beside, pq.ParquetWriter(beside, SCHEMA) as writer:
        for part in parts:
            writer.write_table(pa.Table.from_pylist([*map(row_of, *by_row(part))], SCHEMA))
        writer.add_key_value_metadata(metadata)
    return path


def by_row(columns):
    return [columns] * len(columns), range(len(columns))


def row_of(columns, at):
    def known(value, words=None):
        value = value.item() if hasattr(value, "item") else value
        if words is not None:
            return words[value] if value >= 0 else None
        unknown = value != value or (value == -1 and not isinstance(value, bool | float))  # noqa: PLR0124
        return None if unknown else value

    row = {name: known(getattr(columns, name)[at]) for name in PLAIN}
    row |= {name: known(getattr(columns, name)[at], getattr(columns, words)) for name, words in WORDS.items()}
    row["models"] = [
        {"model": model}
        | {
            name: known(getattr(columns, name)[at, number], columns.values if name == "output" else None)
            for name in ENTRIES
        }
        for number, model in enumerate(columns.models)
    ]
    row["features"] = [one for one in columns.features[at].tolist() if one == one]  # noqa: PLR0124
    return row
