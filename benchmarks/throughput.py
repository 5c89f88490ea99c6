"""How many queries a second does a pipeline answer, and for how much CPU, beside other ways to do it with Kafka?

    python benchmarks/throughput.py --json throughput.json
    python benchmarks/throughput.py --quick                       # every rival and five of ours, some minutes
    python benchmarks/throughput.py --systems aiokafka-pass-through separate-msgpack --rounds 3

Every system reads the same queries (64 numbers as JSON, some also as msgpack) from a topic of four partitions, calls
the same model (`models.py`) and writes a prediction for each to another topic. Rivals: hand-written loops on
confluent-kafka and aiokafka, Bytewax, Quix Streams, stock Faust, FastStream, and MLServer's Kafka mode; their packages
go into environments of their own, made on first use. `pass-through` are the floor: they call the model and no more.
`same-work` do what ours does: dedupe by id, Exp3 over two models with the logged propensity, a cache, the default at
the deadline, and feedback that moves the weights (`rivals/same_work.py`). Ours: the model in the
router (`colocated`) or in a host (`separate`), cold cache; the same with nine tenths of the rows asked before
(`cached`); 16 rows a record (`packed`). `net` have images of 784 numbers and a net of 28,000 parameters in ONNX, as
Crayfish (EDBT 2024) has them: ours with the whole work beside Kafka Streams and Flink, which call the net and no more,
after three fifths of the backlog have warmed up their JVM.

The backlog is written first and the system started then, so that no generator is part of what is measured; a system
that learns stands still meanwhile. Rate: from the end offsets of the predictions between the 5 % and the 95 % mark;
where a system works on many queries at once, so many are left out at both ends. CPU: from /proc over the same span, by
process.
One CPU for the process under measurement, one for broker and benchmark, and for the host of `separate`; more where
there are more. Afterwards every prediction is read: missing, duplicate and wrong ones are told.
"""

import argparse
from typing import Any

from rig.backlog import PARTITIONS
from rig.contenders import JAVA_VERSIONS, PASS_THROUGH, SAME_WORK, Contender, contenders, versions
from rig.processes import Cpus
from rig.results import Measures, Summary, Target, median_of, show, summary
from rig.same_work_run import same_work_done
from rig.session import finish, parsed, said, session, system_options
from rig.throughput_run import backlog_answered, competed, warm_up

OURS_IN_QUICK = (
    "colocated-same-work", "colocated-json", "separate-msgpack", "vote-json", "late-json", "net-json",
)  # fmt: skip
QUICK_RECORDS, LEAST_RECORDS = 2_000, 2_000
QUICK_LIMIT_S = 300.0
"""A smoke run says whether a system answers at all, also on a machine that has other things to do."""
CPU, ROUTER, PER_S = "CPU µs a row", "router µs", "rows per CPU s"
MEASURES: Measures = {
    "rows/s": lambda run: run.get("rows_per_s"),
    CPU: lambda run: run.get("system_cpu_us"),
    "whole run µs": lambda run: run.get("whole_cpu_us"),
    ROUTER: lambda run: run.get("cpu_us", {}).get("router"),
    "host µs": lambda run: run.get("cpu_us", {}).get("host"),
    PER_S: lambda run: run.get("rows_per_cpu_s"),
    "hit ratio": lambda run: run.get("hit_ratio") if "router" in run.get("cpu_us", {}) else None,
    "rig CPU": lambda run: run.get("rig_cpu"),
    "complete": lambda run: float(bool(run.get("complete"))),
}
LOOPS = {
    "colocated-json": 2.03,
    "colocated-msgpack": 1.48,
    "packed-msgpack": 0.47,
    "late-json": 1.09,
    "vote-json": 2.19,
}
"""What a row costs at most, in what it costs a loop that calls the model and remembers nothing."""
PER_CPU_S = {
    "colocated-json": {"bytewax": 0.7, "faststream": 1.3, "quix": 1.3, "faust": 10.0},
    f"colocated{SAME_WORK}": {"bytewax": 1.0, "quix": 2.0, "faust": 2.0},
    "net-json": {"kafka-streams": 2.0},
    "net-msgpack": {"kafka-streams": 2.0},
}
"""Rows of ours in a second of CPU, at least, in those of the rivals with the same queries."""
LATE_PER_S = 60_000
AGAIN = (
    "aiokafka-pass-through", "bytewax-pass-through", "bytewax-same-work", "colocated-same-work", "colocated-json",
    "separate-json", "packed-msgpack", "vote-json", "late-json",
)  # fmt: skip
"""What further rounds of `--again` measure: goals and the calibration, where a run is short."""
LEAST_AHEAD = 2.5
"""A backlog has at least so many times the queries that are left out at each end."""


