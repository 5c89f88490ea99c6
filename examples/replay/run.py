"""A day of traffic is logged; it says which policy, or new model, would have been better; that one is switched on.

    make demo-replay

Everything is done by the commands that a user types; they are printed with what they say. A day lasts a minute and a
half here, with a quiet night and a busy noon. The script only asks, says what the pictures showed, and compares what
was predicted with what came.
"""

import argparse
import asyncio
import json
import math
import tempfile
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipper_agents.demo.data import Digits, draw_traffic, load_digits
from clipper_agents.demo.models import TRUSTED, TrainedModel, train
from clipper_stream.client import Client
from examples.shared.operation import Operator, PipelineProcess
from examples.shared.traffic import LabelledTraffic

SERVED = ("logistic", "forest", "bayes")
"""What the application asks while the day is logged."""
NEW = "svm"
"""The model that nobody has been asked about yet."""
CANDIDATES = ("split", "exp3:eta=0.2", "thompson", f"model {NEW}:1")
CONFIGURATION = """
[kafka]
partitions = 2

[models]
allowed_modules = ["sklearn.tree._tree.Tree"]
allowed_locations = ["{folder}"]

[[application]]
name = "digits"
input = {{ shape = [64] }}
models = [{served}]
policy = {{ name = "epsilon_greedy", parameters = {{ epsilon = 0.4 }} }}
objective_ms = 2000
audit_ratio = 0.1
default_output = -1
"""
MODEL = """
[[model]]
name = "{name}"
runtime = "sklearn"
uri = "{path}"
input = {{ shape = [64] }}
parameters = {{ trusted = [{trusted}] }}
"""
Z = 1.96
"""Of a normal interval of 95 %."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Day:
    """A day of traffic, shorter.

    Attributes:
        seconds: How long it lasts.
        rate: Queries a second on average.
    """

    seconds: float
    rate: float

    def shape(self, after_s: float) -> float:
        """Multiple of the rate so long after midnight: twice as much at noon as on average, hardly any at night."""
        return max(0.1, 1.0 - 0.9 * math.cos(2 * math.pi * after_s / self.seconds))


async def spend(client: Client, digits: Digits, day: Day, seed: int) -> tuple[float, int]:
    """A day of queries with their feedback: mean loss of the answers, of which a default is wrong, and how many."""
    pictures = draw_traffic(digits, round(2 * day.seconds * day.rate), seed)
    traffic = LabelledTraffic(client, "digits", pictures, day.rate, shape=day.shape)
    await traffic.start()
    await asyncio.sleep(day.seconds)
    await traffic.stop()
    if why := traffic.failure():
        raise SystemExit(why)
    wrong = sum(sum(second.wrong.values()) + second.defaults for second in traffic.seconds.values())
    return wrong / traffic.answered, traffic.answered


async def replay(operator: Operator, model: TrainedModel, out: Path) -> dict[str, Any]:
    """What the day says about each candidate."""
    await operator.run("replay", "verify")
    await operator.run("replay", "export", "digits", "--out", "day.parquet", "--inputs")
    what = ("--model", model.ref, "--uri", str(model.path), "--shape", "64")
    await operator.run("replay", "score", "day.parquet", *what, "--out", "new.parquet")
    asked = [part for text in CANDIDATES for part in ("--candidate", text)]
    logs = ("--log", "day.parquet", "--answers", "new.parquet")
    page = ("--report", str(out / "replay.html"), "--save", str(out / "evaluation.json"))
    await operator.run("replay", "evaluate", "digits", *logs, *asked, *page)
    found: dict[str, Any] = json.loads((out / "evaluation.json").read_text())
    return found


async def switch_on(operator: Operator, best: str, model: TrainedModel) -> None:
    """Make the best candidate what decides."""
    if best == f"model {model.ref}":
        what = (model.ref, "--uri", str(model.path))
        await operator.run("model", "deploy", *what, "--application", "digits", "--stage", "live", "--wait", "180")
        policy = {"name": "single", "parameters": {"model": model.ref}}
    else:
        name, _, parameters = best.partition(":")
        pairs = (pair.split("=") for pair in parameters.split(",") if pair)
        policy = {"name": name, "parameters": {key: json.loads(value) for key, value in pairs}}
    why = "it would have been better, says the day that was logged"
    await operator.run("application", "update", "digits", "--field", f"policy={json.dumps(policy)}", "--why", why)


def predicted(candidate: dict[str, Any], live: int) -> tuple[float, float]:
    """Where the mean loss of so many live answers lies, with 95 %: neither the estimate is certain, nor are they."""
    estimate = candidate["estimates"][candidate["headline"]]
    error = (estimate["high"] - estimate["low"]) / (2 * Z)
    value = estimate["value"]
    radius = Z * math.sqrt(error**2 + value * (1 - value) / live)
    return value - radius, value + radius


async def run(day: Day, out: Path) -> dict[str, Any]:
    """Everything; the figures."""
    digits = load_digits(seed=0)
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="replay-")))
        models = {model.name: model for model in await asyncio.to_thread(train, digits, folder, 0)}
        up = stack.enter_context(PipelineProcess(folder, configuration(folder, models)))
        bootstrap = await asyncio.to_thread(up.wait_ready)
        client = await stack.enter_async_context(Client(bootstrap))
        operator = Operator(bootstrap, folder, {"CLIPPER_KAFKA_PARTITIONS": "2"})
        print(f"\na day of {day.seconds:.0f} s under epsilon_greedy ...", flush=True)
        logged, queries = await spend(client, digits, day, seed=1)
        evaluation = await replay(operator, models[NEW], out)
        best = min(evaluation["candidates"], key=lambda one: one["estimates"][one["headline"]]["value"])
        await switch_on(operator, best["name"], models[NEW])
        print(f"\na day of {day.seconds:.0f} s under {best['name']} ...", flush=True)
        live, answers = await spend(client, digits, day, seed=2)
        await operator.run("replay", "verify")
        low, high = predicted(best, answers)
        estimate = best["estimates"][best["headline"]]
        return {
            "logged": {"policy": "epsilon_greedy", "queries": queries, "loss": logged},
            "candidates": {one["name"]: one["estimates"][one["headline"]] for one in evaluation["candidates"]},
            "best": best["name"],
            "estimate": estimate,
            "predicted_live": [low, high],
            "live": {"queries": answers, "loss": live},
            "inside": low <= live <= high,
        }


def configuration(folder: Path, models: dict[str, TrainedModel]) -> str:
    """Of the deployment, TOML."""
    served = ", ".join(f'"{models[name].ref}"' for name in SERVED)
    parts = [CONFIGURATION.format(folder=folder, served=served)]
    for name in SERVED:
        trusted = ", ".join(f'"{one}"' for one in TRUSTED)
        parts.append(MODEL.format(name=name, path=models[name].path, trusted=trusted))
    return "".join(parts)


def main() -> None:
    """Run it, print what was predicted and what came, and fail when the one is not in the other."""
    parser = argparse.ArgumentParser(description="A day of traffic is logged, evaluated, and learned from.")
    parser.add_argument("--seconds", type=float, default=90.0, help="how long a day lasts")
    parser.add_argument("--rate", type=float, default=60.0, help="queries a second on average")
    parser.add_argument("--out", type=Path, default=Path("demo-report"), help="folder of the page and the figures")
    options = parser.parse_args()
    out = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    figures = asyncio.run(run(Day(seconds=options.seconds, rate=options.rate), out))
    (out / "replay.json").write_text(json.dumps(figures, indent=2))
    low, high = figures["predicted_live"]
    print(
        f"\nlogged     {figures['logged']['loss']:.4f}   under epsilon_greedy, {figures['logged']['queries']:,} queries"
    )
    for name, estimate in figures["candidates"].items():
        print(f"estimated  {estimate['value']:.4f}   {estimate['low']:.4f} to {estimate['high']:.4f}   {name}")
    print(f"predicted  {low:.4f} to {high:.4f}   for {figures['live']['queries']:,} live answers of {figures['best']}")
    print(f"live       {figures['live']['loss']:.4f}")
    print(f"page       {options.out / 'replay.html'}")
    if not figures["inside"]:
        raise SystemExit("the live result is not in the interval that was predicted")


if __name__ == "__main__":
    main()
