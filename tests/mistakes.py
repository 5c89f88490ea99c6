"""Mistakes that a stranger makes, and the sentence that each gets: `python tests/mistakes.py` writes the page of them.

Rules of this file:
- A sentence comes from the code that says it to users, and stands nowhere else than on the page: a test holds that.
- What differs from machine to machine is replaced on the page.
"""

import asyncio
import contextlib
import io
import json
import os
import re
import shlex
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import skops.io
from sklearn.ensemble import RandomForestClassifier
from unit.gateway.test_calls import StubPipeline
from unit.gateway.wires import MANIFESTS, HttpWire

from clipper_agents import exits
from clipper_agents.broker import EmbeddedBroker
from clipper_agents.broker.data_dir import DataDir
from clipper_agents.cli.main import main
from clipper_agents.observability.metrics import ProcessMetrics
from clipper_agents.observability.probes import ProbeServer
from clipper_agents.settings import load_settings
from clipper_agents.settings.local_deployment import recorded
from clipper_agents.settings.sections import GatewaySection
from clipper_agents.streaming.storage import claim
from clipper_gateway import server
from clipper_gateway.callers import Shares
from clipper_gateway.calls import Calls
from clipper_gateway.errors import refusal_of
from clipper_gateway.pipeline import DeployedApplications
from clipper_gateway.served_call import ServedCall
from clipper_stream.client import Client, RecordTooLarge
from clipper_stream.client.client_records import place_feedback, prepare_feedback, prepare_query
from clipper_stream.errors import CLONE, ClipperError
from clipper_stream.models.registry import file_digest, load_model
from clipper_stream.models.row_spec import RowSpec
from clipper_stream.models.runtimes.model_files import import_extra
from clipper_stream.query.inputs import to_matrix
from clipper_topics.codec import JSON, MSGPACK
from clipper_topics.connection import InvalidConnection, KafkaConnection
from clipper_topics.query import Query

PAGE = Path(__file__).parents[1] / "docs/reference/mistakes.md"
HEAD = """# Mistakes, and what is said

<!-- Generated: python tests/mistakes.py -->

What the commands, clients and the gateway say about mistakes, to be searched for by their words. `/home/ada/shop` is
the folder of the project.
"""
VARYING = {r"20\d\d-\d\d-\d\d \d\d:\d\d:\d\d": "2026-01-31 09:30:00", "(?!0{64})[0-9a-f]{64}": "9f86d081" * 8}
"""What differs from run to run, and what stands for it."""
Rows = Iterator[tuple[str, str]]

# --- commands -------------------------------------------------------------------------------------------------------
USAGE = """
stauts
predict sums
predict sums [1,
predict sums [1] --timeout 3
feedback 0-1
feedback 0-1 --label 1 --loss 0
feedback 0-1 --loss 2
selection restore sums
topics list --set router.processes
model deploy svm:2 -a digits --stage sunny
model deploy svm:2 -a digits --uri m:f --shape 8x8
model canary svm:2
application update digits --field loss
replay evaluate digits
loadgen --application digits --repeats 2
loadgen --application digits --arrivals often
"""
SETUP = """
up
apply --config x.toml
topics list
topics list --set ruoter.processes=2
topics list --bootstrap a:1 --set kafka.username=ada
up --log-level loud
predict sums [1] --bootstrap 127.0.0.1:1
predict sums [1] --http ftp://gateway
keys create Shop
keys create shop --right fly
keys create shop --rate 0
keys create shop --file no/keys.json
loadgen --application digits --inputs rows.csv
model test models/thing
model test none.skops
model test clipper_agents.examples.models:sum_of_row
up none.onnx
init mine
"""


def commands() -> Rows:
    ran("init mine", exits.OK)
    for lines, code in ((USAGE, exits.USAGE), (SETUP, exits.SETUP)):
        for line in filter(None, lines.splitlines()):
            yield f"`{line}`", ran(line, code)
    with recorded("clipper"):
        Path("clipper.toml").write_text("")
        yield "`up` twice in one folder", ran("up", exits.SETUP)
        Path("clipper.toml").unlink()


def ran(line: str, code: int) -> str:
    """The last line that a command writes, of its end with this code, and without the word that all begin with."""
    with contextlib.redirect_stderr(io.StringIO()) as err, contextlib.redirect_stdout(io.StringIO()) as out:
        ended = main(shlex.split(line))
    assert (ended, out.getvalue() if code else "") == (code, ""), (line, err.getvalue())
    lines = err.getvalue().splitlines()
    assert code != exits.SETUP or len(lines) == 1, lines
    return lines[-1].partition("rror: ")[2] if lines else ""


