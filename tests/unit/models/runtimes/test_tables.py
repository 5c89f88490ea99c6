"""Rows of a table reach each runtime as what its library was fitted with, whatever its neighbours are."""

import json

import joblib
import lightgbm
import numpy as np
import pandas as pd
import pytest
import skl2onnx
import skops.io
import xgboost
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder

from clipper_stream.errors import ModelNotLoaded
from clipper_stream.models.registry import load_model
from clipper_stream.models.row_spec import Column, RowSpec
from clipper_stream.models.runner import predict_rows
from clipper_stream.models.runtimes.tables import frame_maker

CITIES = ["Lima", "Oslo", "Rome"]
RNG = np.random.default_rng(0)
AGES, INCOMES, PLACES = RNG.uniform(20, 60, 300), RNG.normal(size=300), RNG.integers(0, 3, 300)
FRAME = pd.DataFrame({"age": AGES, "city": [CITIES[place] for place in PLACES], "income": INCOMES})
TRUTH = AGES + 100 * PLACES
NUMBERS = FRAME[["income", "age"]]
COLUMNS = (Column("city", "text"), Column("since", "date"), Column("income"), Column("age"))
"""Declared in another order than any model was fitted with, and one more."""
ROWS = [
    {"city": "Rome", "since": None, "income": 0.5, "age": 30.0},
    {"city": "Lima", "since": None, "income": -0.5, "age": 50.0},
    {"city": None, "since": None, "income": None, "age": None},
    {"city": "Nowhere", "since": None, "income": 0.0, "age": 40.0},
]
pytestmark = pytest.mark.filterwarnings("ignore")


def pipeline(handle_unknown="ignore"):
    impute = SimpleImputer(strategy="most_frequent")
    encode = make_pipeline(impute, OneHotEncoder(handle_unknown=handle_unknown))
    columns = ColumnTransformer([("numbers", SimpleImputer(), ["age", "income"]), ("texts", encode, ["city"])])
    return make_pipeline(columns, LinearRegression()).fit(FRAME, TRUTH)


PIPELINE = pipeline()


@pytest.fixture
def table(loaded):
    """Loads a model of columns, by default all of `COLUMNS`, from the bytes of its file."""

    def load(runtime, content, parameters=None, columns=COLUMNS):
        return loaded(runtime, content, parameters, unpickle=True, columns=columns)

    return load


def booster(library, frame=NUMBERS, **parameters):
    data = (library.Dataset if library is lightgbm else library.DMatrix)(frame, TRUTH)
    return library.train({"verbosity": -1} if library is lightgbm else {}, data, 20)


def bytes_of(model, tmp_path):
    name = tmp_path / ("model.txt" if isinstance(model, lightgbm.Booster) else "model.ubj")
    model.save_model(name)
    return name.read_bytes()


def with_cities(frame=FRAME):
    return frame.assign(city=frame.city.astype(pd.CategoricalDtype(CITIES)))


def frame_of(rows, names):
    frame = pd.DataFrame(rows)[names]
    return frame.assign(**{name: frame[name].astype(float) for name in names if name != "city"})


# --- what each library is given ---------------------------------------------------------------------------------------
def test_a_pipeline_of_named_columns_answers_as_it_does_for_a_data_frame(table):
    expected = PIPELINE.predict(frame_of(ROWS, ["age", "city", "income"]).fillna({"city": np.nan}))
    model = table("sklearn", skops.io.dumps(PIPELINE))
    outcome = predict_rows(model, ROWS)
    np.testing.assert_allclose(outcome.outputs, expected)
    alone = [predict_rows(model, [row]).outputs[0] for row in ROWS]
    np.testing.assert_allclose(alone, expected)
    assert (outcome.failed, outcome.calls) == ({}, 1)


