"""Clients and tools that others wrote judge the gateway of a deployment of its own.

    python examples/clients/http_judges.py [--long]

What they need is installed into the user's cache folder the first time. `V2_DOCUMENT` names the file of the Open
Inference Protocol's OpenAPI document, which is judged too, if it is there.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from open_inference.grpc import protocol

from clipper_agents.broker.properties import free_port
from examples.shared.operation import PipelineProcess

APPLICATION = "sums"
CONFIGURATION = """\
[[application]]
name = "sums"
input = { dtype = "float32" }
models = ["sum:1"]
policy = { name = "exp3" }
loss = "absolute"
objective_ms = "none"
default_output = -1

[[model]]
name = "sum"
uri = "clipper_agents.examples.models:sum_of_row"
colocated = true

[gateway]
"""
QUICK, LONG = 500, 20_000
"""Requests that schemathesis makes of each document, at least."""
LONG_HELP = f"{LONG:,} requests of each OpenAPI document instead of {QUICK}"
ROWS = 10_000
"""Of `mlserver infer`."""
INSTALL_S, RUN_S = 900.0, 3_600.0
GRPCURL = "github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.3"
ENVIRON = {**os.environ, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}


class ToolMissing(Exception):
    """A judge cannot be installed here, or is not asked for."""


class JudgeFailed(Exception):
    """A judge found something wrong.

    Args:
        why: In a line.
        output: What the judge printed.
    """

    def __init__(self, why: str, output: str = "") -> None:
        super().__init__(why)
        self.output = output


@dataclass(frozen=True, kw_only=True)
class JudgedGateway:
    """What a judge needs.

    Attributes:
        address: Of HTTP, `HOST:PORT`.
        grpc_address: Of gRPC, `HOST:PORT`.
        folder: For files of this run.
        tools: For what is installed, kept from one run to the next.
        requests: How many schemathesis makes at least.
    """

    address: str
    grpc_address: str
    folder: Path
    tools: Path
    requests: int

    @property
    def url(self) -> str:
        """Of HTTP."""
        return f"http://{self.address}"


def command_output(*command: str | Path, within_s: float = RUN_S, **environ: str) -> str:
    """Return what a command prints.

    Raises:
        JudgeFailed: it fails, or takes too long.
    """
    name = Path(command[0]).name
    try:
        done = subprocess.run(  # noqa: S603 - our own commands
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=within_s,
            env=ENVIRON | environ,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise JudgeFailed(f"{name} did not end within {within_s:.0f} s") from error
    if done.returncode:
        output = f"{done.stdout}{done.stderr}".strip()
        raise JudgeFailed(f"{name} ended with {done.returncode}: {output.rpartition(chr(10))[2]}", output)
    return done.stdout


def check_equal(what: str, found: object, expected: object) -> None:
    """Raise `JudgeFailed` when something is not what it should be."""
    if found != expected:
        raise JudgeFailed(f"{what}: {found}, not {expected}")


# --- what is installed ----------------------------------------------------------------------------------------------
def environment_with(tools: Path, requirement: str) -> Path:
    """Return the folder of programs of an environment that has a package, made if it is not there yet.

    Raises:
        ToolMissing: it cannot be installed.
    """
    home = tools / requirement
    programs, stamp = home / "bin", home / "installed"
    if not stamp.exists():
        uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
        python = programs / "python"
        pip: list[str | Path] = [uv, "pip", "install", "--python", python] if uv else [python, "-m", "pip", "install"]
        try:
            command_output(sys.executable, "-m", "venv", "--clear", home, within_s=INSTALL_S)
            command_output(*pip, "--quiet", requirement, within_s=INSTALL_S)
        except JudgeFailed as error:
            raise ToolMissing(str(error)) from error
        stamp.touch()
    return programs


def grpcurl_of(tools: Path) -> Path:
    """Return the program grpcurl, built if it is not there yet.

    Raises:
        ToolMissing: there is no Go, or the program cannot be built.
    """
    program = tools / "grpcurl"
    if not program.exists():
        go = shutil.which("go")
        if go is None:
            raise ToolMissing("go")
        try:
            command_output(go, "install", GRPCURL, within_s=INSTALL_S, GOBIN=str(tools))
        except JudgeFailed as error:
            raise ToolMissing(str(error)) from error
    return program


# --- judges ---------------------------------------------------------------------------------------------------------
KSERVE_PROGRAM = """\
import asyncio, json, sys
import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig

async def main(url, name):
    client = InferenceRESTClient(RESTConfig(protocol="v2", retries=0))
    probes = [client.is_server_live(url), client.is_server_ready(url), client.is_model_ready(url, name)]
    found = {"probes": [await probe for probe in probes], "outputs": []}
    rows = np.array([[1, 2, 3], [4, 5, 6]], np.float32)
    for is_binary in (False, True):
        tensor = InferInput("input", list(rows.shape), "FP32")
        tensor.set_data_from_numpy(rows, binary_data=is_binary)
        answer = await client.infer(url, InferRequest(name, [tensor], request_id="7"), model_name=name)
        found["outputs"].append([answer.id, answer.outputs[0].as_numpy().tolist()])
    try:
        await client.infer(url, InferRequest("nobody", [tensor]), model_name="nobody")
    except Exception as error:
        found["unknown"] = error.response.status_code
    print(json.dumps(found))

