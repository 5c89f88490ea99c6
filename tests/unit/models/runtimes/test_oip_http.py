import base64
import ssl

import numpy as np
import pytest
from stub_server import PATH, Answer, StubServer, serving

from clipper_stream.errors import ModelFailed, ModelNotLoaded
from clipper_stream.models.registry import check_allowed, load_model
from clipper_stream.models.runner import predict_rows
from clipper_stream.models.runtimes.oip_tensors import request_body

ROWS = np.array([[1.5, 2.0], [3.5, 4.0], [5.5, 6.0]], "float32")
FIRST = [1.5, 3.5, 5.5]


@pytest.fixture
def stub():
    with serving(StubServer()) as running:
        yield running


def loaded(stub, **parameters):
    return load_model("oip", stub.url, None, parameters, allowed=[stub.root])


def tensor(data, shape=None):
    return Answer({"outputs": [{"name": "y", "shape": shape or [len(data)], "datatype": "FP32", "data": data}]})


@pytest.mark.parametrize("shape", [(3,), (3, 2), (3, 2, 2)], ids=str)
@pytest.mark.parametrize(
    ("dtype", "datatype"),
    [("float32", "FP32"), ("float64", "FP64"), ("int32", "INT32"), ("int64", "INT64"), ("uint8", "UINT8")],
)
def test_a_batch_of_numbers_is_one_post_in_the_datatype_of_its_dtype_and_in_c_order(stub, dtype, datatype, shape):
    rows = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    outcome = predict_rows(loaded(stub), np.asfortranarray(rows))
    assert (outcome.outputs, outcome.failed, outcome.calls) == (rows.reshape(3, -1)[:, 0].tolist(), {}, 1)
    (asked,) = stub.batches
    assert (asked.method, asked.path) == ("POST", f"{PATH}/infer")
    sent = {"name": "input-0", "shape": list(shape), "datatype": datatype, "data": rows.ravel().tolist()}
    assert asked.body == {"inputs": [sent]}


@pytest.mark.parametrize(
    ("rows", "data", "content_type"),
    [
        (["a", "\u4f60\u597d", ""], ["a", "\u4f60\u597d", ""], "str"),
        ([b"\x00\xff", b""], [base64.b64encode(b"\x00\xff").decode(), ""], "base64"),
        ([{"a": [1, None]}, 2, None, "text"], ['{"a": [1, null]}', "2", "null", "text"], "str"),
    ],
    ids=["text", "bytes", "json"],
)
def test_other_rows_go_as_bytes_each_by_itself(stub, rows, data, content_type):
    predict_rows(loaded(stub), rows)
    (sent,) = stub.batches[0].body["inputs"]
    assert (sent["datatype"], sent["shape"], sent["data"]) == ("BYTES", [len(rows), 1], data)
    assert sent["parameters"] == {"content_type": content_type}


def test_rows_of_a_dtype_that_the_protocol_has_not_are_refused():
    with pytest.raises(ModelFailed, match="rows of dtype complex128: use one of float32"):
        request_body(np.zeros(2, complex), "x", None, None)


@pytest.mark.parametrize(
    ("data", "shape", "outputs"),
    [
        ([1, 2, 3], [3], [1, 2, 3]),
        ([1, 2, 3], [3, 1], [1, 2, 3]),
        ([[1], [2], [3]], [3, 1], [1, 2, 3]),
        ([1, 2, 3, 4, 5, 6], [3, 2], [[1, 2], [3, 4], [5, 6]]),
        ([[[1, 2]], [[3, 4]], [[5, 6]]], [3, 1, 2], [[[1, 2]], [[3, 4]], [[5, 6]]]),
        (["a", "b", "c"], [3], ["a", "b", "c"]),
        ([True, False, True], [3, 1], [True, False, True]),
        ([], [3, 0], [[], [], []]),
        ([1.0, float("nan"), None], [3], [1.0, None, None]),
    ],
)
def test_a_tensor_is_one_output_a_row_and_what_is_no_number_fails_its_row_alone(stub, data, shape, outputs):
    stub.infer = tensor(data, shape)
    outcome = predict_rows(loaded(stub), ROWS)
    assert (outcome.outputs, outcome.calls) == (outputs, 1)


