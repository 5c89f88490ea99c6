"""`python -m clipper_topics.generate [FOLDER]`: write the JSON Schemas and the AsyncAPI document.

Without a folder they are written where they are packaged; a test fails while these differ from what would be written.
"""

import json
import sys
from pathlib import Path
from typing import Any

import msgspec

from clipper_topics.asyncapi import document
from clipper_topics.catalogue import Catalogue
from clipper_topics.examples import MESSAGES
from clipper_topics.json_schema import schema

FOLDER = Path(__file__).parent / "schemas"
CONTRACT_VERSION = "1.4.0"
"""Minor: a field was added, older readers ignore it; or more is accepted.
Major: an old reader would misunderstand."""


def documents() -> dict[str, str]:
    """Text of every generated file, by file name."""
    found: dict[str, Any] = {
        f"{name}.schema.json": schema(kind.record, [msgspec.to_builtins(example) for example in kind.examples])
        for name, kind in MESSAGES.items()
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
