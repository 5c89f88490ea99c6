"""The first batch is run before anybody waits for it."""

import numpy as np
import pytest
from builders.host import CountingModel, FunctionOfRow

from clipper_stream.errors import ModelNotLoaded
from clipper_stream.models.warm_up import sample_rows, warm_up


def test_a_numeric_row_of_known_shape_is_zeros():
    sample = sample_rows("float32", [8, 8], 3)
    assert (sample.shape, sample.dtype, sample.any()) == ((3, 8, 8), np.float32, False)


@pytest.mark.parametrize(
    ("dtype", "shape", "sample"),
    [
        ("float32", None, None),
        ("json", None, None),
        ("json", [1], None),
        ("text", None, ["", ""]),
        ("bytes", None, [b"", b""]),
    ],
)
def test_other_rows_are_empty_or_not_known(dtype, shape, sample):
    assert sample_rows(dtype, shape, 2) == sample


@pytest.mark.parametrize(("sample", "sizes"), [([""], [1]), (None, [])])
def test_a_model_is_warmed_up_with_the_sample_where_there_is_one(sample, sizes):
    model = CountingModel(FunctionOfRow(len))
    assert warm_up(model, sample) is None
    assert model.sizes == sizes


def test_a_sample_that_the_model_refuses_is_told_and_no_error():
    assert warm_up(FunctionOfRow(lambda row: row[0]), [""]) == "IndexError: string index out of range"


def test_a_models_own_warm_up_that_fails_stops_the_loading():
    class Broken(FunctionOfRow):
        def warm_up(self):
            raise OSError("no weights")

    with pytest.raises(ModelNotLoaded, match=r"Broken.warm_up\(\) failed, OSError: no weights"):
        warm_up(Broken(len), [""])
