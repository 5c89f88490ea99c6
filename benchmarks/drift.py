"""How many losses until a detector sees a jump, and how often does it see one that is not there?

    python benchmarks/drift.py                                   # some minutes, most of them kswin's; seeded
    python benchmarks/drift.py --page benchmarks/results/drift.md    # and the page of the figures
    python benchmarks/drift.py --quick                           # few seeds; its numbers say nothing

Each detector has its default parameters. It reads 2,000 losses of one mean, and, if it has not detected anything by
then, losses of another mean until it does, 2,000 at most. `labels`: losses of 0 and 1. `graded`: of a normal
distribution with a standard deviation of 0.1, cut to [0, 1]. False are detections before the jump.
"""

import random
import time
from collections.abc import Iterator

from rig.session import page_options, parsed

from clipper_stream.drift.detectors import DETECTORS, Detector, make_spec

BEFORE, STATIONARY, LONGEST = 0.1, 2_000, 2_000
JUMPS = (0.15, 0.2, 0.3, 0.5)
SPREAD = 0.1
KINDS = {"labels": ("adwin", "page_hinkley", "ddm"), "graded": ("adwin", "page_hinkley", "kswin")}
HEADINGS = """| losses | detector | false, of sequences | to 0.15 | to 0.2 | to 0.3 | to 0.5 | CPU a loss, µs |
|---|---|---|---|---|---|---|---|"""
PAGE = """# How long until drift is seen

<!-- Generated: python benchmarks/drift.py --page benchmarks/results/drift.md -->

Default parameters; the losses jump from a mean of 0.1 to another one. Median and largest number of losses after
the jump until it is detected; `n missed` where it was not within {longest:,}.
False: sequences of {stationary:,} losses without a jump in which one was seen.
[What to use when](../../docs/how-to/watch-for-drift.md).

{table}
"""


def losses(kind: str, draws: random.Random, mean: float) -> float:
    """The next loss."""
    if kind == "labels":
        return float(draws.random() < mean)
    return min(1.0, max(0.0, draws.gauss(mean, SPREAD)))


def first(detector: Detector, kind: str, draws: random.Random, mean: float, most: int) -> int | None:
    """How many losses until a detection; None without one."""
    return next((at for at in range(1, most + 1) if detector.update(losses(kind, draws, mean))), None)


def delays_of(kind: str, name: str, after: float, seeds: int, stationary: int) -> tuple[int, list[int | None]]:
    """Sequences with a false detection, and the delay of each of the others."""
    false, delays = 0, list[int | None]()
    for seed in range(seeds):
        detector, draws = make_spec(name, {}, "zero_one").make(), random.Random(f"{kind} {after} {seed}")
        if first(detector, kind, draws, BEFORE, stationary) is not None:
            false += 1
        else:
            delays.append(first(detector, kind, draws, after, LONGEST))
    return false, delays


def cell(delays: list[int | None]) -> str:
    found = sorted(delay for delay in delays if delay is not None)
    missed = f", {len(delays) - len(found)} missed" if len(found) < len(delays) else ""
    return f"{found[len(found) // 2]}, {found[-1]}{missed}" if found else f"-{missed}"


def us_a_loss(kind: str, name: str) -> float:
    detector, draws = make_spec(name, {}, "zero_one").make(), random.Random(1)
    values = [losses(kind, draws, BEFORE) for _ in range(STATIONARY)]
    began_s = time.process_time()
    for value in values:
        detector.update(value)
    return (time.process_time() - began_s) / len(values) * 1e6


def rows(seeds: int, stationary: int) -> Iterator[str]:
    assert set(DETECTORS) == {name for names in KINDS.values() for name in names}
    for kind, names in KINDS.items():
        for name in names:
            per_jump = [
                delays_of(kind, name, after, max(1, seeds // 10) if name == "kswin" else seeds, stationary)
                for after in JUMPS
            ]
            false, all_of = sum(one[0] for one in per_jump), sum(one[0] + len(one[1]) for one in per_jump)
            cells = " | ".join(cell(delays) for _, delays in per_jump)
            yield f"| {kind} | `{name}` | {false} of {all_of} | {cells} | {us_a_loss(kind, name):.3g} |"


def main() -> None:
    parser = page_options(__doc__)
    parser.add_argument("--seeds", type=int, default=60)
    parser.add_argument("--stationary", type=int, default=STATIONARY, help="losses before the jump")
    options = parsed(parser, {"seeds": 1, "stationary": 300})
    found = "\n".join([HEADINGS, *rows(options.seeds, options.stationary)])
    print(found)
    if options.page is not None:
        options.page.write_text(PAGE.format(table=found, longest=LONGEST, stationary=options.stationary))


if __name__ == "__main__":
    main()
