"""`clipper-stream init`: a small project to start from."""

from pathlib import Path
from typing import Annotated

import typer

from clipper_agents.cli.options import Parameters, parameters_of
from clipper_agents.cli.terminal import say

CONFIGURATION = Path(__file__).parents[1] / "examples/project.toml"
MODELS = '''\
"""Functions from a batch of rows to one output a row; numeric rows are one numpy matrix."""


def more_than_one(rows):
    return (rows.sum(axis=1) > 1).astype(int)
'''
Folder = Annotated[Path, typer.Argument(help="Folder, made if it is missing; absent: this one.")]
Model = Annotated[
    str | None, typer.Option(metavar="MODEL", help="A model file, or package.module:attribute; absent: an example.")
]


def init(folder: Folder = Path(), model: Model = None, parameters: Parameters = None) -> None:
    """Write a configuration with comments and a model: a small project to start from. Overwrites nothing.

    With --model the configuration is about that model, and has what its file says about rows.
    """
    from clipper_stream.errors import InvalidSetting

    config, row = folder / "clipper.toml", "'[0.5, 0.2, 0.9]'"
    name, written = "sums", {config: CONFIGURATION.read_text(encoding="utf-8"), folder / "my_models.py": MODELS}
    if model is not None:
        from clipper_agents.cli.model_target import configuration_of, read_target, with_fitted_row

        found = with_fitted_row(*read_target(model, None, {"parameters": parameters_of(parameters)}))
        name, row, written = found.name, "INPUT_JSON", {config: configuration_of(found, folder)}
    if there := [path for path in written if path.exists()]:
        raise InvalidSetting(f"{there[0]} is there already: name another folder, as `clipper-stream init mine`")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, text in written.items():
            path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InvalidSetting(f"{error.filename}: {error.strerror}; name a folder that can be written") from error
    ask = f"`clipper-stream predict {name} {row}` in another terminal"
    say(f"wrote {' and '.join(map(str, written))}: start it there by `clipper-stream up`, then ask it by {ask}")
