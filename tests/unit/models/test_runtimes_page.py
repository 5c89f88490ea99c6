import io
import pickle
import re
import types
from pathlib import Path

import numpy as np
import pytest

from clipper_stream.errors import ModelNotLoaded
from clipper_stream.models.fetch import PROTOCOLS
from clipper_stream.models.registry import RUNTIMES
from clipper_stream.models.runner import predict_rows
from clipper_stream.models.runtimes import boosters, oip_http, onnx_model

PAGE = (Path(__file__).parents[3] / "docs/reference/runtimes.md").read_text()
RECIPE = re.findall(r"^```python\n(.*?)^```", PAGE.split("## Add a runtime")[1], flags=re.MULTILINE | re.DOTALL)[0]


@pytest.fixture
def runtimes():
    """The registered runtimes and the one of the recipe, as it stands on the page."""
    module = types.ModuleType("linear")
    exec(compile(RECIPE, "runtimes.md", "exec"), module.__dict__)
    return {**RUNTIMES, "linear": module.LINEAR}


def test_a_runtime_is_added_by_the_lines_of_the_page(loaded, runtimes):
    content = io.BytesIO()
    np.savez(content, weights=np.array([1.0, 2.0]), bias=0.5)
    model = loaded("linear", content.getvalue(), runtimes=runtimes)
    assert predict_rows(model, np.array([[1.0, 1.0], [2.0, 0.0]])).outputs == [3.5, 2.5]
    assert len([line for line in RECIPE.splitlines() if line.strip()]) <= 25


def test_the_runtime_of_the_page_is_as_careful_as_the_others(loaded, runtimes):
    for content in (pickle.dumps({"weights": 1}), b"", b"PK"):
        with pytest.raises(ModelNotLoaded, match=r"write it with numpy.savez"):
            loaded("linear", content, runtimes=runtimes)
    for how, said in ((dict(allowed=["/srv"]), "outside"), (dict(parameters={"a": 1}), "linear: there is none")):
        with pytest.raises(ModelNotLoaded, match=said):
            loaded("linear", b"x", runtimes=runtimes, **how)


def test_every_runtime_is_in_the_table_and_those_that_unpickle_are_named_as_such():
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", PAGE.split("## Tables")[0], flags=re.MULTILINE))
    assert set(rows) == set(RUNTIMES)
    unpickling = {name for name, runtime in RUNTIMES.items() if runtime.UNPICKLES}
    assert {name for name, row in rows.items() if "#unpickling" in row} == unpickling


def test_every_parameter_and_protocol_is_on_the_page():
    for section, known in (
        ("## ONNX", onnx_model.PARAMETERS),
        ("## LightGBM and XGBoost", boosters.PARAMETERS),
        ("## Open Inference Protocol", oip_http.PARAMETERS),
    ):
        listed = PAGE.split(section)[1].split("Parameters, with defaults:\n\n")[1].split("\n\n")[0]
        assert set(re.findall(r"^- `(\w+)` \(", listed, flags=re.MULTILINE)) == set(known)
    assert all(f"`{protocol}://" in PAGE for protocol in PROTOCOLS)
    assert "No parameters" in PAGE.split("`mlflow`: the directory")[1].split("## ")[0]
