from importlib import metadata

import numpy as np
import pytest
from unit.gateway.rig import refused
from unit.gateway.wires import ROW, GrpcWire, HttpWire, Sent

from clipper_gateway.inference import query_of, response_parameters
from clipper_topics.prediction import Prediction
from clipper_topics.query import Query

ROWS = np.asarray([[0.5, 1.0], [0.25, 2.0]], "<f4")
TEXTS = b"\3\0\0\0gut\6\0\0\0sch\xc3\xb6n"


@pytest.fixture(params=[HttpWire, GrpcWire])
async def wire(request, one_loop):
    async with request.param() as wire:
        yield wire


# --- rows and outputs -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("model", "sent", "rows"),
    [
        ("digits", ROW, [[0.5, 1.0]]),
        ("digits", Sent([2, 2], data=[0.5, 1.0, 0.25, 2.0]), [[0.5, 1.0], [0.25, 2.0]]),
        ("digits", Sent([2, 2], raw=ROWS.tobytes()), [row.tobytes() for row in ROWS]),
        *(
            ("digits", Sent([1, 2], datatype, [1, 0]), [[1, 0]])
            for datatype in (*(f"{kind}{bits}" for kind in ("INT", "UINT") for bits in (8, 16, 32, 64)), "FP64")
        ),
        ("digits", Sent([1, 2], "BOOL", [True, False]), [[1, 0]]),
        ("texts", Sent([2], "BYTES", ["gut", "schön"]), ["gut", "schön"]),
        ("texts", Sent([2], "BYTES", raw=TEXTS), ["gut", "schön"]),
        ("images", Sent([1], "BYTES", [b"\xff\0"]), [{"base64": "/wA="}]),
        ("images", Sent([1], "BYTES", raw=b"\2\0\0\0\xff\0"), [{"base64": "/wA="}]),
    ],
)
async def test_the_rows_of_a_tensor_are_one_query(wire, model, sent, rows):
    await wire.infer(sent, model=model)
    given = {"input": rows[0]} if len(rows) == 1 else {"inputs": rows}
    assert wire.calls.query == Query(application=model, **given)


@pytest.mark.parametrize("sent", [Sent([2, 2], data=ROWS.ravel().tolist()), Sent([2, 2], raw=ROWS.tobytes())])
async def test_a_query_is_answered_in_the_form_in_which_it_was_asked(wire, sent):
    decided = {"query_id": "1-a", "confidence": 0.75, "default": False, "policy": "exp3", "models": "svm:1"}
    assert await wire.infer(sent) == {
        "model_name": "digits",
        "model_version": "3",
        "id": "r1",
        "parameters": decided | {"latency_ms": 4.5},
        "outputs": [{"name": "output", "datatype": "FP64", "shape": [2, 2], "data": [0.5, 1.0, 0.25, 2.0]}],
    }


@pytest.mark.parametrize(
    ("outputs", "datatype", "data"),
    [
        ([7], "INT64", [7]),
        ([True, False], "BOOL", [True, False]),
        ([0.5], "FP64", [0.5]),
        (["seven", "acht ü"], "BYTES", ["seven", "acht ü"]),
        ([{"label": 7}, None], "BYTES", ['{"label":7}', "null"]),
    ],
)
async def test_outputs_of_each_kind_are_a_tensor(wire, outputs, datatype, data):
    wire.calls.answer = {"outputs": outputs}
    (output,) = (await wire.infer(ROW))["outputs"]
    assert output.pop("parameters", {}) == ({"content_type": "json"} if None in outputs else {})
    assert output == {"name": "output", "datatype": datatype, "shape": [len(outputs)], "data": data}


async def test_a_default_output_says_so_and_why(wire):
    wire.calls.answer = {"default": True, "reason": "late"}
    assert (await wire.infer(ROW))["parameters"].items() >= {"default": True, "reason": "late"}.items()
    late = Prediction(query_id="1-a", application="digits", output=0, default=True, reason="late")
    assert "policy" not in response_parameters(late), "none has decided"


@pytest.mark.parametrize(
    ("model", "sent"),
    [
        ("digits", Sent([1, 3], data=[0.5, 1.0])),
        ("digits", Sent([1, 2], raw=b"1234567")),
        ("digits", Sent([1, 2], "FP8", [0.5, 1.0])),
        ("digits", Sent([1, 2], "INT8", [300, 1])),
        ("digits", Sent([1, 2], data=[0.5, 1.0], raw=b"12345678")),
        ("texts", Sent([1], data=[0.5])),
        ("texts", Sent([1], "BYTES", [b"\xff"])),
    ],
)
async def test_a_tensor_that_does_not_fit_is_refused(wire, model, sent):
    await refused(wire.infer(sent, model=model), 400)
    assert not wire.calls.asked


