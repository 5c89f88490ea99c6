"""A model's life while traffic flows: deployed, compared, promoted, rolled back, retired; a bad version ends by itself.

    make demo-lifecycle

Everything is done by the commands that an operator types; they are printed with what they say. The script only asks,
says what the pictures showed, waits for what the rollout rule decides, and counts.
"""

import argparse
import asyncio
import logging
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec
from train import train_versions

from clipper_agents.demo.data import draw_traffic, load_digits
from clipper_stream.client import Client
from clipper_topics.change import Change
from examples.shared.operation import PipelineProcess, RolloutOperator, decided, line_of
from examples.shared.traffic import LabelledTraffic

CONFIGURATION = """
[kafka]
partitions = 2

[models]
allowed_locations = ["{folder}"]

[[application]]
name = "digits"
input = {{ shape = [64] }}
models = ["digits:1"]
policy = {{ name = "exp3", parameters = {{ exploration = 0.3 }} }}
objective_ms = 1000
default_output = -1
rollout = {{ margin = 0.02, steps = [0.1, 0.5], least = 40 }}

[[model]]
name = "digits"
version = "1"
runtime = "sklearn"
uri = "{first}"
input = {{ shape = [64] }}
"""
QUIET_S = 10.0
"""Of traffic before anything is changed."""
LOOK_S = 4.0
"""Between two commands, for shares to be seen in the plot."""
LATE_FACTOR, LATE_MS = 2.0, 50.0
"""Commands may raise the 99th percentile so much before this is called a failure: hosts start on the same cores."""


async def live(operator: RolloutOperator, files: dict[str, Path]) -> None:
    """The story: each step is a command, or something that the rule decides by itself."""

    async def deploy(version: str, *how: str) -> None:
        what = (f"digits:{version}", "--uri", str(files[version]))
        await operator.run("model", "deploy", *what, "--application", "digits", "--automatic", "--wait", "180", *how)

    await deploy("2", "--stage", "shadow", "--why", "trained on all pictures")
    await operator.wait_for("version 2 is a canary", decided("step", "digits:2"))
    await operator.run("status")
    await operator.wait_for("version 2 is promoted", decided("promote", "digits:2"))
    await asyncio.sleep(LOOK_S)
    await deploy("3", "--stage", "canary", "--share", "0.1", "--why", "trained on scaled pictures")
    await operator.wait_for("version 3 is aborted", decided("abort", "digits:3"))
    back = ("--application", "digits", "--to-revision", "1")
    await operator.run("model", "rollback", *back, "--why", "as it was before version 2")
    await asyncio.sleep(LOOK_S)
    again = ("--application", "digits", "--share", "0.3", "--by-hand")
    await operator.run("model", "canary", "digits:2", *again, "--why", "version 2 was better")
    await asyncio.sleep(3 * LOOK_S)
    await operator.run("model", "promote", "digits:2", "--application", "digits", "--why", "it is")
    await operator.run("application", "update", "digits", "--field", "keep_best=1", "--why", "one is enough")
    await operator.wait_for("version 1 is retired", decided("retire", "digits:1"))
    await asyncio.sleep(LOOK_S)
    await operator.run("status")
    await operator.run("application", "history", "digits")


async def run(rate: float, out: Path) -> dict[str, Any]:
    """Everything; the figures."""
    digits = load_digits(seed=0)
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lifecycle-")))
        files = await asyncio.to_thread(train_versions, digits, folder)
        up = stack.enter_context(PipelineProcess(folder, CONFIGURATION.format(folder=folder, first=files["1"])))
        bootstrap = await asyncio.to_thread(up.wait_ready)
        client = await stack.enter_async_context(Client(bootstrap))
        operator = RolloutOperator(bootstrap, folder, "digits")
        traffic = LabelledTraffic(client, "digits", draw_traffic(digits, 5_000, seed=1), rate)
        await traffic.start()
        operator.slowness = rate / traffic.rate
        began_s = time.time()
        await asyncio.sleep(QUIET_S)
        await live(operator, files)
        ended_s = time.time()
        await traffic.stop()
        changes = await operator.history()
        quiet_ms = traffic.p99_ms(lambda second: second > began_s + 2 and operator.is_quiet(second))
        changing_ms = traffic.p99_ms(lambda second: not operator.is_quiet(second))
        late = f"the 99th percentile was {changing_ms:.0f} ms while versions changed, and {quiet_ms:.0f} ms otherwise"
        is_late = changing_ms > LATE_FACTOR * quiet_ms + LATE_MS
        figures = {
            "failure": traffic.failure() or (late if is_late else ""),
            "queries": traffic.sent,
            "lost": traffic.sent - traffic.answered,
            "defaults": sum(second.defaults for second in traffic.seconds.values()),
            "feedbacks": traffic.fed_back,
            "changes": [line_of(change) for change in changes],
            "p99_ms_quiet": round(quiet_ms, 1),
            "p99_ms_changing": round(changing_ms, 1),
            "seconds": round(ended_s - began_s, 1),
        }
        write(out, figures, changes, traffic)
        return figures


def write(out: Path, figures: dict[str, Any], changes: list[Change], traffic: LabelledTraffic) -> None:
    """Write the page and the figures into a folder."""
    from page import lifecycle_report, lifecycle_samples  # noqa: PLC0415 - matplotlib takes a second

    out.mkdir(parents=True, exist_ok=True)
    lead = f"{figures['queries']:,} queries, of which {figures['defaults']:,} got the default output."
    lifecycle_report(out / "lifecycle.html", changes, lifecycle_samples(traffic.seconds), "A model's life", lead)
    (out / "lifecycle.json").write_bytes(msgspec.json.format(msgspec.json.encode(figures), indent=2))


def main() -> None:
    """Run it, print the figures, and fail when a query was lost, or answers were defaults or came much later."""
    parser = argparse.ArgumentParser(description="A model's life while traffic flows.")
    parser.add_argument("--rate", type=float, default=100.0, help="queries a second")
    parser.add_argument("--out", type=Path, default=Path("demo-report"), help="folder of the page and the figures")
    options = parser.parse_args()
    logging.getLogger().addHandler(logging.NullHandler())  # matplotlib warns that it makes a font cache
    figures = asyncio.run(run(options.rate, options.out.resolve()))
    print()
    for name, value in figures.items():
        if name != "changes":
            print(f"{name:18} {value}")
    print(f"page               {options.out / 'lifecycle.html'}")
    if figures["failure"]:
        raise SystemExit(figures["failure"])


if __name__ == "__main__":
    main()
