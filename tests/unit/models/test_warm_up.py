import pytest
from builders.host import CountingModel, FunctionOfRow

from clipper_stream.errors import ModelNotLoaded
from clipper_stream.models.runner import warm_up


def test_a_model_is_warmed_up_with_the_sample_where_there_is_one():
    model = CountingModel(FunctionOfRow(len))
    assert warm_up(model, None) is warm_up(model, [""]) is None
    assert model.sizes == [1]
    assert warm_up(FunctionOfRow(lambda row: row[0]), [""]) == "IndexError: string index out of range"


def test_a_models_own_warm_up_that_fails_stops_the_loading():
    class Broken(FunctionOfRow):
        def warm_up(self):
            raise OSError("no weights")

    with pytest.raises(ModelNotLoaded, match=r"Broken.warm_up\(\) failed, OSError: no weights"):
        warm_up(Broken(len), [""])
