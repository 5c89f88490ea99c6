"""How many losses until a detector sees a jump, and how often does it see one that is not there?

    python benchmarks/drift.py                                   # some minutes; simulated and seeded
    python benchmarks/drift.py --page benchmarks/results/drift.md    # and the page of the figures
    python benchmarks/drift.py --quick                           # few seeds; its numbers say nothing

The detector, ADWIN, has its default `delta`. It reads 2,000 losses of one mean, and, if it has not detected anything by
then, losses of another mean until it does, 2,000 at most. `labels`: losses of 0 and 1. `graded`: of a normal
distribution with a standard deviation of 0.1, cut to [0, 1]. False are detections in 5,000 losses of one mean.
"""

import random
import time
from collections.abc import Iterator

from rig.session import page_options, parsed, write_page

from clipper_stream.drift.adwin import Adwin

BEFORE, SETTLED, STATIONARY, LONGEST = 0.1, 2_000, 5_000, 2_000
MEANS = (0.02, 0.1, 0.3, 0.5)
JUMPS = (0.15, 0.2, 0.3, 0.5)
SPREAD = 0.1
KINDS = ("labels", "graded")


def losses(kind: str, draws: random.Random, mean: float) -> float:
    """The next loss."""
    if kind == "labels":
        return float(draws.random() < mean)
    return min(1.0, max(0.0, draws.gauss(mean, SPREAD)))


def first(detector: Adwin, kind: str, draws: random.Random, mean: float, most: int) -> int | None:
    """How many losses until a detection; None without one."""
    return next((at for at in range(1, most + 1) if detector.update(losses(kind, draws, mean))), None)


def false_alarms(kind: str, mean: float, seeds: int, stationary: int) -> int:
    """Of so many sequences without a change, those with a detection."""
    draws = (random.Random(f"{kind} {mean} {seed}") for seed in range(seeds))
    return sum(first(Adwin(), kind, draw, mean, stationary) is not None for draw in draws)


def delays_of(kind: str, after: float, seeds: int) -> list[int | None]:
    """The delay in each sequence that had no detection before the jump."""
    delays = list[int | None]()
    for seed in range(seeds):
        detector, draws = Adwin(), random.Random(f"{kind} {after} {seed}")
        if first(detector, kind, draws, BEFORE, SETTLED) is None:
            delays.append(first(detector, kind, draws, after, LONGEST))
    return delays


def cell(delays: list[int | None]) -> str:
    found = sorted(delay for delay in delays if delay is not None)
    missed = f", {len(delays) - len(found)} missed" if len(found) < len(delays) else ""
    return f"{found[len(found) // 2]}, {found[-1]}{missed}" if found else f"-{missed}"


def us_a_loss(kind: str) -> float:
    detector, draws = Adwin(), random.Random(1)
    values = [losses(kind, draws, BEFORE) for _ in range(STATIONARY)]
    began_s = time.process_time()
    for value in values:
        detector.update(value)
    return (time.process_time() - began_s) / len(values) * 1e6


def rows(seeds: int, stationary: int) -> Iterator[str]:
    false = f"false, of {seeds}, at means of {', '.join(map(str, MEANS))}"
    jumps = " | ".join(f"to {jump}" for jump in JUMPS)
    yield f"| losses | {false} | {jumps} | CPU a loss, µs |"
    yield f"|---|---{'|---' * len(JUMPS)}|---|"
    for kind in KINDS:
        counts = ", ".join(str(false_alarms(kind, mean, seeds, stationary)) for mean in MEANS)
        cells = " | ".join(cell(delays_of(kind, after, seeds)) for after in JUMPS)
        yield f"| {kind} | {counts} | {cells} | {us_a_loss(kind):.3g} |"


def main() -> None:
    parser = page_options(__doc__)
    parser.add_argument("--seeds", type=int, default=400)
    parser.add_argument("--stationary", type=int, default=STATIONARY, help="losses without a jump")
    options = parsed(parser, {"seeds": 1, "stationary": 300})
    found = [*rows(options.seeds, options.stationary)]
    print("\n".join(found))
    if options.page is not None:
        made = f"""Median and largest number of losses after a jump from a mean of {BEFORE} until it is detected;
`n missed` where it was not within {LONGEST:,}. False: of {options.seeds} sequences of {options.stationary:,} losses of
one mean. [What to use when](../../docs/how-to/watch-for-drift.md).
"""
        write_page(options.page, "How long until drift is seen", "", made, __doc__, found)


if __name__ == "__main__":
    main()
