"""How long does a prediction take from topic to topic, how many a second are there, and what does it cost beyond Kafka?

    python benchmarks/end_to_end.py --json end_to_end.json            # about ten minutes
    python benchmarks/end_to_end.py --rounds 1 --queries 20000 --seconds 5

Four systems on one broker, the same queries, in rounds that rotate their order: the pipeline with its model inside the
router (`colocated`, two hops) beside a bare aiokafka echo with two hops (`echo`), and the pipeline with its model in a
host process (`separate`, four hops) beside an echo of four hops (`echo-chain`). Each gets new topics and new processes.

Latency: an open loop at a fixed rate, each latency counted from the intended send time (no coordinated omission).
Throughput: a bounded number of queries is always outstanding; the rate lies between the 5 % and the 95 % mark.
CPU: user and system time by process from /proc, divided by the queries; on a busy machine trust it more than the rate.
`rig_cpu`: CPUs used by broker and generator together. Where they share one (fewer than four CPUs) and it is above 0.8,
the queue in front of them is what was measured; the notes say so.
"""

import argparse
import json
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rig.conditions import conditions
from rig.measuring import measured
from rig.processes import Cpus, on_cpus
from rig.summary import show, summary
from rig.systems import SYSTEMS, Place

from clipper_agents.broker import EmbeddedBroker
from clipper_topics.catalogue import Catalogue

PARTITIONS = 4


def main() -> None:
    options = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the blocks below end what they started
    cpus = Cpus.split(pin=options.pin)
    settings = {name: value for name, value in vars(options).items() if name not in ("json", "logs")}
    runs = all_rounds(options, cpus)
    result = {"conditions": conditions(cpus, **settings), "runs": runs, "summary": summary(runs)}
    show(result)
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


def all_rounds(options: argparse.Namespace, cpus: Cpus) -> list[dict[str, Any]]:
    """Every system in every round; each run is printed when it is done, for whoever waits."""
    runs = []
    with (
        _folder(options.logs) as folder,
        on_cpus(cpus.rig),
        EmbeddedBroker() as broker,
    ):
        assert broker.pid is not None
        for number in range(options.rounds):
            for name in rotated(options.systems, number):
                catalogue = Catalogue(prefix=f"b{number}-{name}", partitions=PARTITIONS)
                place = Place(broker.connection, catalogue, cpus, folder)
                runs.append({"round": number, **measured(name, place, options, broker.pid)})
                print(json.dumps(runs[-1]), file=sys.stderr, flush=True)
    return runs


@contextmanager
def _folder(kept: Path | None) -> Iterator[Path]:
    """Where logs and tables go; removed afterwards unless it was asked for."""
    if kept is not None:
        kept.mkdir(parents=True, exist_ok=True)
        yield kept.resolve()
    else:
        with tempfile.TemporaryDirectory(prefix="clipper-benchmark-") as temporary:
            yield Path(temporary)


def rotated(names: list[str], by: int) -> list[str]:
    """The names in their order, beginning with another one in each round."""
    first = by % len(names)
    return names[first:] + names[:first]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rate", type=float, default=200.0, help="queries a second for latency")
    parser.add_argument("--seconds", type=float, default=20.0, help="of measured latency")
    parser.add_argument("--warmup", type=float, default=3.0, help="seconds at the same rate before")
    parser.add_argument("--queries", type=int, default=100_000, help="for throughput")
    parser.add_argument("--outstanding", type=int, default=10_000, help="queries without an answer, for throughput")
    parser.add_argument("--encoding", choices=["json", "msgpack"], default="json")
    parser.add_argument("--systems", nargs="+", choices=list(SYSTEMS), default=list(SYSTEMS))
    parser.add_argument("--no-pin", dest="pin", action="store_false", help="let everything run on every CPU")
    parser.add_argument("--logs", type=Path, metavar="FOLDER", help="keep logs and tables of the processes here")
    parser.add_argument("--json", type=Path, help="write conditions, runs and summary here")
    return parser.parse_args()


if __name__ == "__main__":
    main()