ODD = {
    "no JSON": (Answer(b"<html>hello"), "does the URL lead to"),
    "nothing": (Answer(b""), "does the URL lead to"),
    "a list": (Answer([1]), "does the URL lead to"),
    "nested without end": (Answer(b"[" * 200_000), "does the URL lead to"),
    "no tensors": (Answer({}), "outputs None"),
    "an empty list of tensors": (Answer({"outputs": []}), r"tensors \[\]: name one"),
    "two tensors": (Answer({"outputs": [{"name": "a"}, {"name": "b"}]}), r"\['a', 'b'\]: name one of them"),
    "tensors that are none": (Answer({"outputs": [1]}), "with a list of tensors"),
    "too few rows": (tensor([1]), "gave 1 outputs for 3 rows"),
    "too many rows": (tensor([1, 2, 3, 4]), "gave 4 outputs for 3 rows"),
    "no shape": (Answer({"outputs": [{"name": "y", "data": [1, 2, 3]}]}), "shape None"),
    "a negative shape": (tensor([1, 2, 3], [3, -1]), "shape"),
    "a shape of truth": (tensor([1, 2, 3], [True]), "shape"),
    "a shape that is too large": (tensor([1, 2, 3], [3, 10**12]), "gave 3 values in a tensor of shape"),
    "data of another size": (tensor([1, 2, 3, 4], [3, 1]), "gave 4 values"),
    "data that is no list": (Answer({"outputs": [{"name": "y", "shape": [3], "data": "abc"}]}), "must be a list"),
    "lists beside values": (tensor([[1], 2, 3], [3, 1]), "stand side by side"),
    "the words of a server": (Answer({"error": "bad\ninput"}, 400), "answered 400: bad input"),
    "a page": (Answer(b"<h1>oops</h1>", 500), "answered 500: <h1>oops"),
    "no words": (Answer(b"", 422), "answered 422"),
}


@pytest.mark.parametrize("name", ODD)
def test_an_odd_answer_fails_the_batch_and_then_each_row(stub, name):
    answer, message = ODD[name]
    few = {1: tensor([7]), 2: tensor([7, 8])}
    stub.infer = lambda asked: few.get(asked.body["inputs"][0]["shape"][0], answer)
    model = loaded(stub)
    with pytest.raises(ModelFailed, match=message):
        model.predict_batch(ROWS)
    outcome = predict_rows(model, ROWS)
    assert (outcome.outputs, outcome.failed, outcome.calls) == ([7, 7, 8], {}, 3)


@pytest.mark.parametrize("status", [301, 302, 307, 401, 403, 404, 408, 429, 502, 503, 504])
def test_what_fails_for_all_rows_is_asked_once_and_not_row_by_row(stub, status):
    model = loaded(stub)
    stub.infer = Answer({"error": "no"}, status, {"location": "http://127.0.0.1:1/elsewhere"})
    outcome = predict_rows(model, ROWS)
    assert (outcome.outputs, [*outcome.failed]) == ([None] * 3, [0, 1, 2])
    assert outcome.failed[0] == f"ModelUnavailable: the server answered {status}: no (POST {PATH}/infer)"
    assert len(stub.batches) == outcome.calls == 1


LONG = {"content-length": "9999"}


def dripping(stub):
    while not stub.let_go.wait(0.01):
        yield b" "


ENDLESS = {
    "it hangs up": ({}, lambda stub: None, "the server cannot be asked, ProtocolError", 2),
    "it gives too little": ({}, lambda stub: Answer(headers=LONG, close=True), "the server cannot be asked", 2),
    "it is silent": ({"timeout_s": 0.2}, lambda stub: stub.let_go.wait(30) and None, "no answer after 0.2 s: raise", 1),
    "it drips": ({"timeout_s": 0.3}, lambda stub: Answer(dripping(stub), headers=LONG), "no whole answer after 0.3", 1),
    "it is large": ({"max_response_mib": 1}, lambda stub: Answer(b" " * (2**20 + 1)), "more than 1 MiB: raise", 1),
}


