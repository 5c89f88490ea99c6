"""The runtime `oip` asks a server of the Open Inference Protocol, and survives whatever it answers."""

import base64
import json
import sys

import numpy as np
import pytest
from stub_server import PATH, Answer, StubServer, serving

from clipper_stream.errors import ModelFailed, ModelNotLoaded, ModelUnavailable
from clipper_stream.models.registry import check_allowed, load_model
from clipper_stream.models.runner import predict_rows
from clipper_stream.models.runtimes.oip_tensors import outputs_of, request_body

pytestmark = pytest.mark.runtime
pytest.importorskip("urllib3", reason="the extra oip is not installed")

ROWS = np.array([[1.5, 2.0], [3.5, 4.0], [5.5, 6.0]], "float32")


@pytest.fixture
def stub():
    with serving(StubServer()) as running:
        yield running


def loaded(stub, **parameters):
    return load_model("oip", stub.url, None, parameters, allowed=[f"http://127.0.0.1:{stub.port}"])


def tensor(data, shape=None, **others):
    return Answer(
        {"outputs": [{"name": "y", "shape": shape or [len(data)], "datatype": "FP32", "data": data}], **others}
    )


def test_a_batch_is_one_post_and_one_output_a_row(stub):
    outcome = predict_rows(loaded(stub), ROWS)
    assert (outcome.outputs, outcome.failed, outcome.calls) == ([1.5, 3.5, 5.5], {}, 1)
    (asked,) = stub.batches
    assert (asked.method, asked.path) == ("POST", f"{PATH}/infer")
    (sent,) = asked.body["inputs"]
    assert sent == {"name": "input-0", "shape": [3, 2], "datatype": "FP32", "data": [1.5, 2.0, 3.5, 4.0, 5.5, 6.0]}


@pytest.mark.parametrize(
    ("dtype", "datatype"),
    [("float32", "FP32"), ("float64", "FP64"), ("int32", "INT32"), ("int64", "INT64"), ("uint8", "UINT8")],
)
@pytest.mark.parametrize("shape", [(3,), (3, 2), (3, 2, 2)], ids=str)
def test_numbers_go_in_the_datatype_of_their_dtype_in_c_order(stub, dtype, datatype, shape):
    rows = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    assert predict_rows(loaded(stub), np.asfortranarray(rows)).outputs == rows.reshape(3, -1)[:, 0].tolist()
    (sent,) = stub.batches[0].body["inputs"]
    assert (sent["datatype"], sent["shape"]) == (datatype, list(shape))
    assert sent["data"] == rows.ravel().tolist()


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
    ],
)
def test_a_tensor_is_one_output_a_row(stub, data, shape, outputs):
    stub.infer = lambda _: tensor(data, shape)
    assert predict_rows(loaded(stub), ROWS).outputs == outputs


