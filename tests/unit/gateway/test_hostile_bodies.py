"""Bodies and messages that are made to keep the event loop from everybody else."""

import gc
import json
import time

import pytest
from google.protobuf.internal.encoder import _VarintBytes
from open_inference.grpc import protocol as oip
from unit.gateway.rig import refuses
from unit.gateway.test_calls import StubPipeline
from unit.gateway.wires import HttpWire

from clipper_gateway import oip_grpc
from clipper_gateway.api import MOST_DECODING_US, decoding_us
from clipper_gateway.callers import Shares
from clipper_gateway.calls import Calls
from clipper_topics.manifests import ApplicationManifest

BODY_BYTES = 2**22
HELD_S = 0.05
GENEROUS = 4.0
"""The machine of the tests may be as much slower than the one that the bounds were measured on."""

VALUES = {
    "lists": "[]", "lists of one": "[1]", "deep lists": "[[[]]]", "objects": "{}", "fields": '{"a":1}', "integers": "1",
    "floats": "0.5", "long floats": "0.12345678901234567", "text": '""', "nulls": "null", "truths": "true",
    "exponents": "1e23", "large exponents": "1e300", "small exponents": "5e-324", "negative": "-1.5e-300",
    "near halves": "9.0071992547409930000000000000001e+15", "escapes": '"' + "\\u00e9" * 50 + '"',
    "many digits": "9" * 300, "feedbacks": '{"query_id":"a","label":1}',
    "tensors": '{"name":"","datatype":"","shape":[]}',
}  # fmt: skip
FRAMES = {
    "/v1/applications/digits/predict": ['{"input":$}', '{"inputs":$}', '{"input":[1,2],"features":$}', '{"models":$}'],
    "/v1/feedback": ["$", '{"query_id":"a","label":$}', '[{"query_id":"a","label":$}]'],
    "/v2/models/digits/infer": [
        '{"inputs":$}',
        '{"inputs":[{"name":"input","datatype":"FP32","shape":[500000,1],"data":$}]}',
        '{"inputs":[{"name":"input","datatype":"INT64","shape":[1,2],"data":$}]}',
        '{"inputs":[],"parameters":{"features":$},"outputs":$}',
    ],
}


def body_of(frame, value, share):
    """A body of so much of what a gateway takes, filled with one value again and again."""
    count = int(share * (BODY_BYTES - len(frame)) / (len(value) + 1) / frame.count("$"))
    return frame.replace("$", "[" + ",".join([value] * max(1, count)) + "]").encode()


@pytest.fixture
async def wire():
    pipeline = StubPipeline()
    pipeline.deployed.manifest = lambda name: ApplicationManifest(name=name, models=["svm:1"])
    pipeline.deployed.check_known = pipeline.deployed.is_ready = bool
    calls = Calls(pipeline, Shares(), most_waiting=10, timeout_s=30.0)
    async with HttpWire(calls=calls, max_body_bytes=BODY_BYTES) as wire:
        yield wire


@pytest.fixture
def frozen_heap():
    """What the tests have loaded is looked through by no collection, as in a gateway that serves."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.slow
@pytest.mark.usefixtures("frozen_heap")
@pytest.mark.parametrize("path", FRAMES)
async def test_no_body_holds_the_loop_for_longer_than_others_may_wait(wire, path):
    """A list of empties took 0.7 s, numbers of three-digit exponents 5.6 s."""
    held_s, sent = {}, 0
    headers = {"x-api-key": "all", "content-type": "application/json"}
    for frame in FRAMES[path]:
        for name, value in VALUES.items():
            for share in (1.0, 0.25, 0.08):
                body = body_of(frame, value, share)
                gc.collect()
                began_s = time.thread_time()
                found = await wire.client.post(path, content=body, headers=headers)
                held_s[frame, name, share, found.status_code] = time.thread_time() - began_s
                sent += 1
                assert found.status_code in {200, 202, 400, 413}, (frame, name, share, found.text[:200])
    assert sent >= 180
    assert {about: round(took_s, 3) for about, took_s in held_s.items() if took_s > GENEROUS * HELD_S} == {}


@pytest.mark.parametrize(
    "body",
    [
        b"[" + b"0.12345678901234567," * 110_000 + b"0.5]",
        b"[" + b"255," * 400_000 + b"0]",
        json.dumps([[[0.5] * 28] * 28] * 100).encode(),
        json.dumps([{"query_id": f"order-{number}", "application": "digits", "label": 3} for number in range(1_000)]),
        json.dumps(["a text of some length, with an e in most of its words: 1e5"] * 20_000),
    ],
    ids=["a record of floats", "a record of integers", "images", "feedback", "texts"],
)
def test_what_fits_a_record_of_kafka_is_decoded(body):
    assert decoding_us(body if isinstance(body, bytes) else body.encode()) < MOST_DECODING_US


# --- messages of gRPC -----------------------------------------------------------------------------------------------
def field(number, content):
    return _VarintBytes(number << 3 | 2) + _VarintBytes(len(content)) + content


def inputs(content):
    return field(oip.ModelInferRequest.INPUTS_FIELD_NUMBER, content)


@pytest.mark.parametrize(
    "message",
    [
        inputs(b"") * 2_000_000,
        field(6, b"") * 2_000_000,
        b"".join(field(4, field(1, b"%x" % number)) for number in range(100_000)),
        inputs(field(4, b"") * 2_000_000),
        inputs(field(4, b"") * 900) * 900,
    ],
    ids=["tensors", "outputs", "parameters", "parameters of a tensor", "tensors of many parameters"],
)
def test_a_message_of_many_fields_is_refused_before_it_is_parsed(message):
    """Two million tensors of no bytes were 110 ms and 200 MiB."""
    began_s = time.thread_time()
    with refuses(413, "more than 1000 fields"):
        oip_grpc.check_fields(message)
    assert time.thread_time() - began_s < GENEROUS * HELD_S


@pytest.mark.parametrize("message", [b"\xff" * 30, b"\x08", b"\x2a\x7f", b"\x0b\x0c", b"", field(5, b"\xff")])
def test_a_broken_message_is_left_to_the_parser(message):
    oip_grpc.check_fields(message)


def test_values_that_are_many_are_refused_before_they_are_copied():
    request = oip.ModelInferRequest()
    request.inputs.add(name="input", datatype="INT32", shape=[1, 2]).contents.int_contents.extend([1] * 500_001)
    with refuses(413, "500001 values"):
        oip_grpc._input(request)