# --- clipper.toml ---------------------------------------------------------------------------------------------------
MODEL, APPLICATION = '[[model]]\nname = "a"\nuri = "m:f"\n', '[[application]]\nname = "a"\nmodels = ["a:1"]\n'
FILE = '[[model]]\nname = "a"\nuri = "a.skops"\n'
ACME = '[models]\nallowed_modules = ["acme"]\n'
CASCADE = 'policy = { name = "cascade" }\n'
TOML = [
    "router =",
    "[router]\nproceses = 2",
    "[ruoter]",
    '[router]\nprocesses = "two"',
    "[router]\nprocesses = 5",
    '[router]\ndata_dir = "x"',
    '[kafka]\npassword = "secret"',
    '[kafka]\nprefix = "a/b"',
    '[[model]]\nname = "a"',
    MODEL + 'batch = { limit = "aim" }',
    MODEL.replace('"a"', '"a_b"'),
    MODEL + "replicas = 1000000000",
    MODEL + 'sha256 = "12"',
    MODEL.replace("m:f", "m:_f"),
    MODEL + 'runtime = "skleran"',
    FILE + 'runtime = "joblib"',
    APPLICATION,
    APPLICATION.replace("a:1", "a"),
    APPLICATION.replace('"a:1"', ""),
    MODEL + APPLICATION + "objective_ms = 0",
    MODEL + APPLICATION + 'objective_ms = "never"',
    MODEL + APPLICATION + 'policy = { name = "exp33" }',
    MODEL + APPLICATION + "policy = { parameters = { etta = 1.0 } }",
    MODEL + APPLICATION + "policy = { parameters = { eta = -1.0 } }",
    FILE + APPLICATION + CASCADE,
    MODEL + APPLICATION + CASCADE + "audit_ratio = 0.1",
    MODEL + APPLICATION + CASCADE + "keep_best = 1",
    MODEL + MODEL.replace('"a"', '"b"') + APPLICATION + CASCADE + 'trials = [{ model = "b:1", automatic = true }]',
    MODEL + MODEL,
    MODEL + "input = { shape = [8] }\n" + APPLICATION + "input = { shape = [64] }",
    MODEL + "input = { shape = [4096, 4096] }",
    MODEL + 'input = { dtype = "table" }',
    ACME + FILE,
    ACME + MODEL.replace("m:f", "os:system"),
    ACME.replace("acme", "models/"),
    '[models]\nallowed_modules = "acme"',
    '[gateway]\ntls_keyfile = "k"',
    '[gateway]\noidc_issuer = "https://a"',
    "[gateway]\nport = 8081",
]
VARIABLES = {"CLIPPER_ROUTER_PROCESES": "2", "CLIPPER_ROUTER_PROCESSES": "two"}


def configurations() -> Rows:
    Path("a.skops").touch()
    for text in TOML:
        yield f"`{' '.join(text.split())}`", refused(lambda text=text: loaded(text))
    Path("a.skops").unlink()
    missing = FILE + APPLICATION + "objective_ms = 0"
    yield "the same of a model whose file is not there", refused(lambda: loaded(missing))
    for name, value in VARIABLES.items():
        yield f"`{name}={value}`", refused(lambda name=name, value=value: load_settings(None, {name: value}))


def loaded(text: str) -> object:
    Path("clipper.toml").write_text(text)
    try:
        return load_settings(Path("clipper.toml"), {})
    finally:
        Path("clipper.toml").unlink()


def refused(call: Callable[[], object]) -> str:
    try:
        call()
    except (ClipperError, InvalidConnection) as error:
        return str(error)
    raise AssertionError("it is taken")


# --- models ---------------------------------------------------------------------------------------------------------
TYPES = {"trusted": ["sklearn.tree._tree.Tree", "acme.Scaler"]}


