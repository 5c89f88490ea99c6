"""Is the pipeline as fast as it is expected to be? All benchmarks in turn, and every figure into the pages.

    python benchmarks/all.py                       # half an hour
    python benchmarks/all.py --long                # hours: each as it is alone, and those that take long
    python benchmarks/all.py --only A,B            # these anew; the pages say of which run each one is
    python benchmarks/all.py --quick               # do they still run? Their numbers then say nothing, and are not kept

Each benchmark is a process of its own and writes its result into `results/`; `figures.py` writes the pages from them.
One that fails, or takes more than three times its share, does not stop the others: it is named, its old result goes,
and the exit code is 1. It is 0 when all ran, whatever was expected and missed.
"""

import argparse
import json
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rig.processes import end
from rig.results import Target, load_average, show_targets, target_of

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One benchmark.

    Attributes:
        script: Its file.
        minutes: Its share of the half hour; 0: it has a place in a long run alone.
        short: Its options in the half hour.
        long: Its options in a long run.
        page: A page of its own, which it writes.
    """

    script: str
    minutes: float = 0.0
    short: str = ""
    long: str = ""
    page: str = ""


BENCHMARKS = {
    "A": Benchmark("throughput", 6.0, "--again 1 --records 170000 --limit 25", "--rounds 3"),
    "B": Benchmark("latency", 7.5, "--rates 200 1000 half --seconds 4 --warmup 1 --queries 60000"),
    "steps": Benchmark("latency_steps", 4.0, "--seconds 2.5 --warmup 1", page="latency-steps.md"),
    "C": Benchmark(
        "batching", 0.6, "--rounds 1 --seconds 1 --first 2 --probe 0.1 --models no-op 'linear SVM' 'kernel SVM'"
    ),
    "C simulated": Benchmark("batching_quality", 0.1),
    "D": Benchmark("delayed_batching", 0.2, "--rounds 1 --seconds 1.5 --delays-ms 0 2 5"),
    "E": Benchmark("feedback", 0.8, "--rounds 1 --queries 5000"),
    "F": Benchmark(
        "replicas", 0.8, "--seconds 3 --systems 'hosts 1' 'hosts 4' 'routers 1' 'routers 2' 'routers 2, hosts 4'"
    ),
    "G": Benchmark("stragglers", 0.7, "--seconds 5 --sizes 1 16"),
    "H": Benchmark("recovery", 1.0, long="--rounds 3"),
    "I": Benchmark("scale", 1.0, "--contexts 10 100 --partitions 4 16 64 --models 1 4 16 --queries 20000 --repeats 1"),
    "K": Benchmark("deploying", 0.6, "--rounds 1 --seconds 8"),
    "L": Benchmark(
        "http_servers",
        2.8,
        "--seconds 4 --warmup 1 --systems mlserver bentoml fastapi bare gateway gateway-packed colocated",
        "--rounds 3",
    ),
    "N": Benchmark("gateway_limits", 0.8, "--beside 4 --warmup 2 --calm 3 --seconds 10 --after 5"),
    "console": Benchmark("console_view"),
    "memory": Benchmark("memory"),
    "reading": Benchmark("replay_reading", 1.1, "--decisions 400000 --file-decisions 1000000"),
    "estimates": Benchmark("estimating", 0.1, "--rounds 1"),
    "tracing": Benchmark("tracing", 0.3, "--rounds 1 --chunks 60 --repeats 20"),
}
LIMIT, LEAST_LIMIT_S, LONG_LIMIT_S = 3, 180, 7_200
"""A benchmark is ended after so many times its share, no sooner than after so many seconds; in a long run after two
hours."""


def main() -> None:
    options = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    began = {"began": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()), "load": load_average(), "long": options.long}
    targets: list[Target] = []
    failed: list[str] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.results or (Path(temporary) if options.quick else RESULTS)
        folder.mkdir(parents=True, exist_ok=True)
        for letter in options.only or [letter for letter, each in BENCHMARKS.items() if each.minutes or options.long]:
            found = ran(letter, folder, began, options)
            targets += [target_of(one) for one in found.get("targets", [])]
            failed += [] if found else [letter]
    show_targets(targets)
    missed = sum(not target.met for target in targets)
    print(f"{len(targets) - missed} of {len(targets)} as expected; failed: {', '.join(failed) or 'none'}", flush=True)
    if folder == RESULTS:
        failed += ["figures"] if subprocess.run([sys.executable, HERE / "figures.py"], check=False).returncode else []
    sys.exit(bool(failed))


def ran(letter: str, folder: Path, began: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """Run one benchmark; its result with the run that it is of, empty where it failed or took too long."""
    each = BENCHMARKS[letter]
    result, script = folder / f"{each.script}.json", HERE / f"{each.script}.py"
    result.unlink(missing_ok=True)
    print(f"\n=== {letter}: {script.name}", flush=True)
    words = ["--quick"] if options.quick else shlex.split(each.long if options.long else each.short)
    if each.page and not options.quick:
        words += ["--page", str(folder / each.page)]
    limit_s = LONG_LIMIT_S if options.long else max(LEAST_LIMIT_S, LIMIT * 60 * each.minutes)
    command, began_s = [sys.executable, str(script), "--json", str(result), *words], time.monotonic()
    process = subprocess.Popen(command, start_new_session=True, text=True)
    try:
        ended = f"exit code {process.wait(limit_s)}"
    except subprocess.TimeoutExpired:
        ended = "ended, as it took too long,"
    finally:
        end(process)
    took_s = round(time.monotonic() - began_s)
    print(f"=== {letter}: {ended} after {took_s} s", flush=True)
    if process.returncode or not result.exists():
        result.unlink(missing_ok=True)
        return {}
    found: dict[str, Any] = {"run": {**began, "took_s": took_s}, **json.loads(result.read_text())}
    result.write_text(json.dumps(found, indent=2) + "\n")
    return found


def letters(text: str) -> list[str]:
    """`A,B,memory` as a list.

    Raises:
        ArgumentTypeError: a letter that no benchmark has.
    """
    found = [letter.strip() for letter in text.split(",")]
    unknown = [letter for letter in found if letter not in BENCHMARKS]
    if unknown:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: use some of {','.join(BENCHMARKS)}")
    return found


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=letters, metavar="A,B", help="these, in this order")
    parser.add_argument("--long", action="store_true", help="each benchmark with its own defaults; all of them")
    parser.add_argument("--quick", action="store_true", help="a smoke run of each")
    parser.add_argument("--results", type=Path, metavar="FOLDER", help="keep results here, and leave the pages")
    return parser.parse_args()


if __name__ == "__main__":
    main()
