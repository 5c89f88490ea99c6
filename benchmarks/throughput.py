"""How many queries a second does a pipeline answer, and for how much CPU, beside other ways to do it with Kafka?

    python benchmarks/throughput.py --json throughput.json
    python benchmarks/throughput.py --quick                       # six systems, about a minute
    python benchmarks/throughput.py --systems aiokafka separate-msgpack --rounds 3

Every system reads the same queries (64 numbers as JSON, some also as msgpack) from a topic of four partitions, calls
the same model (`models.py`) and writes a prediction for each to another topic. Rivals: hand-written loops on
confluent-kafka and aiokafka, Bytewax, Quix Streams, stock Faust, FastStream, and MLServer's Kafka mode; their packages
go into environments of their own, made on first use. Ours: the model in the router (`colocated`) or in a host
(`separate`), cold cache; the same with half and nine tenths of the rows asked before (`cached`); 16 rows a record
(`packed`).

The backlog is written first and the system started then, so that no generator is part of what is measured. Rate: from
the end offsets of the predictions between the 5 % and the 95 % mark; where a system works on many queries at once, so
many are left out at both ends. CPU: from /proc over the same span, by process.
One CPU for the process under measurement, one for broker and benchmark, and for the host of `separate`; more where
there are more. Afterwards every prediction is read: missing, duplicate and wrong ones are told.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from rig.backlog import PARTITIONS
from rig.competing import competed, warm_up
from rig.conditions import conditions
from rig.contenders import Contender, contenders
from rig.environments import RIVALS
from rig.processes import Cpus
from rig.session import said, session
from rig.standing import show_standing, standing, throughput_targets
from rig.targets import show_targets

QUICK = ("aiokafka", "aiokafka-msgpack", "faust", "colocated-json", "separate-msgpack", "packed-msgpack")
QUICK_RECORDS, LEAST_RECORDS = 20_000, 2_000
LEAST_AHEAD = 2.5
"""A backlog has at least so many times the queries that are left out at each end."""


def main() -> None:
    options = arguments()
    cpus = Cpus.single(pin=options.pin)
    known = contenders(options.msgpack)
    chosen = [known[name] for name in options.systems or known]
    runs = all_rounds(chosen, options, cpus)
    summary = standing(runs)
    targets = throughput_targets(summary)
    show_standing(summary, runs, known)
    show_targets(targets)
    if options.json:
        result = {
            "conditions": stated(options, cpus, chosen),
            "runs": runs,
            "summary": summary,
            "targets": [target.as_dict() for target in targets],
        }
        options.json.write_text(json.dumps(result, indent=2) + "\n")


def all_rounds(chosen: list[Contender], options: argparse.Namespace, cpus: Cpus) -> list[dict[str, Any]]:
    """Every system in every round, in an order that turns; each run is told when it is done, for whoever waits."""
    runs = []
    with session(options, cpus) as here:
        warm_up(here.place("warm-up", PARTITIONS), 20_000)
        for number in range(options.rounds):
            for each in chosen[:: -1 if number % 2 else 1]:
                place = here.place(f"t{number}-{each.name}", PARTITIONS)
                records = records_of(each, options.records)
                runs.append(said({"round": number, **competed(each, place, here.broker, records, options)}))
    return runs


def records_of(contender: Contender, most: int) -> int:
    """Length of a system's backlog."""
    return max(LEAST_RECORDS, round(most * contender.share), round(LEAST_AHEAD * contender.reads_ahead))


def stated(options: argparse.Namespace, cpus: Cpus, chosen: list[Contender]) -> dict[str, Any]:
    """The conditions, with the rivals' versions and the records of each system."""
    settings = {name: value for name, value in vars(options).items() if name not in ("json", "logs")}
    files = ("requirements.txt", "requirements-mlserver.txt")
    return {
        **conditions(cpus, **settings),
        "host_cpus": sorted(cpus.hosts),
        "rivals": [line for name in files for line in (RIVALS / name).read_text().split()],
        "leaves_out": {each.name: each.leaves_out for each in chosen if each.leaves_out},
    }


def arguments() -> argparse.Namespace:
    names = list(contenders("msgpack"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--records", type=int, default=200_000, help="largest backlog; slow systems get a share")
    parser.add_argument("--systems", nargs="+", choices=names, metavar="NAME", help=", ".join(names))
    help_text = "a row as its bytes, or as numbers"
    parser.add_argument("--msgpack", choices=["msgpack-bytes", "msgpack"], default="msgpack-bytes", help=help_text)
    parser.add_argument("--limit", type=float, default=40.0, help="seconds after which a system is stopped")
    parser.add_argument("--quick", action="store_true", help=f"{len(QUICK)} systems, {QUICK_RECORDS:,} queries")
    parser.add_argument("--no-install", dest="install", action="store_false", help="use rivals that are there already")
    parser.add_argument("--no-pin", dest="pin", action="store_false", help="let everything run on every CPU")
    parser.add_argument("--logs", type=Path, metavar="FOLDER", help="keep logs and tables of the processes here")
    parser.add_argument("--json", type=Path, help="write conditions, runs, summary and targets here")
    options = parser.parse_args()
    if options.quick:
        options.records, options.systems = QUICK_RECORDS, options.systems or list(QUICK)
    return options


if __name__ == "__main__":
    main()