def models() -> Rows:
    skops.io.dump(RandomForestClassifier(2).fit(np.eye(3), [0, 1, 1]), "forest.skops")
    Path("no.skops").write_bytes(b"PK no zip")
    Path("shop_of_ada.py").write_text("right = 1 / 0\n")
    Path("a.ubj").write_bytes(b"a booster")
    digest, old = file_digest("sklearn", "forest.skops"), "0" * 64
    folder = str(Path.cwd())
    for mistake, arguments in {
        "a file that is not there": ("onnx", "none.onnx"),
        "a file that is no skops file": ("sklearn", "no.skops", file_digest("sklearn", "no.skops")),
        "a forest in a skops file, whose types nobody trusts": ("sklearn", "forest.skops", digest),
        "a file that was written anew": ("sklearn", "forest.skops", old),
        "a file without its digest": ("sklearn", "forest.skops"),
        "a parameter that is none": ("sklearn", "forest.skops", digest, {"thrusted": []}),
        "a parameter of another kind": ("xgboost", "a.ubj", file_digest("xgboost", "a.ubj"), {"threads": "two"}),
        "a module that is not there": ("python", "acme.models:svm"),
        "a function that is not there": ("python", "clipper_agents.examples.models:sum_of_rows"),
        "a module that ends with an error": ("python", "shop_of_ada:right"),
        "a server's address that is none": ("oip", "http://models"),
    }.items():
        yield mistake, refused(lambda arguments=arguments: load_model(*arguments))
    yield (
        "types that are trusted, and outside of what is allowed",
        refused(lambda: load_model("sklearn", "forest.skops", digest, TYPES, allowed=[f"{folder}/", "shop"])),
    )
    yield "a library that is not installed", refused(lambda: import_extra("onnx", "no_such_library"))
    forest = (
        f'[[model]]\nname = "forest"\nuri = "forest.skops"\nparameters = {{ trusted = ["{TYPES["trusted"][0]}"] }}\n'
    )
    Path("clipper.toml").write_text(forest + "input = { shape = [4] }\n")
    with contextlib.redirect_stderr(io.StringIO()) as err:
        assert main(["up"]) == exits.SETUP
    said = (line.removeprefix("error: ") for line in err.getvalue().splitlines())
    yield "`up`, where a row has another length than those that the model was fitted with", "\n".join(said)
    Path("clipper.toml").unlink()


# --- rows -----------------------------------------------------------------------------------------------------------
PAIR, TABLE = RowSpec(shape=(2,)), RowSpec("table", columns=[("age", "number"), ("city", "text"), ("since", "date")])
ROME = {"age": 41, "city": "Rome", "since": "2026-01-31"}
BAD_ROWS: list[tuple[RowSpec, Any]] = [
    (PAIR, [1, 2, 3]), (PAIR, ["1", "2"]), (PAIR, [1, None]), (PAIR, [1, 1e300]), (RowSpec("uint8"), [1, 256]),
    (RowSpec("text"), 7), (RowSpec("bytes"), "YQ=="), (TABLE, ROME | {"agee": 41}), (TABLE, ROME | {"age": "41"}),
    (TABLE, {"age": 41, "city": "Rome"}), (TABLE, ROME | {"since": "soon"}), (TABLE, [41, "Rome"]),
]  # fmt: skip


def rows() -> Rows:
    for spec, row in BAD_ROWS:
        takes = f"{spec.dtype}{[*spec.shape] if spec.shape else ''}"
        yield f"`{json.dumps(row)}` where a row is {takes}", refused(lambda spec=spec, row=row: to_matrix(spec, [row]))


# --- queries and feedback -------------------------------------------------------------------------------------------
QUERIES: list[dict[str, Any]] = [
    {}, {"input": 1, "inputs": [1]}, {"inputs": []}, {"inputs": [1] * 10_001}, {"input": 1, "deadline_ms": 0},
    {"input": 1, "models": []}, {"input": 1, "features": [0.0] * 17}, {"input": 1, "features": [1e9]},
    {"input": 1, "query_id": "3@41"}, {"input": 1, "query_id": "x" * 300}, {"input": 1, "context": ""},
    {"input": 2**70}, {"input": 1, "query_id": f"9-{'a' * 32}"},
]  # fmt: skip
FEEDBACK: list[tuple[str, dict[str, Any]]] = [
    ("2@7", {}), ("2@7", {"label": 1, "loss": 1}), ("2@7", {"reward": 1.5}), ("2@7", {"loss": "low"}),
    ("2@7", {"label": object()}), ("2@7", {"truth": 1}), ("", {"label": 1}), ("order", {"label": 1}),
    ("4@7", {"label": 1}), ("03@41", {"label": 1}), (f"2@{10**30}", {"label": 1}), ("x" * 300, {"label": 1}),
]  # fmt: skip