def test_a_row_that_an_estimator_refuses_fails_alone(table):
    model = table("sklearn", skops.io.dumps(pipeline(handle_unknown="error")))
    outcome = predict_rows(model, ROWS)
    assert list(outcome.failed) == [3]
    assert "unknown categories ['Nowhere']" in outcome.failed[3]
    regression = LinearRegression().fit(NUMBERS, TRUTH)
    outcome = predict_rows(table("sklearn", skops.io.dumps(regression)), ROWS)
    assert list(outcome.failed) == [2]
    assert "contains NaN" in outcome.failed[2]


@pytest.mark.parametrize(
    ("library", "frame"), [(lightgbm, with_cities()), (lightgbm, NUMBERS), (xgboost, NUMBERS)],
    ids=["categories", "LightGBM", "XGBoost"],
)  # fmt: skip
def test_a_booster_answers_as_it_does_for_a_data_frame(table, tmp_path, library, frame):
    trained = booster(library, frame)
    asked = frame_of(ROWS, list(frame.columns))
    asked = with_cities(asked) if "city" in asked else asked
    expected = trained.predict(asked) if library is lightgbm else trained.inplace_predict(asked)
    outcome = predict_rows(table(library.__name__, bytes_of(trained, tmp_path)), ROWS)
    np.testing.assert_allclose(outcome.outputs, expected, rtol=1e-6)
    assert outcome.failed == {}


def test_columns_whose_names_have_spaces_are_found_as_lightgbm_writes_them(table, tmp_path):
    content = bytes_of(booster(lightgbm, NUMBERS.rename(columns={"age": "age in years"})), tmp_path)
    model = table("lightgbm", content, columns=(Column("age in years"), Column("income")))
    assert predict_rows(model, [{"age in years": 30.0, "income": 0.0}]).failed == {}


@pytest.mark.parametrize("runtime", ["lightgbm", "xgboost", "joblib"])
def test_a_model_without_names_is_given_the_declared_order(table, tmp_path, runtime):
    matrix, columns = NUMBERS.to_numpy(), (Column("income"), Column("age"))
    if runtime == "joblib":
        joblib.dump(LinearRegression().fit(matrix, TRUTH), tmp_path / "model")
        content = (tmp_path / "model").read_bytes()
    else:
        content = bytes_of(booster({"lightgbm": lightgbm, "xgboost": xgboost}[runtime], matrix), tmp_path)
    model = table(runtime, content, columns=columns)
    asked = np.array([[0.5, 30.0]])
    expected = predict_rows(table(runtime, content, columns=()), asked).outputs
    np.testing.assert_allclose(predict_rows(model, ROWS[:1]).outputs, expected)


def test_onnx_is_given_an_array_an_input_or_one_matrix_of_numbers(table):
    typed = [(name, skl2onnx.common.data_types.FloatTensorType([None, 1])) for name in ("age", "income")]
    text = [("city", skl2onnx.common.data_types.StringTensorType([None, 1]))]
    columns = ColumnTransformer([("numbers", "passthrough", ["age", "income"]), ("texts", OneHotEncoder(), ["city"])])
    fitted = make_pipeline(columns, LinearRegression()).fit(FRAME, TRUTH)
    content = skl2onnx.to_onnx(fitted, initial_types=[*typed, *text]).SerializeToString()
    outcome = predict_rows(table("onnx", content), ROWS)
    known = frame_of(ROWS[:2], ["age", "city", "income"])
    np.testing.assert_allclose(outcome.outputs[:2], fitted.predict(known), rtol=1e-4)
    assert outcome.failed[2] == "ModelFailed: input city has no missing values, and the row has one: give a value"
    assert "Unknown Category" in outcome.failed[3]
    assert sorted(outcome.failed) == [2, 3]

    matrix = NUMBERS.to_numpy(np.float32)
    regression = LinearRegression().fit(matrix, TRUTH)
    content = skl2onnx.to_onnx(regression, matrix[:1]).SerializeToString()
    outcome = predict_rows(table("onnx", content, columns=(Column("income"), Column("age"))), ROWS)
    np.testing.assert_allclose(outcome.outputs[0], regression.predict([[0.5, 30.0]])[0], rtol=1e-4)
    assert outcome.failed == {2: "the output is nan: give a finite number"}


