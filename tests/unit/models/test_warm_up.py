"""The first batch is run before anybody waits for it."""

import numpy as np
import pytest
from builders.host import CountingModel, FunctionOfRow

from clipper_stream.errors import ModelNotLoaded
from clipper_stream.models.warm_up import sample_rows, warm_up


def test_a_numeric_row_of_known_shape_is_zeros():
    sample = sample_rows("float32", [8, 8], 3)
    assert sample.shape == (3, 8, 8)
    assert sample.dtype == np.float32
    assert not sample.any()


@pytest.mark.parametrize(("dtype", "shape"), [("float32", None), ("json", None), ("json", [1])])
def test_without_a_known_row_there_is_no_sample(dtype, shape):
    assert sample_rows(dtype, shape, 1) is None


def test_texts_and_bytes_are_empty():
    assert sample_rows("text", None, 2) == ["", ""]
    assert sample_rows("bytes", None, 1) == [b""]


def test_a_model_is_warmed_up_with_the_sample():
    model = CountingModel(FunctionOfRow(len))
    assert warm_up(model, [""]) is None
    assert model.sizes == [1]


def test_without_a_sample_the_model_is_not_called():
    model = CountingModel(FunctionOfRow(len))
    assert warm_up(model, None) is None
    assert model.sizes == []


def test_a_sample_that_the_model_refuses_is_told_and_no_error():
    assert warm_up(FunctionOfRow(lambda row: row[0]), [""]) == "IndexError: string index out of range"


def test_a_models_own_warm_up_that_fails_stops_the_loading():
    class Broken:
        def predict_batch(self, inputs):
            return inputs

        def warm_up(self):
            raise OSError("no weights")

    with pytest.raises(ModelNotLoaded, match=r"Broken.warm_up\(\) failed, OSError: no weights"):
        warm_up(Broken(), [""])
