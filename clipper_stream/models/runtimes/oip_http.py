"""The runtime `oip`: a model behind the Open Inference Protocol V2 over HTTP, as MLServer, KServe and Triton speak it.

Rules of this file:
- A batch is one POST on a connection that is kept; one that the server had closed meanwhile is opened anew, once.
- What fails for all rows alike (no connection, too slow, 401, 404, 429, 503) is `ModelUnavailable`: asking row by row
  would only wait longer. What the server says about this batch (400, 422, 500) is `ModelFailed`, and the rows are then
  asked apart.
- Requests go to the host of the URL and nowhere else: no redirects, no proxies; certificates are checked.
- No secret is in a manifest: a token is read from a variable whose name begins with `CLIPPER_OIP_TOKEN`, so that a
  manifest cannot have any other variable of this process sent away.

Source: Open Inference Protocol, "HTTP/REST" (health, metadata, inference).
"""

import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from clipper_stream.errors import ModelFailed, ModelNotLoaded, ModelUnavailable, shown
from clipper_stream.models.allowlist import allows_url, not_allowed, plain_url
from clipper_stream.models.model import Model, Rows
from clipper_stream.models.runtimes.model_files import (
    TEXT,
    ModelFile,
    checked_parameters,
    import_extra,
    number,
    prefix_errors,
)
from clipper_stream.models.runtimes.oip_tensors import error_text, json_object, outputs_of, request_body

NEEDS_DIGEST = False
"""The server has the model's file, and answers for it."""
UNPICKLES = False
PARAMETERS = {
    "input": TEXT,
    "output": TEXT,
    "content_type": TEXT,
    "timeout_s": number(0.001, 3600, default=5.0),
    "max_response_mib": number(1, 1024, default=16.0),
    "token_env": TEXT,
}

_MODEL_PATH = re.compile(r"/v2/models/[^/]+(/versions/[^/]+)?$")
_TOKEN_VARIABLE = re.compile(r"CLIPPER_OIP_TOKEN[A-Z0-9_]*")
_UNAVAILABLE = frozenset({401, 403, 404, 408, 429, 502, 503, 504})
_OK = 200
_REDIRECTS = range(300, 400)
_MIB = 2**20
_CHUNK_BYTES = 64 * 1024
_DEFAULT_INPUT = "input-0"


@dataclass(frozen=True, slots=True, kw_only=True)
class OipModel:
    """A model on a server, behind the `Model` protocol: its path there, and the names of its tensors.

    Source: Open Inference Protocol, "Inference".
    """

    exchange: "_Http"
    path: str
    input: str
    output: str | None
    content_type: str | None

    def predict_batch(self, inputs: Rows) -> Sequence[Any]:
        """Return one output a row, of all rows in one request.

        Raises:
            ModelFailed: the server refuses the batch, or its answer does not fit the rows.
            ModelUnavailable: the server is not there, too slow, or refuses all requests.
        """
        body = request_body(inputs, self.input, self.output, self.content_type)
        status, answer = self.exchange.ask("POST", f"{self.path}/infer", body)
        if status == _OK:
            return outputs_of(answer, len(inputs), self.output)
        what = f"the server answered {status}: {error_text(answer)}"
        if status in _UNAVAILABLE or status in _REDIRECTS:
            raise ModelUnavailable(f"{what} (POST {self.path}/infer)")
        raise ModelFailed(what)


def check_allowed(uri: str, parameters: Mapping[str, Any], allowed: Sequence[str]) -> None:
    """Raise `ModelNotLoaded` when no entry of the operator's is a beginning of the URL, or the parameters are wrong."""
    _path(uri)
    with prefix_errors(f"model server {uri!r}"):
        checked_parameters("oip", parameters, PARAMETERS)
    if not allows_url(allowed, uri):
        raise not_allowed(f"model server {uri!r}", allowed, "allowed_locations", uri)


def read(uri: str) -> bytes:
    """Nothing: the model's file is the server's."""
    _path(uri)
    return b""


def load(uri: str, file: ModelFile) -> Model:
    """The model, when its server says that it is ready.

    Raises:
        ModelNotLoaded: urllib3 is missing, the URL or a parameter is wrong, or the server is not ready for the model.
    """
    path = _path(uri)
    with prefix_errors(f"model server {uri!r}"):
        wanted = checked_parameters("oip", file.parameters, PARAMETERS)
        exchange = _Http(uri, wanted["timeout_s"], wanted["max_response_mib"], _headers(wanted["token_env"]))
        _check_ready(exchange, path)
        name = wanted["input"] or _declared_input(exchange, path)
        return OipModel(
            exchange=exchange, path=path, input=name, output=wanted["output"], content_type=wanted["content_type"]
        )