ODD = {
    "no JSON": (Answer(b"<html>hello"), "gave no JSON"),
    "nothing": (Answer(b""), "gave no JSON"),
    "a list": (Answer([1]), "does the URL lead to"),
    "nested without end": (Answer(b"[" * 200_000), "gave no JSON"),
    "no tensors": (Answer({}), "outputs None"),
    "an empty list of tensors": (Answer({"outputs": []}), r"tensors \[\]: name one"),
    "two tensors": (Answer({"outputs": [{"name": "a"}, {"name": "b"}]}), r"\['a', 'b'\]: name one of them"),
    "tensors that are none": (Answer({"outputs": [1]}), "must be a list of tensors"),
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
    stub.infer = lambda asked: answer if asked.body["inputs"][0]["shape"][0] == 3 else tensor([7, 8][: rows_in(asked)])
    model = loaded(stub)
    with pytest.raises(ModelFailed, match=message):
        model.predict_batch(ROWS)
    outcome = predict_rows(model, ROWS)
    assert (outcome.outputs, outcome.failed, outcome.calls) == ([7, 7, 8], {}, 3)


def rows_in(asked):
    return asked.body["inputs"][0]["shape"][0]


def test_a_row_that_the_server_refuses_fails_alone(stub):
    def refuse(asked):
        numbers = asked.body["inputs"][0]["data"]
        return Answer({"error": "no 3.5, please"}, 400) if 3.5 in numbers else tensor(numbers[::2])

    stub.infer = refuse
    outcome = predict_rows(loaded(stub), ROWS)
    assert outcome.outputs == [1.5, None, 5.5]
    assert outcome.failed == {1: "ModelFailed: the server answered 400: no 3.5, please"}


def test_an_output_that_is_no_number_fails_its_row_alone(stub):
    stub.infer = lambda _: Answer(b'{"outputs":[{"name":"y","shape":[3],"data":[1.0, NaN, null]}]}')
    outcome = predict_rows(loaded(stub), ROWS)
    assert outcome.outputs == [1.0, None, None]
    assert outcome.calls == 1


@pytest.mark.parametrize("status", [301, 302, 307, 401, 403, 404, 408, 429, 502, 503, 504])
def test_what_fails_for_all_rows_is_asked_once_and_not_row_by_row(stub, status):
    model = loaded(stub)
    stub.infer = lambda _: Answer({"error": "no"}, status, {"location": "http://127.0.0.1:1/elsewhere"})
    outcome = predict_rows(model, ROWS)
    assert outcome.outputs == [None] * 3
    assert set(outcome.failed) == {0, 1, 2}
    assert outcome.failed[0] == f"ModelUnavailable: the server answered {status}: no (POST {PATH}/infer)"
    assert len(stub.batches) == outcome.calls == 1


def test_a_server_that_went_away_costs_one_attempt_a_batch():
    with serving(StubServer(metadata=Answer(close=True))) as stub:
        model = loaded(stub)
    outcome = predict_rows(model, ROWS)
    assert outcome.calls == 1
    assert "the server cannot be asked, NewConnectionError" in outcome.failed[2]


def test_a_silent_server_is_left_after_the_manifests_timeout(stub):
    def hang(_):
        stub.let_go.wait(30)
        return Answer()

    model = loaded(stub, timeout_s=0.1)
    stub.infer = hang
    outcome = predict_rows(model, ROWS)
    assert outcome.failed[0] == "ModelUnavailable: no answer after 0.1 s: raise parameters.timeout_s"
    assert outcome.calls == 1


def test_a_server_that_gives_a_byte_now_and_then_is_left_too(stub):
    model = loaded(stub, timeout_s=60)
    model.exchange._check(1, until_s=float("inf"))
    with pytest.raises(ModelUnavailable, match="no whole answer after 60 s"):
        model.exchange._check(1, until_s=0.0)


def test_an_answer_of_more_than_the_manifest_allows_is_not_read_to_its_end(stub):
    model = loaded(stub, max_response_mib=1)
    stub.infer = lambda _: Answer(b" " * (2**20 + 1))
    assert "has more than 1 MiB: raise parameters.max_response_mib" in predict_rows(model, ROWS).failed[0]
    stub.infer = lambda _: tensor([1, 2, 3])
    assert predict_rows(model, ROWS).outputs == [1, 2, 3], "the next batch has a connection of its own"


def test_an_answer_that_announces_more_than_it_gives_is_no_answer(stub):
    model = loaded(stub)
    stub.infer = lambda _: Answer({"outputs": []}, headers={"content-length": "1000"}, close=True)
    outcome = predict_rows(model, ROWS)
    assert "the server cannot be asked" in outcome.failed[0]
    assert outcome.calls == 1


def test_a_connection_is_kept_from_batch_to_batch(stub):
    model = loaded(stub)
    for _ in range(5):
        assert predict_rows(model, ROWS).outputs == [1.5, 3.5, 5.5]
    assert len({asked.connection for asked in stub.asked}) == 1
    assert len(stub.asked) == 7, "ready, metadata, five batches"


def test_a_kept_connection_that_the_server_closed_is_opened_anew(stub):
    model = loaded(stub)
    first = predict_rows(model, ROWS)
    answers = [None, tensor([7, 8, 9])]
    stub.infer = lambda _: answers.pop(0)
    assert predict_rows(model, ROWS).outputs == [7, 8, 9]
    assert first.outputs == [1.5, 3.5, 5.5]
    assert len(stub.batches) == 3


def test_a_server_that_hangs_up_each_time_is_asked_twice_and_no_more(stub):
    model = loaded(stub)
    stub.infer = lambda _: None
    assert "the server cannot be asked, ProtocolError" in predict_rows(model, ROWS).failed[0]
    assert len(stub.batches) == 2


@pytest.mark.parametrize(
    ("ready", "message"),
    [
        (Answer({"error": "Model digits not found"}, 404), "not ready, it answered 404: Model digits not found"),
        (Answer({}, 503), "not ready, it answered 503"),
        (Answer({"name": "digits", "ready": False}), "is not ready, it answered 200"),
        (Answer({}, 401), "correct its name, version or token"),
    ],
)
def test_a_model_is_loaded_when_its_server_is_ready(stub, ready, message):
    stub.ready = ready
    with pytest.raises(ModelNotLoaded, match=message):
        loaded(stub)
    assert [asked.path for asked in stub.asked] == [f"{PATH}/ready"]


def test_a_server_that_is_not_there_is_explained():
    with serving(StubServer()) as stub:
        pass
    with pytest.raises(ModelNotLoaded, match=r"NewConnectionError.*; start it, or correct the uri"):
        loaded(stub)


def test_the_name_of_the_input_is_the_one_that_the_server_declares(stub):
    stub.metadata = Answer({"name": "digits", "inputs": [{"name": "pixels", "datatype": "FP32", "shape": [-1, 2]}]})
    predict_rows(loaded(stub), ROWS)
    predict_rows(loaded(stub, input="other"), ROWS)
    assert [asked.body["inputs"][0]["name"] for asked in stub.batches] == ["pixels", "other"]


def test_a_model_of_two_inputs_is_refused(stub):
    stub.metadata = Answer({"inputs": [{"name": "a"}, {"name": "b"}]})
    with pytest.raises(ModelNotLoaded, match=r"takes the tensors \['a', 'b'\], and a row is one tensor"):
        loaded(stub)


@pytest.mark.parametrize("metadata", [Answer([1]), Answer(b"<p>"), Answer({}, 404), Answer({"inputs": [1, {}]})])
def test_odd_metadata_is_passed_over(stub, metadata):
    stub.metadata = metadata
    assert loaded(stub).input == "input-0"


def test_one_tensor_of_several_is_chosen_by_name(stub):
    two = [{"name": name, "shape": [3], "data": data} for name, data in (("a", [1, 2, 3]), ("b", [4, 5, 6]))]
    stub.infer = lambda _: Answer({"outputs": two})
    assert predict_rows(loaded(stub, output="b"), ROWS).outputs == [4, 5, 6]
    assert stub.batches[0].body["outputs"] == [{"name": "b"}]


def test_a_token_comes_from_the_environment_and_is_shown_nowhere(stub, monkeypatch):
    monkeypatch.setenv("CLIPPER_OIP_TOKEN_DIGITS", "s3cret\n")
    model = loaded(stub, token_env="CLIPPER_OIP_TOKEN_DIGITS")
    predict_rows(model, ROWS)
    assert {asked.headers["authorization"] for asked in stub.asked} == {"Bearer s3cret"}
    assert "s3cret" not in repr(model)
    stub.infer = lambda _: Answer({"error": "no"}, 401)
    assert "s3cret" not in str(predict_rows(model, ROWS).failed)


@pytest.mark.parametrize(
    "name", ["KAFKA_SASL_PASSWORD", "AWS_SECRET_ACCESS_KEY", "clipper_oip_token", "CLIPPER_OIP_TOKEN=x"]
)
def test_a_manifest_cannot_have_another_variable_sent_away(stub, name, monkeypatch):
    monkeypatch.setenv("KAFKA_SASL_PASSWORD", "s3cret")
    with pytest.raises(ModelNotLoaded, match="begins with CLIPPER_OIP_TOKEN"):
        loaded(stub, token_env=name)
    assert stub.asked == []


@pytest.mark.parametrize(
    ("token", "why"), [("", "is not set"), ("a\nb", "has a character"), ("\u00e9\u00e9", "has a character")]
)
def test_a_token_that_cannot_be_sent_is_told_without_showing_it(stub, token, why, monkeypatch):
    monkeypatch.setenv("CLIPPER_OIP_TOKEN", token)
    with pytest.raises(ModelNotLoaded, match=f"variable CLIPPER_OIP_TOKEN {why}") as told:
        loaded(stub, token_env="CLIPPER_OIP_TOKEN")
    assert not token or token not in str(told.value)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"token": "s3cret"}, r"parameters \['token'\] are unknown"),
        ({"verify": False}, "unknown"),
        ({"timeout_s": 0}, r"timeout_s is 0, give a number in \[0.001, 3600\]"),
        ({"timeout_s": True}, "timeout_s is True"),
        ({"timeout_s": "5"}, "timeout_s is '5'"),
        ({"timeout_s": float("nan")}, "timeout_s is nan"),
        ({"max_response_mib": 2000}, r"give a number in \[1, 1024\]"),
        ({"input": ""}, "input is '', give a text"),
        ({"output": 7}, "output is 7, give a text"),
    ],
)
def test_parameters_of_another_form_are_refused_before_anything_is_sent(stub, parameters, message):
    with pytest.raises(ModelNotLoaded, match=message):
        loaded(stub, **parameters)
    assert stub.asked == []