@pytest.mark.parametrize("name", ENDLESS)
def test_an_answer_that_does_not_come_whole_is_given_up_for_all_rows(stub, name):
    parameters, given, why, posts = ENDLESS[name]
    model = loaded(stub, **parameters)
    stub.infer = lambda _: given(stub)
    outcome = predict_rows(model, ROWS)
    assert why in outcome.failed[0]
    assert (outcome.outputs, outcome.calls, len(stub.batches)) == ([None] * 3, 1, posts)
    stub.infer = tensor([1, 2, 3])
    assert predict_rows(model, ROWS).outputs == [1, 2, 3], "the next batch has a connection of its own"


def test_a_connection_is_kept_and_opened_anew_when_the_server_has_closed_it(stub):
    model = loaded(stub)
    for _ in range(5):
        assert predict_rows(model, ROWS).outputs == FIRST
    assert len({asked.connection for asked in stub.asked}) == 1
    assert len(stub.asked) == 7, "ready, metadata, five batches"
    answers = [None, tensor([7, 8, 9])]
    stub.infer = lambda _: answers.pop(0)
    assert predict_rows(model, ROWS).outputs == [7, 8, 9]
    assert len(stub.batches) == 7


def test_a_server_that_is_gone_is_explained_and_costs_one_attempt_a_batch():
    with serving(StubServer(metadata=Answer(close=True))) as stub:
        model = loaded(stub)
    outcome = predict_rows(model, ROWS)
    assert outcome.calls == 1
    assert "the server cannot be asked, NewConnectionError" in outcome.failed[2]
    with pytest.raises(ModelNotLoaded, match=r"NewConnectionError.*; start it, or correct the uri"):
        loaded(stub)


@pytest.mark.parametrize(
    ("about", "answer", "message"),
    [
        ("ready", Answer({"error": "digits not found"}, 404), "not ready, it answered 404: digits not found"),
        ("ready", Answer({}, 503), "not ready, it answered 503"),
        ("ready", Answer({"name": "digits", "ready": False}), "is not ready, it answered 200"),
        ("ready", Answer({}, 401), "correct its name, version or token"),
        ("metadata", Answer({"inputs": [{"name": "a"}, {"name": "b"}]}), r"\['a', 'b'\].*parameters.input"),
    ],
)
def test_a_model_is_loaded_when_its_server_is_ready_and_takes_one_tensor(stub, about, answer, message):
    setattr(stub, about, answer)
    with pytest.raises(ModelNotLoaded, match=message):
        loaded(stub)
    assert [asked.path for asked in stub.asked] == [f"{PATH}/ready", PATH][: 1 + (about == "metadata")]


def test_the_name_of_the_input_is_the_one_that_the_server_declares(stub):
    pixels = Answer({"name": "digits", "inputs": [{"name": "pixels", "datatype": "FP32", "shape": [-1, 2]}]})
    odd = [Answer([1]), Answer(b"<p>"), Answer({}, 404), Answer({"inputs": [1, {}]}), None]
    declared = [(pixels, {}, "pixels"), (pixels, {"input": "other"}, "other"), *((each, {}, "input-0") for each in odd)]
    for stub.metadata, parameters, name in declared:
        predict_rows(loaded(stub, **parameters), ROWS)
        assert stub.batches[-1].body["inputs"][0]["name"] == name


def test_one_tensor_of_several_is_chosen_by_name(stub):
    two = [{"name": name, "shape": [3], "data": data} for name, data in (("a", [1, 2, 3]), ("b", [4, 5, 6]))]
    stub.infer = Answer({"outputs": two})
    assert predict_rows(loaded(stub, output="b"), ROWS).outputs == [4, 5, 6]
    assert stub.batches[0].body["outputs"] == [{"name": "b"}]


