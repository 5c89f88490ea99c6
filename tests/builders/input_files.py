"""Files of logged inputs, as `replay export --inputs` writes their columns."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq


def write_inputs(
    path: Path, rows: int, group_rows: int = 50, lost: tuple[int, ...] = (), text: str | None = None
) -> Path:
    """Rows `[number, 1]` of partition 0 or 1; those that are lost have no input."""
    inputs = [None if number in lost else text or json.dumps({"input": [number, 1]}) for number in range(rows)]
    table = pa.table(
        {
            "partition": pa.array([number % 2 for number in range(rows)], pa.int32()),
            "query_offset": pa.array([number // 2 for number in range(rows)], pa.int64()),
            "input": pa.array(inputs, pa.string()),
        }
    )
    pq.write_table(table, path, row_group_size=group_rows)
    return path
