"""Whatever JSON or msgpack brings as a row, it becomes a row or an explained refusal, alone as in a batch."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from clipper_stream.errors import InvalidInput
from clipper_stream.models.row_spec import LISTED, NUMERIC, RowSpec
from clipper_stream.query.inputs import to_matrix, to_rows

scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=3), st.binary(max_size=16)
)
anything = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=2), inner, max_size=2)),
)
pairs = st.one_of(
    st.lists(st.one_of(st.integers(-300, 300), st.floats(allow_nan=False)), min_size=2, max_size=2), anything
)
dtypes = st.sampled_from([*NUMERIC]) | st.sampled_from([*LISTED])
COLUMNS = [("a", "number"), ("b", "text"), ("c", "date")]
named = st.dictionaries(st.sampled_from("abcd"), scalars | st.just("2026-01-31T09:30:00+01:00"), max_size=4)


def spec_of(dtype, shape, missing):
    columns = COLUMNS[:2] if missing else COLUMNS
    return RowSpec(dtype, shape, columns if dtype == "table" else (), missing and dtype in ("float32", "table"))


specs = st.builds(spec_of, dtypes, st.sampled_from([None, (), (2,), (1, 2)]), st.booleans())


@given(specs, st.lists(pairs | named, max_size=5))
def test_every_row_is_converted_as_it_would_be_alone(spec, inputs):
    rows = to_rows(spec, inputs)
    good = iter(rows.good)
    for index, row in enumerate(inputs):
        try:
            alone = to_matrix(spec, [row])[0]
        except InvalidInput:
            assert index in rows.failed
            continue
        assert index not in rows.failed
        together = next(good)
        if spec.numeric:
            assert together.dtype == alone.dtype == np.dtype(spec.dtype)
            assert together.shape == alone.shape
            assert together.tobytes() == alone.tobytes()
        else:
            assert together is alone or together == alone
    assert next(good, None) is None