def queries() -> Rows:
    for fields in QUERIES:
        query = Query(application="digits", **fields)
        yield f"a query with {shown(fields)}", refused(lambda query=query: prepare_query(query, 4, MSGPACK))
    for query_id, truth in FEEDBACK:
        given = re.sub("<object object at .*?>", "object()", shown(truth))
        sent = lambda query_id=query_id, truth=truth: prepare_feedback(query_id, truth, None, 4, JSON)  # noqa: E731
        yield f"feedback about `{shortened(query_id)}` with {given}", refused(sent)
    yield "a client that writes CSV", refused(lambda: Client("localhost:9092", content_type="text/csv"))


def shown(fields: dict[str, Any]) -> str:
    return ", ".join(f"`{name} = {shortened(repr(value))}`" for name, value in fields.items()) or "nothing else"


def shortened(text: str) -> str:
    return text if len(text) <= 45 else f"{text[:12]}..."


# --- HTTP -----------------------------------------------------------------------------------------------------------
PREDICT, FEED = "POST /v1/applications/digits/predict", "POST /v1/feedback"
INFER = "POST /v2/models/digits/infer"
REQUESTS: list[tuple[str, str, dict[str, str]]] = [
    ("POST /v1/applications/digit/predict", '{"input": [1, 2]}', {}),
    (PREDICT, '{"inptu": [1, 2]}', {}),
    (PREDICT, '{"application": "digit", "input": [1, 2]}', {}),
    (PREDICT, '{"inputs": 7}', {}),
    (PREDICT, '{"input": [1, 2]', {}),
    (PREDICT, "input=1", {"content-type": "application/x-www-form-urlencoded"}),
    (PREDICT, '{"input": [1, 2]}', {"content-encoding": "gzip"}),
    (PREDICT, '{"input": [1, 2]}', {"idempotency-key": "caf\u00e9"}),
    (PREDICT, '"' + "x" * 2_000 + '"', {}),
    ("GET /v1/applications/digits/predict", "", {}),
    ("GET /v1/queries/order-7", "", {}),
    ("GET /v1/queries/order-7?application=digits&wait_s=soon", "", {}),
    (FEED, '{"label": 3}', {}),
    (FEED, '{"query_id": "2@7", "lable": 3}', {}),
    (FEED, '{"query_id": "2@7", "loss": 7}', {}),
    (FEED, '{"query_id": "4@7", "label": 3}', {}),
    (FEED, '{"query_id": "2@07", "label": 3}', {}),
    (FEED, '[{"query_id": "2@7", "label": 3}, {"query_id": "order", "application": "digit", "label": 3}]', {}),
    (FEED, "[]", {}),
    (INFER, '{"inputs": []}', {}),
    (INFER, '{"inputs": [{"name": "x", "datatype": "FP8", "shape": [1, 2], "data": [1, 2]}]}', {}),
    (INFER, '{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1]}]}', {}),
    ("POST /v2/models/digits/versions/2/infer", '{"inputs": []}', {}),
]  # fmt: skip


class Deployed(DeployedApplications):
    """The applications of the wires, as a gateway has read them."""

    applications, is_known = MANIFESTS, True

    def __init__(self) -> None:
        """Follow nothing."""


class CheckingPipeline(StubPipeline):
    """Places a feedback as the client does."""

    def __init__(self) -> None:
        super().__init__()
        self.deployed = Deployed()

    async def give(self, feedback: Any, *, key: bytes, headers: Any) -> None:
        place_feedback(feedback, key, self.partitions, MSGPACK)


async def answered(request: str, body: str, headers: dict[str, str]) -> tuple[int, str]:
    calls = Calls(CheckingPipeline(), Shares(), most_waiting=10, timeout_s=30.0)
    method, path = request.split()
    async with HttpWire(calls=calls, max_body_bytes=1_024) as wire:
        given = wire.headers | {name: text.encode() for name, text in headers.items()}
        found = await wire.client.request(method, path, content=body, headers=given)
    return found.status_code, found.json()["error"]


def requests() -> Rows:
    for request, body, headers in REQUESTS:
        status, said = asyncio.run(answered(request, body, headers))
        assert 400 <= status < 500, (request, body, said)
        beside = "".join(f", `{name}: {text}`" for name, text in headers.items())
        yield (
            f"`{request}`{beside}{f', `{shortened(body)}`' if len(body) > 150 else f', `{body}`' if body else ''}",
            (f"{status}: {said}"),
        )
    yield "a query of more bytes than Kafka takes", f"413: {refusal_of(RecordTooLarge(''))}"
    ran("keys create shop --file keys.json", exits.OK)
    access = server.Access.from_settings(GatewaySection(keys_file="keys.json"))
    for mistake, headers in {
        "a call without a key": {},
        "a call with another key": {"x-api-key": "clipper_no"},
    }.items():
        call = ServedCall(headers=headers)
        yield mistake, "401: " + refused(lambda call=call: asyncio.run(access.identify(call)))


