"""A project from its files to a promoted canary and an evaluation: what the examples in `examples/projects` share."""

import argparse
import asyncio
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipper_loadgen import Dataset
from clipper_stream.client import Client
from examples.shared.operation import PipelineProcess, RolloutOperator, decided
from examples.shared.traffic import LabelledTraffic

QUIET_S = 3.0
"""Of traffic before the canary, and after it was promoted."""
HEAD = """
[kafka]
partitions = 2

[models]
allowed_locations = ["{folder}"]
allowed_modules = {modules}

"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """A stranger's project.

    Attributes:
        application: Its name.
        train: Writes the files of the models into a folder; returns by `name:version` what each is loaded from.
        configuration: TOML of the application and its first models, with `{name:version}` for what `train` returned.
        traffic: What is asked, with its labels.
        canary: The version, `name:version`, that is deployed while traffic flows.
        candidates: Of the evaluation.
        contexts: Of each row of the traffic.
        modules: That models are in.
    """

    application: str
    train: Callable[[Path], Mapping[str, str]]
    configuration: str
    traffic: Dataset
    canary: str
    candidates: Sequence[str]
    contexts: Sequence[str] = ()
    modules: Sequence[str] = ()


async def run(project: Project, rate: float, out: Path) -> dict[str, Any]:
    """Everything; the figures."""
    name, canary = project.application, project.canary
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=f"{name}-")))
        targets = await asyncio.to_thread(project.train, folder)
        configuration = HEAD + project.configuration
        for field, text in {"folder": str(folder), "modules": json.dumps(project.modules), **targets}.items():
            configuration = configuration.replace(f"{{{field}}}", text)
        up = stack.enter_context(PipelineProcess(folder, configuration))
        bootstrap = await asyncio.to_thread(up.wait_ready)
        operator = RolloutOperator(bootstrap, folder, name)
        client = await stack.enter_async_context(Client(bootstrap))
        traffic = LabelledTraffic(client, name, project.traffic, rate, project.contexts)
        await traffic.start()
        operator.slowness = rate / traffic.rate
        await asyncio.sleep(QUIET_S)
        how = ("--stage", "canary", "--share", "0.4", "--automatic", "--wait", "120")
        await operator.run("model", "deploy", canary, "--uri", targets[canary], "--application", name, *how)
        await operator.wait_for(f"{canary} is promoted", decided("promote", canary))
        await asyncio.sleep(QUIET_S)
        of = ("--context", project.contexts[0]) if project.contexts else ()
        await operator.run("selection", "show", name, *of)
        await traffic.stop()
        await operator.run("replay", "export", name, "--out", "log.parquet")
        asked = [part for text in project.candidates for part in ("--candidate", text)]
        saved = out / f"{name}.evaluation.json"
        await operator.run("replay", "evaluate", name, "--log", "log.parquet", *asked, "--save", str(saved))
        evaluated = json.loads(saved.read_text())["candidates"]
        return {
            "queries": traffic.sent,
            "failure": traffic.failure(),
            "lost": traffic.sent - traffic.answered,
            "defaults": sum(second.defaults for second in traffic.seconds.values()),
            "feedbacks": traffic.fed_back,
            "changes": [f"{change.command} {change.model}" for change in await operator.history()],
            "losses": {each["name"]: each["estimates"][each["headline"]] for each in evaluated},
        }


def main(project: Project) -> None:
    """Run the project, print and write the figures, and fail where they show nothing."""
    parser = argparse.ArgumentParser(description="From model files to a promoted canary and an evaluation.")
    parser.add_argument("--rate", type=float, default=50.0, help="queries a second")
    parser.add_argument("--out", type=Path, default=Path("demo-report"), help="folder of the figures")
    options = parser.parse_args()
    out = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    figures = asyncio.run(run(project, options.rate, out))
    (out / f"{project.application}.json").write_text(json.dumps(figures, indent=2))
    print()
    for name, value in figures.items():
        print(f"{name:10} {value}")
    if figures["failure"]:
        raise SystemExit(figures["failure"])