asyncio.run(main(*sys.argv[1:]))
"""


def judge_by_kserve(gateway: JudgedGateway) -> str:
    """KServe's `InferenceRESTClient` probes the gateway and asks two rows, as JSON and as bytes."""
    python = environment_with(gateway.tools, "kserve==0.21.0") / "python"
    found = json.loads(command_output(python, "-c", KSERVE_PROGRAM, gateway.url, APPLICATION))
    outputs = [["7", [6.0, 15.0]]] * 2
    check_equal("what KServe's client found", found, {"probes": [True] * 3, "outputs": outputs, "unknown": 404})
    return ""


def judge_by_mlserver(gateway: JudgedGateway) -> str:
    """`mlserver infer` asks a file of rows, sixteen a request."""
    mlserver = environment_with(gateway.tools, "mlserver==1.7.1") / "mlserver"
    asked, answered = gateway.folder / "rows.jsonl", gateway.folder / "answers.jsonl"
    tensor: dict[str, Any] = {"name": "input", "datatype": "FP32", "shape": [1, 3]}
    lines = [{"id": str(number), "inputs": [tensor | {"data": [number, 1, 2]}]} for number in range(ROWS)]
    asked.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    options = ("--model-name", APPLICATION, "--batch-size", "16", "--workers", "4", "-i", asked, "-o", answered)
    command_output(mlserver, "infer", "--url", gateway.address, *options)
    answers = map(json.loads, answered.read_text().splitlines())
    sums = {int(answer["id"]): answer["outputs"][0]["data"] for answer in answers}
    wrong = [number for number in range(ROWS) if sums.get(number) != [number + 3]]
    check_equal("rows without their sum", wrong[:5], [])
    return f"{ROWS:,} rows"


def judge_by_grpcurl(gateway: JudgedGateway) -> str:
    """Program grpcurl asks a row, whether the server is ready, and about a model that is not there."""
    grpcurl, described = grpcurl_of(gateway.tools), gateway.folder / "open_inference.protoset"
    files = FileDescriptorSet()
    protocol.DESCRIPTOR.CopyToProto(files.file.add())
    described.write_bytes(files.SerializeToString())

    def call(method: str, request: dict[str, Any]) -> Any:
        options = ("-plaintext", "-max-time", "60", "-protoset", described, "-d", json.dumps(request))
        return json.loads(command_output(grpcurl, *options, gateway.grpc_address, f"inference.{method}"))

    check_equal("readiness", call("GRPCInferenceService/ServerReady", {}), {"ready": True})
    tensor = {"name": "input", "datatype": "FP32", "shape": [1, 3], "contents": {"fp32_contents": [1, 2, 3]}}
    request = {"model_name": APPLICATION, "id": "7", "inputs": [tensor]}
    answer = call("GRPCInferenceService/ModelInfer", request)
    output = answer["outputs"][0]["contents"]
    check_equal("the answer", (answer["model_name"], answer["id"], output), (APPLICATION, "7", {"fp64_contents": [6]}))
    try:
        call("GRPCInferenceService/ModelInfer", request | {"model_name": "nobody"})
    except JudgeFailed as error:
        if "Code: NotFound" in error.output:
            return ""
        raise
    raise JudgeFailed("a model that is not there was answered")


def judge_by_flink(gateway: JudgedGateway) -> str:
    """`ML_PREDICT` of Flink SQL asks two rows by Flink's provider for Triton."""
    if missing := [tool for tool in ("java", "javac", "mvn") if shutil.which(tool) is None]:
        raise ToolMissing(", ".join(missing))
    program = gateway.folder / "flink"
    shutil.copytree(Path(__file__).with_name("flink"), program)
    try:
        command_output("mvn", "-q", "-B", "-f", program / "pom.xml", "package", within_s=INSTALL_S)
    except JudgeFailed as error:
        raise ToolMissing(str(error)) from error
    jars = f"{program}/target/dependency/*"
    command_output("javac", "-cp", jars, "-d", program, *program.glob("*.java"))
    printed = command_output("java", "-cp", f"{program}{os.pathsep}{jars}", "MlPredict", gateway.url, APPLICATION)
    check_equal("what Flink printed", sorted(printed.splitlines()), ["1 6.0", "2 15.0"])
    return ""


