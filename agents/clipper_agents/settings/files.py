"""A configuration file as plain values.

Rules of this file:
- A model without a runtime has the one that the form of its URI tells.
- TOML has no null, so `objective_ms = "none"` stands for it: an application without a deadline.
"""

import json
import tomllib
from pathlib import Path
from typing import Any

from clipper_stream.errors import InvalidSetting
from clipper_stream.models.registry import runtime_for


def read_file(path: Path) -> dict[str, Any]:
    """The content of a TOML file, or of a JSON file of the same shape (`*.json`, written by `up` for its workers).

    Raises:
        InvalidSetting: the file cannot be read or is not TOML (JSON).
    """
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except OSError as error:
        raise InvalidSetting(f"{path}: {error.strerror}; give the path of a clipper.toml") from error
    except (ValueError, UnicodeDecodeError) as error:
        raise InvalidSetting(f"{path}: not {path.suffix.lstrip('.') or 'toml'}: {error}") from error
    if not isinstance(content, dict):
        raise InvalidSetting(f"{path}: expected a table of sections")
    for application in _tables(content.get("application")):
        if application.get("objective_ms") == "none":
            application["objective_ms"] = None
    for model in _tables(content.get("model")):
        model.setdefault("runtime", runtime_for(str(model.get("uri"))) or "python")
    return content


def _tables(value: Any) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []
