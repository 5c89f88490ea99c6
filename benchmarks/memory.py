"""Does a router, or a host, grow with the number of queries? Resident memory over eight million of them, at saturation.

    python benchmarks/memory.py --json results/memory.json          # eight million queries, or eight minutes
    python benchmarks/memory.py --quick

One router and one host (`configs/memory.toml`): rows of four numbers, none twice, as msgpack with the row's bytes
(`--rows packed`) or as a list of numbers. So caches fill up to their budgets, which takes some four million, and the
decision log holds every query of the run, as it does within the feedback horizon. About 3 GB of disk for eight million.

Resident memory by process from /proc, once a second, all of it (`VmRSS`) and without pages of files (`RssAnon`).
Growth is the slope of a straight line through the last half of the queries, times that half, as a share of the line's
start. The queries stop after `--minutes`, and the result says how many there were.
"""

import argparse
import struct
import time
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
from rig.flood import Progress, Record, flood
from rig.predictions import default_ratio_of_last
from rig.processes import memory_mib_by_process
from rig.results import Target, load_average, show, single
from rig.session import Session, finish, parsed, said, session, system_options
from rig.systems import pipeline

from clipper_topics.codec import MSGPACK_HEADERS

ROLES = ("router", "host")
QUICK = {"queries": 8_000, "minutes": 5.0, "step": 2_000, "every": 0.1, "outstanding": 2_000}
FOUR_LE, ONE_BE = struct.Struct("<ffff"), struct.Struct(">f")
Sample = dict[str, Any]


def main() -> None:
    options = arguments()
    with session(options) as here:
        run = said(measured(here, options))
    found = {
        role: {f"{millions(at)} M": single(value) for at, value in steps(run["samples"], role, options.step)}
        | {"growth over the last half, %": single(run["growth_percent"][role])}
        for role in ROLES
    }
    show(f"resident MiB over {run['answered']:,} queries, {run['per_s']:,.0f} a second", found, [run])
    finish(options, [run], found, targets(run))


def measured(here: Session, options: argparse.Namespace) -> dict[str, Any]:
    place, load_before = here.place("memory"), load_average()
    samples: list[Sample] = []
    with pipeline(place, "memory.toml") as roots:
        began_s = time.monotonic()

        def look(progress: Progress) -> None:
            at_s = time.monotonic() - began_s
            if at_s >= len(samples) * options.every:
                samples.append({"at_s": round(at_s, 2), **_sizes(roots), **_counts(progress)})

        queries = written(options.queries, options.rows, place.catalogue.partitions)
        done = flood(
            place.connection,
            place.catalogue,
            queries,
            MSGPACK_HEADERS,
            outstanding=options.outstanding,
            until_s=began_s + options.minutes * 60,
            look=look,
        )
        took_s = time.monotonic() - began_s
        defaults = default_ratio_of_last(place.connection, place.catalogue.predictions)
    return {
        "system": "separate",
        "answered": done.answered,
        "wanted": options.queries,
        "per_s": round(done.answered / took_s, 1),
        "default_ratio": defaults,
        "load_before": load_before,
        "load_after": load_average(),
        "growth_percent": {role: growth_percent(samples, role) for role in ROLES},
        "samples": samples,
        "note": "" if done.answered >= options.queries else f"stopped after {options.minutes} minutes",
    }


def _sizes(roots: list[int]) -> dict[str, Any]:
    """By role, the sum over its processes."""
    found: dict[str, Any] = {}
    for (role, _), sizes in memory_mib_by_process(roots).items():
        for name, mib in sizes.items():
            found.setdefault(role, {}).setdefault(name, 0.0)
            found[role][name] = round(found[role][name] + mib, 2)
    return found


def _counts(progress: Progress) -> dict[str, int]:
    return {"sent": progress.sent, "answered": progress.answered}


def written(count: int, rows: str, partitions: int) -> Iterator[Record]:
    """So many queries, each with another row, without an id: a query is then named by its place in the log."""
    head = msgspec.msgpack.encode({"application": "short", "input": None})[:-1]
    write = _packed if rows == "packed" else _listed
    for number in range(count):
        # two numbers below 2**12: together they are exact in float32, and no pair comes twice
        yield number % partitions, None, head + write(number >> 12, number & 0xFFF, 1.0, 0.5)


def _packed(*row: float) -> bytes:
    return b"\xc4\x10" + FOUR_LE.pack(*row)  # bin 8 with 16 bytes


def _listed(*row: float) -> bytes:
    return b"\x94" + b"".join(b"\xca" + ONE_BE.pack(number) for number in row)  # fixarray of four float 32


def growth_percent(samples: list[Sample], role: str) -> float | None:
    """Of the straight line through the last half, from its start to its end."""
    last = [(sample["answered"], sample[role]["rss"]) for sample in samples if role in sample]
    last = [pair for pair in last if pair[0] >= samples[-1]["answered"] / 2]
    if len({answered for answered, _ in last}) < 3:
        return None
    answered, mib = np.array(last).T
    slope, start = np.polyfit(answered - answered[0], mib, 1)
    return round(float(100 * slope * (answered[-1] - answered[0]) / start), 3)


def steps(samples: list[Sample], role: str, step: int) -> list[tuple[int, float]]:
    """The first size at or after each million."""
    found: list[tuple[int, float]] = []
    for sample in samples:
        if role in sample and sample["answered"] >= len(found) * step:
            found.append((len(found) * step, sample[role]["rss"]))
    return found


def millions(count: int) -> str:
    return f"{count / 1e6:g}"


def targets(run: dict[str, Any]) -> list[Target]:
    return [
        Target(
            benchmark="memory",
            what=f"{role}, growth over the last half of {run['answered']:,} queries, %",
            value=run["growth_percent"][role],
            sense="<=",
            bound=5.0,
        )
        for role in ROLES
    ]


def arguments() -> argparse.Namespace:
    parser = system_options(__doc__)
    parser.add_argument("--queries", type=int, default=8_000_000)
    parser.add_argument("--minutes", type=float, default=8.0, help="send nothing after so many")
    parser.add_argument("--outstanding", type=int, default=10_000, help="queries without an answer")
    parser.add_argument("--rows", choices=["packed", "list"], default="packed")
    parser.add_argument("--every", type=float, default=1.0, help="seconds between two looks at the memory")
    parser.add_argument("--step", type=int, default=1_000_000, help="queries between two columns of the table")
    return parsed(parser, QUICK)


if __name__ == "__main__":
    main()