def test_a_token_comes_from_the_environment_and_is_shown_nowhere(stub, monkeypatch):
    monkeypatch.setenv("CLIPPER_OIP_TOKEN_DIGITS", "s3cret\n")
    model = loaded(stub, token_env="CLIPPER_OIP_TOKEN_DIGITS")
    stub.infer = Answer({"error": "no"}, 401)
    assert "s3cret" not in f"{model!r} {predict_rows(model, ROWS).failed}"
    assert [asked.headers["authorization"] for asked in stub.asked] == ["Bearer s3cret"] * 3


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"token": "s3cret"}, "parameter 'token' of the runtime oip: did you mean token_env"),
        ({"timeout_s": float("nan")}, "timeout_s is nan"),
        ({"token_env": "KAFKA_SASL_PASSWORD"}, "begins with CLIPPER_OIP_TOKEN"),
        ({"token_env": "clipper_oip_token"}, "begins with CLIPPER_OIP_TOKEN"),
        ({"token_env": "CLIPPER_OIP_TOKEN=x"}, "begins with CLIPPER_OIP_TOKEN"),
        ({"token_env": "CLIPPER_OIP_TOKEN"}, "CLIPPER_OIP_TOKEN is not set"),
        ({"token_env": "CLIPPER_OIP_TOKEN_A"}, "variable CLIPPER_OIP_TOKEN_A has a character"),
        ({"token_env": "CLIPPER_OIP_TOKEN_B"}, "variable CLIPPER_OIP_TOKEN_B has a character"),
    ],
)
def test_secrets_and_what_cannot_be_sent_are_refused_before_anything_is_sent(stub, monkeypatch, parameters, message):
    tokens = {"CLIPPER_OIP_TOKEN": " ", "CLIPPER_OIP_TOKEN_A": "s3c\nret", "CLIPPER_OIP_TOKEN_B": "s3cr\u00e9t"}
    for name, value in {"KAFKA_SASL_PASSWORD": "s3cret", **tokens}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ModelNotLoaded, match=message) as told:
        loaded(stub, **parameters)
    assert stub.asked == []
    assert "s3c" not in str(told.value)


def test_a_url_that_is_no_model_is_refused():
    for path in ("", "/v2/models/", "/v2/models/a/infer", "/v1/models/a", "/v2/models/a?x=y", "/v2/models/.."):
        for allowed in (None, [f"http://h{path}"], ["http://h"]):
            with pytest.raises(ModelNotLoaded, match="takes http://HOST:PORT/v2/models/NAME"):
                load_model("oip", f"http://h{path}", None, {}, allowed=allowed)


def test_a_manifest_asks_no_server_that_the_operator_has_not_named(stub):
    for allowed in ([], ["acme.models", "/srv"], [f"http://127.0.0.1:{stub.port + 1}"], [f"{stub.url}2"]):
        with pytest.raises(ModelNotLoaded, match="outside of what this process may load"):
            load_model("oip", stub.url, None, {}, allowed=allowed)
    assert stub.asked == []
    check_allowed("oip", f"{stub.url}/versions/2", {}, [stub.url])


def test_proxies_of_the_environment_are_not_asked(stub, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert predict_rows(loaded(stub), ROWS).outputs == FIRST


def test_a_certificate_that_nobody_vouches_for_is_refused(tmp_path, monkeypatch):
    import trustme

    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with serving(StubServer(), context) as stub:
        uri = stub.url.replace("http:", "https:")
        with pytest.raises(ModelNotLoaded, match="CERTIFICATE_VERIFY_FAILED"):
            load_model("oip", uri, None, {}, allowed=[uri])
        assert stub.asked == []
        authority.cert_pem.write_to_path(tmp_path / "ca.pem")
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        assert predict_rows(load_model("oip", uri, None, {}, allowed=[uri]), ROWS).outputs == FIRST
