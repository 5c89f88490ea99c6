"""The runtime `torch` runs TorchScript and unpickles nothing; `torch_export` does, so it needs a permission.

Torch is an optional extra that CI does not install; `test_extras` says whether it is here.
"""

import io
import pickle
import zipfile
from typing import Any

import numpy as np
import pytest
from builders.pickles import Canary

from clipper_stream.errors import ModelNotLoaded
from clipper_stream.models.runner import predict_rows

torch: Any = pytest.importorskip("torch")
pytestmark = [pytest.mark.runtime, pytest.mark.filterwarnings("ignore")]
X = np.array([[3, 2], [0, 1]], dtype=np.float32)


class Scores(torch.nn.Module):
    def forward(self, rows):
        if not bool(torch.isfinite(rows).all()):
            raise ValueError("rows are finite")
        return rows + 1


class Named(torch.nn.Module):
    def forward(self, rows):
        return {"sum": rows.sum(dim=1), "first": rows[:, :1]}


class Lengths(torch.nn.Module):
    def forward(self, rows: list[str]):
        return torch.tensor([len(row) for row in rows])


@pytest.fixture
def scripted(loaded):
    """Scripts a module, and loads its file, of which one member may be replaced by another content."""

    def load(module, parameters=None, replaced=None):
        content = io.BytesIO()
        torch.jit.save(torch.jit.script(module), content)
        content = with_member(content.getvalue(), *replaced) if replaced else content.getvalue()
        return loaded("torch", content, parameters)

    return load


def exported(module):
    content = io.BytesIO()
    rows = torch.export.Dim("rows")
    torch.export.save(torch.export.export(module, (torch.zeros(3, 2),), dynamic_shapes=({0: rows},)), content)
    return content.getvalue()


def with_member(content, ending, payload):
    """The archive with another content of one of its members."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as archive, zipfile.ZipFile(out, "w") as changed:
        assert any(name.endswith(ending) for name in archive.namelist())
        for name in archive.namelist():
            changed.writestr(name, payload if name.endswith(ending) else archive.read(name))
    return out.getvalue()


@pytest.mark.parametrize(
    ("module", "parameters", "rows", "outputs"),
    [
        (Scores(), {}, X, [[4.0, 3.0], [1.0, 2.0]]),
        (Scores(), {"labels": ["first", "second"], "threads": 1}, X, ["first", "second"]),
        (Named(), {"output": "sum"}, X, [5.0, 1.0]),
        (Named(), {"output": "first"}, X, [3.0, 0.0]),
        (Lengths(), {}, ["abc", ""], [3, 0]),
    ],
    ids=["scores", "labels", "a dictionary", "a column of a dictionary", "texts as a list"],
)
def test_a_scripted_module_is_one_call_and_gives_plain_values(scripted, module, parameters, rows, outputs):
    outcome = predict_rows(scripted(module, parameters), rows)
    assert (outcome.outputs, outcome.calls) == (outputs, 1)


def test_an_output_that_is_not_named_fails_with_the_names_and_a_row_that_is_refused_alone(scripted):
    assert "gave a dict with sum, first" in predict_rows(scripted(Named()), X).failed[0]
    outcome = predict_rows(scripted(Scores()), np.array([[1, 2], [np.nan, 0], [3, 4]]))
    assert outcome.outputs == [[2.0, 3.0], None, [4.0, 5.0]]
    assert "rows are finite" in outcome.failed[1]


@pytest.mark.parametrize("ending", ["data.pkl", "constants.pkl", ".debug_pkl"])
@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_a_pickle_in_a_scripted_module_does_not_run(scripted, tmp_path, ending, protocol):
    replaced = (ending, pickle.dumps(Canary(tmp_path / "canary"), protocol))
    if ending == ".debug_pkl":  # which is read when something fails
        assert predict_rows(scripted(Scores(), replaced=replaced), np.array([[np.nan]])).failed
    else:
        with pytest.raises(ModelNotLoaded):
            scripted(Scores(), replaced=replaced)
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("legacy", [False, True])
def test_what_torch_save_wrote_is_refused_and_does_not_run(loaded, tmp_path, legacy):
    content = io.BytesIO()
    torch.save(Canary(tmp_path / "canary"), content, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(ModelNotLoaded, match=r"torch.jit.script\(module\).save"):
        loaded("torch", content.getvalue())
    assert not (tmp_path / "canary").exists()


def test_an_exported_program_needs_a_permission_because_torch_unpickles_it(loaded, tmp_path):
    payload = io.BytesIO()
    torch.save(((Canary(tmp_path / "canary"),), {}), payload)
    content = with_member(exported(Named()), "sample_inputs/model.pt", payload.getvalue())
    for runtime in ("torch_export", "torch"):
        with pytest.raises(ModelNotLoaded):
            loaded(runtime, content)
    assert not (tmp_path / "canary").exists()
    loaded("torch_export", content, unpickle=True)
    assert (tmp_path / "canary").exists(), "if this ends, torch has become safe and the permission can go"


def test_an_exported_program_predicts_where_it_is_permitted(loaded):
    model = loaded("torch_export", exported(Named()), {"output": "sum"}, unpickle=True)
    for rows in (X, X[:1], np.zeros((7, 2), dtype=np.float32)):
        assert predict_rows(model, rows).outputs == rows.sum(axis=1).tolist()