def _path(uri: str) -> str:
    parts = plain_url(uri)
    if parts is None or not _MODEL_PATH.search(parts.path):
        what = f"uri {uri!r}: the runtime oip takes http://HOST:PORT/v2/models/NAME, with /versions/V or without"
        raise ModelNotLoaded(f"{what}; no user, query or escape in it")
    return parts.path


def _headers(token_env: str | None) -> dict[str, str]:
    headers = {"content-type": "application/json", "accept": "application/json", "accept-encoding": "identity"}
    if token_env is None:
        return headers
    if not _TOKEN_VARIABLE.fullmatch(token_env):
        what = f"token_env is {shown(token_env)}"
        raise ModelNotLoaded(f"{what}, give the name of an environment variable that begins with CLIPPER_OIP_TOKEN")
    token = os.environ.get(token_env, "").strip()
    if not token or not token.isascii() or not token.isprintable():
        what = "has a character that no header takes" if token else "is not set"
        raise ModelNotLoaded(f"the variable {token_env} {what}: set it where the model runs")
    return headers | {"authorization": f"Bearer {token}"}


def _check_ready(exchange: "_Http", path: str) -> None:
    try:
        status, body = exchange.ask("GET", f"{path}/ready")
    except ModelUnavailable as error:
        raise ModelNotLoaded(f"{error}; start it, or correct the uri") from error
    if status != _OK or json_object(body).get("ready") is False:
        what = f"the server is not ready, it answered {status}: {error_text(body)}"
        raise ModelNotLoaded(f"{what}; wait for the model, or correct its name, version or token")


def _declared_input(exchange: "_Http", path: str) -> str:
    """The name of the input tensor in the server's metadata, of which it need not have any."""
    try:
        status, body = exchange.ask("GET", path)
    except ModelUnavailable:
        return _DEFAULT_INPUT
    inputs = json_object(body).get("inputs") if status == _OK else None
    names = [each.get("name") for each in inputs if isinstance(each, dict)] if isinstance(inputs, list) else []
    if len(names) > 1:
        what = f"the model takes the tensors {shown(names)}, and a row is one tensor"
        raise ModelNotLoaded(f"{what}: name it in parameters.input if the others may be left out")
    return names[0] if names and isinstance(names[0], str) else _DEFAULT_INPUT


@dataclass(slots=True)
class _Http:
    """Requests to one server, over connections that are kept; may be called from any thread."""

    uri: str
    timeout_s: float
    max_response_mib: float
    headers: dict[str, str] = field(repr=False)
    _urllib3: Any = field(init=False, repr=False)
    _pool: Any = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._urllib3 = import_extra("oip", "urllib3")
        self._pool = self._urllib3.connection_from_url(self.uri, maxsize=1)

    def ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        """The status and the body of the answer.

        Raises:
            ModelUnavailable: no answer, none in time, or a larger one than is allowed.
        """
        until_s, errors = time.monotonic() + self.timeout_s, self._urllib3.exceptions
        for again in (True, False):
            try:
                return self._answer(method, path, body, until_s)
            except errors.HTTPError as error:
                if not (again and isinstance(error, errors.ProtocolError)):  # the server closed a kept connection
                    raise self._unavailable(error) from error
        raise AssertionError("the second attempt returns or raises")

    def _answer(self, method: str, path: str, body: bytes | None, until_s: float) -> tuple[int, bytes]:
        timeout = self._urllib3.Timeout(total=max(0.001, until_s - time.monotonic()))
        with self._pool.urlopen(
            method, path, body, self.headers, retries=False, redirect=False, timeout=timeout, preload_content=False
        ) as response:
            received = bytearray()
            while chunk := response.read1(_CHUNK_BYTES):
                received += chunk
                if len(received) > self.max_response_mib * _MIB:
                    what = f"the server's answer has more than {self.max_response_mib:g} MiB"
                    raise ModelUnavailable(f"{what}: raise parameters.max_response_mib")
                if time.monotonic() > until_s:  # each read alone has a bound as well
                    raise ModelUnavailable(f"no whole answer after {self.timeout_s:g} s: raise parameters.timeout_s")
            return response.status, bytes(received)

    def _unavailable(self, error: Exception) -> ModelUnavailable:
        if isinstance(error, self._urllib3.exceptions.TimeoutError) and not isinstance(
            error, self._urllib3.exceptions.NewConnectionError
        ):
            return ModelUnavailable(f"no answer after {self.timeout_s:g} s: raise parameters.timeout_s")
        return ModelUnavailable(f"the server cannot be asked, {type(error).__name__}: {shown(str(error))}")