@pytest.mark.parametrize(
    "uri",
    [
        "http://h/v2/models/",
        "http://h/v2/models/a/infer",
        "http://h/v1/models/a",
        "http://h",
        "h:8080/v2/models/a",
        "http://user:pass@h/v2/models/a",
        "http://h/v2/models/a?x=y",
        "http://h/v2/models/..",
        "file:///v2/models/a",
        "",
    ],
)
def test_a_url_that_is_no_model_is_refused(uri):
    for allowed in (None, [uri], ["http://h"]):
        with pytest.raises(ModelNotLoaded, match="takes http://HOST:PORT/v2/models/NAME"):
            load_model("oip", uri, None, {}, allowed=allowed)


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
    assert predict_rows(loaded(stub), ROWS).outputs == [1.5, 3.5, 5.5]


def test_a_certificate_that_nobody_vouches_for_is_refused(tmp_path, monkeypatch):
    import ssl

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
        assert predict_rows(load_model("oip", uri, None, {}, allowed=[uri]), ROWS).outputs == [1.5, 3.5, 5.5]


def test_a_missing_extra_is_named(stub, monkeypatch):
    monkeypatch.setitem(sys.modules, "urllib3", None)
    with pytest.raises(ModelNotLoaded, match=r"pip install 'clipper-stream\[oip\]'"):
        loaded(stub)


def test_the_answer_of_the_protocols_own_example_is_read():
    body = {
        "id": "42",
        "outputs": [{"name": "output0", "shape": [3, 2], "datatype": "FP32", "data": [1.0, 1.1, 2.0, 2.1, 3.0, 3.1]}],
    }
    assert outputs_of(json.dumps(body).encode(), 3, None) == [[1.0, 1.1], [2.0, 2.1], [3.0, 3.1]]
