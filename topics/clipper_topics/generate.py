"""`python -m clipper_topics.generate [FOLDER]`: write the JSON Schemas and the AsyncAPI document.

Without a folder they are written where they are packaged; a test fails while these differ from what would be written.
"""

import json
import sys
from pathlib import Path
from typing import Any

import msgspec

from clipper_topics import examples
from clipper_topics.asyncapi import document
from clipper_topics.audit import Audit
from clipper_topics.catalogue import Catalogue
from clipper_topics.change import Change
from clipper_topics.drift import DriftEvent
from clipper_topics.feedback import Feedback
from clipper_topics.host_report import HostReport
from clipper_topics.json_schema import schema
from clipper_topics.manifests import ApplicationManifest, ModelManifest
from clipper_topics.prediction import Prediction
from clipper_topics.query import Query
from clipper_topics.restore import Restore

FOLDER = Path(__file__).parent / "schemas"
CONTRACT_VERSION = "1.2.0"
"""Minor: a field was added, older readers ignore it. Major: an old reader would misunderstand."""

SCHEMAS: dict[str, tuple[type[msgspec.Struct], list[msgspec.Struct]]] = {
    "query": (Query, [examples.QUERY, examples.QUERY_OF_ROWS, examples.QUERY_IN_CONTEXT, examples.QUERY_WITH_FEATURES]),
    "prediction": (Prediction, [examples.PREDICTION, examples.PREDICTION_BY_FEATURES, examples.DEFAULT_PREDICTION]),
    "audit": (Audit, [examples.AUDIT]),
    "feedback": (Feedback, [examples.LABEL, examples.REWARD]),
    "application": (ApplicationManifest, [examples.APPLICATION]),
    "model": (ModelManifest, [examples.MODEL]),
    "change": (Change, [examples.CHANGE]),
    "host-report": (HostReport, [examples.HOST_REPORT]),
    "restore": (Restore, [examples.RESTORE]),
    "drift": (DriftEvent, [examples.DRIFT]),
}


def documents() -> dict[str, str]:
    """Text of every generated file, by file name."""
    found: dict[str, Any] = {
        f"{name}.schema.json": schema(record, [msgspec.to_builtins(example) for example in shown])
        for name, (record, shown) in SCHEMAS.items()
    }
    found["asyncapi.json"] = document(Catalogue(), CONTRACT_VERSION)
    return {name: json.dumps(content, indent=2, ensure_ascii=False) + "\n" for name, content in found.items()}


def main(folder: Path = FOLDER) -> None:
    """Write the files into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in documents().items():
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(*(Path(folder) for folder in sys.argv[1:2]))