# of what a valid request may be refused for, and an invalid header ignored for, the documents cannot say all
SCHEMATHESIS = f"""\
continue-on-failure = true
request-timeout = 60.0
warnings = false

[generation]
database = "none"

[parameters]
"path.name" = "{APPLICATION}"
"path.version" = "1"
"query.application" = "{APPLICATION}"
"query.wait_s" = 0.1

[checks]
not_a_server_error.expected-statuses = ["2xx", "4xx", 503, 504]
positive_data_acceptance.enabled = false
negative_data_rejection.enabled = false
"""
V2_ONLY = """\
content_type_conformance.enabled = false  # errors are application/problem+json

[[operations]]
include-method = "POST"
checks.status_code_conformance.enabled = false  # the document has 200 and 400 alone
"""


def judge_by_own_document(gateway: JudgedGateway) -> str:
    """Schemathesis makes requests of `/openapi.json`."""
    return requests_made(gateway, SCHEMATHESIS, (f"{gateway.url}/openapi.json",))


def judge_by_protocol_document(gateway: JudgedGateway) -> str:
    """Schemathesis makes requests of the protocol's own document."""
    given = os.environ.get("V2_DOCUMENT")
    if given is None:
        raise ToolMissing("V2_DOCUMENT, which names the file open_inference_rest.yaml")
    document = gateway.folder / "open_inference_rest.yaml"
    document.write_text(named_document(Path(given).read_text()))
    return requests_made(gateway, SCHEMATHESIS + V2_ONLY, ("--url", gateway.url, str(document)))


def named_document(text: str) -> str:
    """Return the protocol's document for one application, whose revision is 1."""
    return text.replace("${MODEL_NAME}", APPLICATION).replace("${MODEL_VERSION}", "1")


def requests_made(gateway: JudgedGateway, settings: str, document: Sequence[str]) -> str:
    """Run schemathesis with one seed after the other until it has made as many requests as are wanted.

    Raises:
        ToolMissing: there is no schemathesis.
        JudgeFailed: an answer is not what the document says.
    """
    schemathesis = Path(sys.executable).with_name("schemathesis")
    if not schemathesis.exists():
        raise ToolMissing("schemathesis")
    file, report = gateway.folder / "schemathesis.toml", gateway.folder / "schemathesis.json"
    file.write_text(settings)
    most = str(max(10, gateway.requests // 20))
    options: list[str | Path] = ["--max-examples", most, "--no-shrink", "--report-json-path", report, *document]
    made, seed = 0, 0
    while made < gateway.requests:
        seed += 1
        report.unlink(missing_ok=True)
        try:
            command_output(schemathesis, "--no-color", "--config-file", file, "run", "--seed", str(seed), *options)
        except JudgeFailed as error:
            if report.exists() and (found := json.loads(report.read_text())["failures"]):
                each = (f"{one['title']} ({', '.join(one['operations'])})" for one in found)
                raise JudgeFailed("; ".join(each), error.output) from error
            raise
        made += json.loads(report.read_text())["test_cases"]["generated"]
    return f"{made:,} requests"


JUDGES: dict[str, Callable[[JudgedGateway], str]] = {
    "kserve": judge_by_kserve,
    "mlserver infer": judge_by_mlserver,
    "grpcurl": judge_by_grpcurl,
    "Flink's ML_PREDICT": judge_by_flink,
    "schemathesis, own document": judge_by_own_document,
    "schemathesis, document of the protocol": judge_by_protocol_document,
}


def verdict(judge: Callable[[JudgedGateway], str], gateway: JudgedGateway) -> str:
    """Return `ok`, `not installed: what` or `failed: why`; what a judge that failed has printed is printed too."""
    try:
        note = judge(gateway)
    except ToolMissing as error:
        return f"not installed: {error}"
    except JudgeFailed as error:
        print(error.output, file=sys.stderr, flush=True)
        return f"failed: {error}"
    except (LookupError, ValueError) as error:
        return f"failed: an answer cannot be read: {error!r}"
    return f"ok, {note}" if note else "ok"


def cache_folder() -> Path:
    """Return the folder that tools are kept in."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(home) / "clipper-stream" / "judges"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def failed_judges(requests: int) -> list[str]:
    """Run every judge against a gateway that is started for them, and return the names of those that failed."""
    port, grpc_port = free_port(), free_port()
    configuration = f"{CONFIGURATION}port = {port}\ngrpc_port = {grpc_port}\n"
    failed = []
    with tempfile.TemporaryDirectory() as folder, PipelineProcess(Path(folder), configuration) as pipeline:
        pipeline.wait_ready()
        gateway = JudgedGateway(
            address=f"127.0.0.1:{port}",
            grpc_address=f"127.0.0.1:{grpc_port}",
            folder=Path(folder),
            tools=cache_folder(),
            requests=requests,
        )
        for name, judge in JUDGES.items():
            said = verdict(judge, gateway)
            print(f"{name}: {said}", flush=True)
            failed += [name] if said.startswith("failed") else []
    return failed


def main() -> None:
    """Run every judge that can be installed; fail when one fails."""
    parser = argparse.ArgumentParser(description="Clients and tools that others wrote judge the gateway.")
    parser.add_argument("--long", action="store_true", help=LONG_HELP)
    if failed := failed_judges(LONG if parser.parse_args().long else QUICK):
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
