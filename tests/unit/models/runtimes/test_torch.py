"""The runtime `torch` runs TorchScript and unpickles nothing; `torch_export` does, so it needs a permission.

Torch is an optional extra that CI does not install; `test_extras` says whether it is here.
"""

import hashlib
import io
import pickle
import zipfile
from typing import Any

import numpy as np
import pytest
from builders.pickles import Canary

from clipper_stream.errors import ModelNotLoaded
from clipper_stream.models.registry import load_model
from clipper_stream.models.runner import predict_rows
from clipper_stream.models.runtimes.model_files import FileRules

torch: Any = pytest.importorskip("torch")
pytestmark = [pytest.mark.runtime, pytest.mark.filterwarnings("ignore")]
PERMITTED = FileRules(unpickle=True)
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


def scripted(module):
    content = io.BytesIO()
    torch.jit.save(torch.jit.script(module), content)
    return content.getvalue()


def exported(module):
    content = io.BytesIO()
    rows = torch.export.Dim("rows")
    torch.export.save(torch.export.export(module, (torch.zeros(3, 2),), dynamic_shapes=({0: rows},)), content)
    return content.getvalue()


def with_member(content, ending, payload):
    """The archive with another content of one of its members."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as archive, zipfile.ZipFile(out, "w") as changed:
        names = [name for name in archive.namelist() if name.endswith(ending)]
        assert names
        for name in archive.namelist():
            changed.writestr(name, payload if name in names else archive.read(name))
    return out.getvalue()


def loaded(tmp_path, runtime, content, parameters=None, **how):
    path = tmp_path / "model.pt"
    path.write_bytes(content)
    return load_model(runtime, str(path), hashlib.sha256(content).hexdigest(), parameters, **how)


def test_a_scripted_module_is_one_call_and_gives_plain_values(tmp_path):
    outcome = predict_rows(loaded(tmp_path, "torch", scripted(Scores())), X)
    assert outcome.outputs == [[4.0, 3.0], [1.0, 2.0]]
    assert outcome.calls == 1
    labels = {"labels": ["first", "second"], "threads": 1}
    assert predict_rows(loaded(tmp_path, "torch", scripted(Scores()), labels), X).outputs == ["first", "second"]


def test_an_output_of_a_dictionary_is_named(tmp_path):
    assert predict_rows(loaded(tmp_path, "torch", scripted(Named()), {"output": "sum"}), X).outputs == [5.0, 1.0]
    assert predict_rows(loaded(tmp_path, "torch", scripted(Named()), {"output": "first"}), X).outputs == [3.0, 0.0]
    assert "gave a dict with sum, first" in predict_rows(loaded(tmp_path, "torch", scripted(Named())), X).failed[0]


def test_texts_are_given_as_a_list(tmp_path):
    assert predict_rows(loaded(tmp_path, "torch", scripted(Lengths())), ["abc", ""]).outputs == [3, 0]


def test_a_row_that_the_module_refuses_fails_alone(tmp_path):
    outcome = predict_rows(loaded(tmp_path, "torch", scripted(Scores())), np.array([[1, 2], [np.nan, 0], [3, 4]]))
    assert outcome.outputs == [[2.0, 3.0], None, [4.0, 5.0]]
    assert "rows are finite" in outcome.failed[1]


@pytest.mark.parametrize("ending", ["data.pkl", "constants.pkl", ".debug_pkl"])
@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_a_pickle_in_a_scripted_module_does_not_run(tmp_path, ending, protocol):
    payload = pickle.dumps(Canary(tmp_path / "canary"), protocol)
    try:
        model = loaded(tmp_path, "torch", with_member(scripted(Scores()), ending, payload))
    except ModelNotLoaded:
        assert ending != ".debug_pkl", "which is read when something fails"
    else:
        assert predict_rows(model, np.array([[np.nan]])).failed
    assert not (tmp_path / "canary").exists()


def test_what_torch_save_wrote_is_refused_and_does_not_run(tmp_path):
    for legacy in (False, True):
        content = io.BytesIO()
        torch.save(Canary(tmp_path / "canary"), content, _use_new_zipfile_serialization=not legacy)
        with pytest.raises(ModelNotLoaded, match=r"torch.jit.script\(module\).save"):
            loaded(tmp_path, "torch", content.getvalue())
    with pytest.raises(ModelNotLoaded):
        loaded(tmp_path, "torch", pickle.dumps(Canary(tmp_path / "canary")))
    assert not (tmp_path / "canary").exists()


def test_an_exported_program_needs_a_permission_because_torch_unpickles_it(tmp_path):
    payload = io.BytesIO()
    torch.save(((Canary(tmp_path / "canary"),), {}), payload)
    content = with_member(exported(Named()), "sample_inputs/model.pt", payload.getvalue())
    for runtime in ("torch_export", "torch"):
        with pytest.raises(ModelNotLoaded):
            loaded(tmp_path, runtime, content)
    assert not (tmp_path / "canary").exists()
    loaded(tmp_path, "torch_export", content, files=PERMITTED)
    assert (tmp_path / "canary").exists(), "if this ends, torch has become safe and the permission can go"


def test_an_exported_program_predicts_where_it_is_permitted(tmp_path):
    model = loaded(tmp_path, "torch_export", exported(Named()), {"output": "sum"}, files=PERMITTED)
    for rows in (X, X[:1], np.zeros((7, 2), dtype=np.float32)):
        assert predict_rows(model, rows).outputs == rows.sum(axis=1).tolist()
