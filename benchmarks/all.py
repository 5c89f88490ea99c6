"""Is the pipeline as fast as it is expected to be? All benchmarks in turn, and every expectation in one table.

    python benchmarks/all.py                       # an hour
    python benchmarks/all.py --only A,B,memory
    python benchmarks/all.py --quick               # do they still run? Their numbers then say nothing

Each benchmark is a process of its own and writes its result into `results/`. One that fails does not stop the others;
the exit code is 0 when all ran, whatever was expected and missed.
"""

import argparse
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

from rig.processes import end
from rig.results import Target, show_targets, target_of

HERE = Path(__file__).resolve().parent
BENCHMARKS = {
    "A": "throughput",
    "B": "latency",
    "C": "batching",
    "C simulated": "batching_quality",
    "D": "delayed_batching",
    "E": "feedback",
    "F": "replicas",
    "G": "stragglers",
    "H": "recovery",
    "I": "scale",
    "K": "deploying",
    "L": "http_servers",
    "N": "gateway_limits",
    "console": "console_view",
    "memory": "memory",
    "reading": "replay_reading",
    "estimates": "estimating",
    "tracing": "tracing",
}


def main() -> None:
    options = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    options.results.mkdir(parents=True, exist_ok=True)
    targets: list[Target] = []
    failed: list[str] = []
    for letter in options.only:
        result = options.results / f"{BENCHMARKS[letter]}.json"
        if ran(letter, result, quick=options.quick):
            targets += [target_of(found) for found in json.loads(result.read_text())["targets"]]
        else:
            failed.append(letter)
    show_targets(targets)
    missed = sum(not target.met for target in targets)
    print(f"{len(targets) - missed} of {len(targets)} as expected; did not run: {', '.join(failed) or 'none'}")
    sys.exit(bool(failed))


def ran(letter: str, result: Path, *, quick: bool) -> bool:
    """Run one benchmark; whether it ended well and left a result of its own."""
    result.unlink(missing_ok=True)
    script = HERE / f"{BENCHMARKS[letter]}.py"
    print(f"\n=== {letter}: {script.name}", flush=True)
    began_s = time.monotonic()
    command = [sys.executable, str(script), "--json", str(result), *(["--quick"] if quick else [])]
    process = subprocess.Popen(command, start_new_session=True, text=True)
    try:
        code = process.wait()
    finally:
        end(process)
    print(f"=== {letter}: exit code {code} after {time.monotonic() - began_s:.0f} s", flush=True)
    return code == 0 and result.exists()


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
    parser.add_argument("--only", type=letters, default=list(BENCHMARKS), metavar="A,B", help="these, in this order")
    parser.add_argument("--quick", action="store_true", help="a smoke run of each")
    parser.add_argument("--results", type=Path, default=HERE / "results", metavar="FOLDER")
    return parser.parse_args()


if __name__ == "__main__":
    main()