# --- Kafka, ports and folders ---------------------------------------------------------------------------------------
SASL = {"security_protocol": "SASL_SSL", "username": "ada", "password": "xyzzy"}
CONNECTIONS: list[dict[str, Any]] = [
    {"bootstrap": " "}, {"security_protocol": "TLS"}, SASL | {"sasl_mechanism": "MD5"}, SASL | {"password": None},
    SASL | {"username": None, "password": None}, SASL | {"security_protocol": "PLAINTEXT"}, {"cafile": "ca.pem"},
    {"security_protocol": "SSL", "certfile": "c.pem"}, {"security_protocol": "SSL", "cafile": "ca.pem"},
]  # fmt: skip


def connections() -> Rows:
    for settings in CONNECTIONS:
        given = ", ".join(f"`{name} = {value!r}`" for name, value in settings.items() if value and value != "xyzzy")
        said = refused(lambda settings=settings: KafkaConnection(**{"bootstrap": "a:1"} | settings).aiokafka())
        assert "xyzzy" not in said
        yield f"a Kafka of {given}", said


def machine() -> Rows:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        metrics = ProcessMetrics("router")
        for what, call in {
            "a gateway on a port that is taken": lambda: server._listener(GatewaySection(port=port)),
            "metrics on a port that is taken": lambda: ProbeServer(metrics.registry, metrics.health).start(
                port, "127.0.0.1"
            ),
            "a Kafka on a port that is taken": lambda: EmbeddedBroker(port=port).start(),
        }.items():
            yield what, refused(call).replace(str(port), "8080")
    Path("file").touch()
    yield "a data folder that is a file", refused(lambda: claim(Path("file/router-0"), 0.0))
    descriptor = claim(Path("router-0"), 0.0)
    yield "two routers in one data folder", refused(lambda: claim(Path("router-0"), 0.0))
    os.close(descriptor)
    yield "a Kafka's data folder below a file", refused(lambda: DataDir(Path("file/broker")).locked().__enter__())
    secured = GatewaySection(address="0.0.0.0")
    yield "a gateway for everybody, without keys", refused(lambda: server.Access.from_settings(secured))


# --- the page -------------------------------------------------------------------------------------------------------
SECTIONS: dict[str, Callable[[], Rows]] = {
    "Commands": commands,
    "clipper.toml": configurations,
    "Model files and functions": models,
    "Rows": rows,
    "Queries and feedback": queries,
    "HTTP": requests,
    "Kafka": connections,
    "Ports and folders": machine,
}


def reference() -> str:
    """The page."""
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        stack.enter_context(contextlib.chdir(folder))
        environ, path = dict(os.environ), [*sys.path]
        stack.callback(
            lambda: (os.environ.clear(), os.environ.update(environ), sys.path.__setitem__(slice(None), path))
        )
        for name in [name for name in environ if name.startswith(("CLIPPER_", "KAFKA_"))]:
            del os.environ[name]
        os.environ["XDG_CACHE_HOME"] = folder
        replaced = {os.path.realpath(folder): "/home/ada/shop", folder: "/home/ada/shop", str(CLONE): "/home/ada/clone"}
        replaced |= {f"{word} {os.getpid()}": f"{word} 4711" for word in ("process", "kill")}
        replaced |= {f" on {socket.gethostname()} ": " on laptop "}
        sections = {title: [*found()] for title, found in SECTIONS.items()}
    lines = [HEAD]
    for title, mistakes in sections.items():
        lines += [f"## {title}\n", "| mistake | what is said |", "|---|---|"]
        for mistake, said in mistakes:
            shown_as = said.replace("|", "\\|").replace("\n", " ⏎ ")
            for own, other in replaced.items():
                shown_as = shown_as.replace(own, other)
            for own, other in VARYING.items():
                shown_as = re.sub(own, other, shown_as)
            lines.append(f"| {mistake} | {shown_as} |".replace("<", "&lt;"))
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    PAGE.write_text(reference(), encoding="utf-8")