async def test_a_request_has_one_tensor_and_asks_for_the_only_output_or_for_none(wire):
    assert await wire.infer(ROW, outputs=["output"]) == await wire.infer(ROW)
    assert await wire.infer(ROW, outputs=["OUTPUT"]) == await wire.infer(ROW)
    for tensors, error in (([], "0 input"), ([ROW, ROW], "2 input")):
        await refused(wire.infer(*tensors), 400, error)
    await refused(wire.infer(ROW, outputs=["output", "scores"]), 400, "'scores': the only one is 'output'")


# --- parameters -----------------------------------------------------------------------------------------------------
async def test_parameters_say_how_the_query_is_asked(wire):
    said = {"context": "ada", "deadline_ms": 20, "models": "svm:1, forest", "features": "[1, 0.5]", "strict": True}
    await wire.infer(ROW, parameters=said | {"query_id": "order-7", "priority": 1})
    query, call = wire.calls.asked[0]
    assert (query.context, query.deadline_ms, query.query_id) == ("ada", 20, "order-7")
    assert (query.models, query.features, query.strict) == (["svm:1", "forest"], [1.0, 0.5], True)
    assert call.record_headers[0][0] == "correlation-id"


def test_parameters_of_json_may_be_lists_and_null():
    given = {"models": ["svm:1"], "features": [1, 0.5], "context": None, "strict": None, "binary_data_output": True}
    query = query_of("digits", [[0.5], [1.0]], given)
    assert (query.inputs, query.models, query.features, query.context) == ([[0.5], [1.0]], ["svm:1"], [1.0, 0.5], None)
    assert (query.query_id, query.strict) == (None, None)


WRONG = {"context": 1, "deadline_ms": "soon", "query_id": 7, "models": 1, "strict": "yes", "features": "[1,"}


@pytest.mark.parametrize(("name", "value"), [*WRONG.items(), ("features", '["a"]')])
async def test_a_parameter_of_another_type_is_refused_with_those_expected(wire, name, value):
    await refused(wire.infer(ROW, parameters={name: value}), 400, "features: a list of numbers")


async def test_an_idempotency_key_is_the_query_id_and_may_not_differ(wire):
    own = {"idempotency-key": "order-7"}
    for parameters in ({}, {"query_id": "order-7"}):
        await wire.infer(ROW, parameters=parameters, **own)
        assert wire.calls.query.query_id == "order-7"
    await refused(wire.infer(ROW, parameters={"query_id": "order-8"}, **own), 400, "differ")


# --- who, and what there is -----------------------------------------------------------------------------------------
async def test_anybody_may_ask_whether_the_server_lives_and_is_ready_and_nothing_else(wire):
    wire.headers = {}
    assert (await wire.ask("ServerLive"))["live"]
    assert (await wire.ask("ServerReady"))["ready"]
    for call in (wire.infer(ROW), wire.ask("ServerMetadata"), wire.ask("ModelReady", "digits")):
        assert (await refused(call, 401)).headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    ("right", "infer", "look"), [("predict", 200, 200), ("read", 403, 200), ("feedback", 403, 403)]
)
async def test_a_caller_needs_the_right_and_the_application(wire, right, infer, look):
    wire.headers = {"authorization": right}
    text = Sent([1], "BYTES", ["a"])
    for call, status in ((wire.infer(text, model="texts"), infer), (wire.ask("ModelMetadata", "texts"), look)):
        await (call if status == 200 else refused(call, status))
    for call in (
        wire.infer(ROW),
        wire.ask("ModelMetadata", "digits"),
        wire.ask("ModelMetadata", "unknown"),
        wire.ask("ModelReady", "digits"),
    ):
        await refused(call, 403)


async def test_an_unknown_application_or_version_is_not_found(wire):
    await wire.infer(ROW, version="3")
    await wire.ask("ModelMetadata", "digits", "3")
    assert (await wire.ask("ModelReady", "digits", "3"))["ready"]
    for name, version in (("digits", "2"), ("digits", "x"), ("nosuch", "")):
        for call in (
            wire.infer(ROW, model=name, version=version),
            wire.ask("ModelMetadata", name, version),
        ):
            await refused(call, 404)
        if isinstance(wire, GrpcWire):
            assert not (await wire.ask("ModelReady", name, version))["ready"]
        else:
            await refused(wire.ask("ModelReady", name, version), 404)
    assert len(wire.calls.asked) == 1


async def test_server_and_applications_are_described(wire):
    server = await wire.ask("ServerMetadata")
    assert (server["name"], server["version"]) == ("clipper-stream", metadata.version("clipper-stream"))
    assert await wire.ask("ModelMetadata", "texts") == {
        "name": "texts",
        "versions": ["1"],
        "platform": "clipper-stream",
        "inputs": [{"name": "input", "datatype": "BYTES", "shape": [-1]}],
        "outputs": [{"name": "output", "datatype": "BYTES", "shape": [-1]}],
    }
    assert (await wire.ask("ModelMetadata", "digits"))["inputs"] == [
        {"name": "input", "datatype": "FP32", "shape": [-1, 2]}
    ]