def main() -> None:
    options = arguments()
    cpus = Cpus.single(pin=options.pin)
    known = contenders(options.msgpack)
    chosen = [known[name] for name in options.systems]
    runs = all_rounds(chosen, options, cpus)
    found = summary(runs, MEASURES)
    show("median (least to most); a packed record has 16 rows", found, runs)
    for each in chosen:
        if each.leaves_out:
            print(f"{each.name} leaves out: {each.leaves_out}")
    finish(options, runs, found, targets(found), cpus, **stated(cpus, chosen))


def all_rounds(chosen: list[Contender], options: argparse.Namespace, cpus: Cpus) -> list[dict[str, Any]]:
    """Every system in every round, in an order that turns; each run is told when it is done, for whoever waits."""
    runs = []
    with session(options, cpus) as here:
        warm_up(here.place("warm-up", PARTITIONS), options.warm)
        for number in range(options.rounds + options.again):
            some = chosen if number < options.rounds else [each for each in chosen if each.name in AGAIN]
            for each in some[:: -1 if number % 2 else 1]:
                place = here.place(f"t{number}-{each.name}", PARTITIONS)
                records = records_of(each, options)
                measure = same_work_done if each.same_work else backlog_answered
                runs.append(said({"round": number, **competed(each, place, here.broker, records, options, measure)}))
    return runs


def records_of(contender: Contender, options: argparse.Namespace) -> int:
    """Length of a system's backlog; a smoke run has none long enough to tell its rate."""
    ahead = 0 if options.quick else round(LEAST_AHEAD * contender.reads_ahead)
    return max(LEAST_RECORDS, round(options.records * contender.share), ahead)


def stated(cpus: Cpus, chosen: list[Contender]) -> dict[str, Any]:
    """Further conditions: the CPUs of hosts, the rivals' versions, and what each system leaves out."""
    return {
        "host_cpus": sorted(cpus.hosts),
        "rivals": versions("requirements.txt", "requirements-mlserver.txt", JAVA_VERSIONS),
        "leaves_out": {each.name: each.leaves_out for each in chosen if each.leaves_out},
    }


def targets(found: Summary) -> list[Target]:
    """What is expected of the systems of ours, beside the rivals of the same run."""

    def times(name: str, measure: str, other: str, of: str) -> float | None:
        value, base = median_of(found, name, measure), median_of(found, other, of)
        return round(value / base, 3) if value is not None and base else None

    def at_most(name: str, measure: str, other: str, bound: float) -> Target:
        words = f"{name}: {measure}, x {other}"
        return Target(benchmark="A", what=words, value=times(name, measure, other, CPU), sense="<=", bound=bound)

    def per_cpu_s(name: str, rival: str, bound: float) -> Target:
        """A goal that stands beside the rival."""
        words = f"{rival}: {PER_S} of {name}, x this"
        return Target(benchmark="A", what=words, value=times(name, PER_S, rival, PER_S), sense=">=", bound=bound)

    ends = {"colocated-json": PASS_THROUGH, f"colocated{SAME_WORK}": SAME_WORK}
    return [
        *(at_most(name, ROUTER, f"aiokafka{PASS_THROUGH}", bound) for name, bound in LOOPS.items()),
        at_most("colocated-json", CPU, "bare-router-json", 1.15),
        *(
            per_cpu_s(name, f"{rival}{ends.get(name, '-net')}", bound)
            for name, bounds in PER_CPU_S.items()
            for rival, bound in bounds.items()
            if f"{rival}{ends.get(name, '-net')}" in found
        ),
        Target.of("A", "separate-json: host µs", (found, "separate-json", "host µs"), "<=", 5.0),
        Target.of("A", "late-json: rows/s", (found, "late-json", "rows/s"), ">=", LATE_PER_S),
    ]


def arguments() -> argparse.Namespace:
    known = contenders("msgpack")
    parser = system_options(__doc__)
    parser.add_argument("--rounds", type=int, default=1)
    help_text = "further rounds, of what most goals are about"
    parser.add_argument("--again", type=int, default=0, help=help_text)
    parser.add_argument("--records", type=int, default=200_000, help="largest backlog; slow systems get a share")
    parser.add_argument("--warm", type=int, default=20_000, help="queries written and read before the first system")
    help_text = ", ".join(known)
    parser.add_argument(
        "--systems", nargs="+", choices=list(known), metavar="NAME", default=list(known), help=help_text
    )
    help_text = "a row as its bytes, or as numbers"
    parser.add_argument("--msgpack", choices=["msgpack-bytes", "msgpack"], default="msgpack-bytes", help=help_text)
    parser.add_argument("--limit", type=float, default=40.0, help="seconds after which a system is stopped")
    parser.add_argument("--no-install", dest="install", action="store_false", help="use rivals that are there already")
    quick = [name for name, each in known.items() if not each.config or name in OURS_IN_QUICK]
    return parsed(
        parser, {"rounds": 1, "records": QUICK_RECORDS, "warm": 1_000, "systems": quick, "limit": QUICK_LIMIT_S}
    )


if __name__ == "__main__":
    main()
