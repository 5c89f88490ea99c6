"""What the rivals share: settings from the environment, bytes to rows and back, and the model call.

A query is `{"query_id": ..., "application": ..., "input": [64 numbers]}`, an answer has the first two and `output`.
"""

import os
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

try:
    from orjson import dumps, loads
except ImportError:  # outside of the rivals' own environment: a smoke run
    from msgspec.json import decode as loads
    from msgspec.json import encode as dumps

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from models import digits

BOOTSTRAP, GROUP = os.environ["RIVAL_BOOTSTRAP"], os.environ["RIVAL_GROUP"]
QUERIES, PREDICTIONS = os.environ["RIVAL_QUERIES"], os.environ["RIVAL_PREDICTIONS"]
FEEDBACK, OBJECTIVES_MS = os.environ["RIVAL_FEEDBACK"], loads(os.environ["RIVAL_OBJECTIVES_MS"])
FOLDER = Path(os.environ["RIVAL_FOLDER"])
"""For whatever a rival keeps on disk."""
BATCH = 1_000
"""Most rows in one call of the model, where a rival can batch at all."""
COMMIT_S = 1.0
LINGER_MS = 1

_MSGPACK = os.environ.get("RIVAL_ENCODING") == "msgpack"
decode = msgspec.msgpack.Decoder().decode if _MSGPACK else loads
encode = msgspec.msgpack.Encoder().encode if _MSGPACK else dumps


def answers(queries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One answer a query, by one call of the model."""
    labels = digits(_matrix([query["input"] for query in queries])).tolist()
    return [
        {"query_id": query["query_id"], "application": query["application"], "output": label}
        for query, label in zip(queries, labels, strict=True)
    ]


def _matrix(rows: list[Any]) -> Any:
    if isinstance(rows[0], bytes):
        return np.frombuffer(b"".join(rows), np.float32).reshape(len(rows), -1)
    return np.array(rows, np.float32)
