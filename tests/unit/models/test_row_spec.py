import json
from dataclasses import asdict

import numpy as np
import pytest

from clipper_stream.errors import InvalidSetting
from clipper_stream.models.row_spec import RowSpec
from clipper_topics.manifests import ColumnSpec, InputSpec

COLUMNS = [("age", "number"), ("city", "text"), ("since", "date")]


def test_a_sample_is_zeros_or_empty_or_missing_or_not_known():
    sample = RowSpec("float32", [8, 8]).sample(3)
    assert (sample.shape, sample.dtype, sample.any()) == ((3, 8, 8), np.float32, False)
    shapeless = [RowSpec(dtype).sample(2) for dtype in ("text", "bytes", "float32", "json")]
    assert shapeless == [[""] * 2, [b""] * 2, None, None]
    assert RowSpec("json", [1]).sample(2) is None
    assert RowSpec("table", columns=COLUMNS).sample(1) == [{"age": 0.0, "city": "", "since": "1970-01-01T00:00:00"}]
    assert RowSpec("table", columns=COLUMNS, missing=True).sample(1) == [dict.fromkeys(["age", "city", "since"])]


def test_a_spec_is_read_from_a_manifest_and_is_the_same_after_json():
    columns = [ColumnSpec(name=name, dtype=dtype) for name, dtype in COLUMNS]
    for declared in (InputSpec(dtype="uint8", shape=[2]), InputSpec(dtype="table", columns=columns, missing=True)):
        spec = RowSpec.of(declared)
        assert spec == RowSpec(**json.loads(json.dumps(asdict(spec))))
        assert (spec.dtype, spec.missing, len(spec.columns)) == (
            declared.dtype,
            declared.missing,
            len(declared.columns),
        )
    with pytest.raises(InvalidSetting, match="give positive integers"):
        RowSpec("float32", [0])


@pytest.mark.parametrize(
    ("declared", "said"),
    [
        ({"columns": [ColumnSpec(name="a")]}, "a table needs some, nothing else has any"),
        ({"dtype": "table"}, "dtype table with 0 columns"),
        ({"dtype": "table", "columns": [ColumnSpec(name="a")] * 2}, "give each name once"),
        ({"dtype": "int64", "missing": True}, "only floats and tables have them"),
    ],
)
def test_an_input_that_contradicts_itself_is_refused(declared, said):
    with pytest.raises(ValueError, match=said):
        InputSpec(**declared)