def test_the_types_of_a_data_frame_are_the_declared_ones_also_where_every_value_is_missing():
    columns = (Column("since", "date"), Column("age"), Column("city", "text"))
    dated = {"since": "2026-01-31T09:30:00", "age": 1.0, "city": "Rome"}
    make = frame_maker(columns)
    nothing = dict.fromkeys(dated)
    for rows, texts in (([dated, nothing], ["2026-01-31 09:30:00", "NaT"]), ([nothing], ["NaT"])):
        frame = make(rows)
        assert [frame[name].dtype.kind for name in ("since", "age")] == ["M", "f"]
        assert frame.city.dtype.kind == "O"
        assert [str(value) for value in frame.since] == texts
        assert frame.city.isna().tolist() == frame.age.isna().tolist() == frame.since.isna().tolist()


def test_a_function_is_given_dictionaries_of_all_declared_columns(module):
    name = module("def cities(rows): return [row['city'] or str(len(row)) for row in rows]")
    model = load_model("python", f"{name}:cities", columns=COLUMNS)
    assert predict_rows(model, ROWS).outputs == ["Rome", "Lima", "4", "Nowhere"]


# --- what is refused when it is loaded --------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("make", "columns", "said"),
    [
        (lambda: PIPELINE, (Column("age"),), r"fitted with the columns age, city, income, .* \['city', 'income'\]"),
        (lambda: booster(lightgbm), (Column("age"),), r"fitted with the columns income, age, .* \['income'\]"),
        (lambda: booster(lightgbm), (Column("age", "text"), Column("income")), r"numbers in all but 0 .*\['age'\]"),
        (lambda: booster(xgboost), (Column("age", "date"), Column("income")), r"\['age'\]: encode them"),
        (lambda: booster(lightgbm, with_cities()), COLUMNS[2:], r"does not declare \['city'\]"),
        (lambda: booster(lightgbm, NUMBERS.to_numpy()), COLUMNS[3:], "declares 1 columns, .* fitted with 2"),
        (lambda: LinearRegression().fit(NUMBERS.to_numpy(), TRUTH), COLUMNS[:1] * 2, "encode them"),
    ],
)
def test_columns_that_a_model_cannot_take_are_refused_when_it_is_loaded(table, tmp_path, make, columns, said):
    model = make()
    runtime = type(model).__module__.partition(".")[0]
    content = skops.io.dumps(model) if runtime == "sklearn" else bytes_of(model, tmp_path)
    with pytest.raises(ModelNotLoaded, match=said):
        table(runtime, content, columns=columns)


# --- what a model says that it was fitted with ------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("make", "row"),
    [
        (lambda: PIPELINE, RowSpec("table", columns=[("age",), ("city", "text"), ("income",)])),
        (lambda: LinearRegression().fit(NUMBERS.to_numpy(), TRUTH), RowSpec(shape=[2])),
        (
            lambda: booster(lightgbm, with_cities()),
            RowSpec("table", columns=[("age",), ("city", "text"), ("income",)], missing=True),
        ),
        (lambda: booster(lightgbm, NUMBERS.to_numpy()), RowSpec(shape=[2], missing=True)),
        (lambda: booster(xgboost), RowSpec("table", columns=[("income",), ("age",)], missing=True)),
    ],
)
def test_a_model_says_what_it_was_fitted_with(loaded, tmp_path, make, row):
    model = make()
    runtime = type(model).__module__.partition(".")[0]
    content = skops.io.dumps(model) if runtime == "sklearn" else bytes_of(model, tmp_path)
    assert loaded(runtime, content).fitted_row == row


def test_types_that_are_not_trusted_are_named_as_a_manifest_names_them(loaded):
    content = skops.io.dumps(make_pipeline(FunctionTransformer(json.dumps), LinearRegression().fit(NUMBERS, TRUTH)))
    with pytest.raises(ModelNotLoaded, match=r'write parameters = \{ trusted = \["json.dumps"\] \}'):
        loaded("sklearn", content)
