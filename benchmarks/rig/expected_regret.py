"""What theory and publications say about regret, beside what was measured."""

import math
from collections.abc import Iterator, Mapping

from rig.results import Target
from rig.worlds import ADVERSARY_MODELS, BAD, GOOD, LATE, MODELS, Floats

Measured = Mapping[tuple[str, str], Floats]
"""Mean regret at equal steps up to the last query, by world and policy."""
TSALLIS, LATE_TSALLIS = "tsallis_inf", f"tsallis_inf delay={LATE}"
THOMPSON = "thompson"
GAP = BAD - GOOD


def growth(regret: Floats) -> float:
    """Exponent of the growth over the last three quarters: 1 is in proportion to queries, 0.5 with their root."""
    return math.log(max(regret[-1], 1e-9) / max(regret[len(regret) // 4 - 1], 1e-9)) / math.log(4.0)


def expectations(measured: Measured, queries: int) -> Iterator[Target]:
    """All of them; a bound is on the expectation, and the mean over seeds is held against it."""
    yield from where_losses_are_random(measured, queries)
    yield from against_adversaries(measured, queries)
    yield from where_losses_drift(measured)
    yield from where_feedback_is_late(measured, queries)


def where_losses_are_random(measured: Measured, queries: int) -> Iterator[Target]:
    log, others = math.log(queries), MODELS - 1
    end = {policy: float(regret[-1]) for (world, policy), regret in measured.items() if world == "easy"}
    divergence = BAD * math.log(BAD / GOOD) + (1 - BAD) * math.log((1 - BAD) / (1 - GOOD))
    bound = others * (4.0 * log + 20.0) / GAP + 4.0 * math.sqrt(MODELS)
    yield at_most("easy", "tsallis_inf: theorem 1 of Zimmert and Seldin (2021)", end[TSALLIS], bound)
    # the theorem is a limit; what it says of finite times is the order, for which twice and a start are allowed
    bound = 2.0 * others * GAP / divergence * log + 10.0
    yield at_most("easy", "thompson: twice the least of Lai and Robbins (1985)", end[THOMPSON], bound)
    for policy in (THOMPSON, TSALLIS):
        yield at_most("easy", f"{policy}: grows slower than with the root", growth(measured["easy", policy]), 0.5)
    yield at_least("easy", "epsilon_greedy: grows on, by what it explores", end["epsilon_greedy"], explored(queries))
    yield at_most("easy", "exp4: bounded (all losses are seen), growth", growth(measured["easy", "exp4"]), 0.1)


def explored(queries: int) -> float:
    """Of epsilon-greedy with epsilon 0.1: what a tenth of the queries loses when they are asked evenly."""
    return 0.1 * queries * GAP * (MODELS - 1) / MODELS


def against_adversaries(measured: Measured, queries: int) -> Iterator[Target]:
    for world, models in (("adversary", ADVERSARY_MODELS), ("knowing", MODELS)):
        bound = 4.0 * math.sqrt(models * queries) + 1.0
        yield at_most(world, "tsallis_inf: 4 sqrt(K T) + 1, theorem 1", float(measured[world, TSALLIS][-1]), bound)
    yield at_most(
        "adversary", "tsallis_inf: about logarithmic (published), growth", growth(measured["adversary", TSALLIS]), 0.5
    )
    exponent = growth(measured["adversary", THOMPSON])
    yield at_least("adversary", f"{THOMPSON}: almost linear (published), growth", exponent, 0.75)
    knowing = {policy: float(regret[-1]) for (world, policy), regret in measured.items() if world == "knowing"}
    bound = math.log(MODELS) / 0.1 + 0.1 * MODELS * queries / 2.0 + 0.05 * queries
    yield at_most("knowing", "exp3: ln K / eta + eta K T / 2 + exploration", knowing["exp3"], bound)
    bound = math.log(MODELS) / 0.3 + 0.3 * queries / 8.0
    yield at_most("knowing", "exp4: ln K / eta + eta T / 8, theorem 2.2 of Cesa-Bianchi and Lugosi (2006)",
                  knowing["exp4"], bound)  # fmt: skip


def where_losses_drift(measured: Measured) -> Iterator[Target]:
    for world in ("abrupt", "gradual"):
        for policy in ("epsilon_greedy", "exp3", TSALLIS, THOMPSON, "exp4"):
            share = measured[world, f"{policy} half_life=300"][-1] / measured[world, policy][-1]
            yield at_most(world, f"{policy}: with a half-life over without, x", float(share), 1.0)


def where_feedback_is_late(measured: Measured, queries: int) -> Iterator[Target]:
    for world in ("late", "geometric", "batches"):
        for policy in (THOMPSON, TSALLIS):
            more = float(measured[world, policy][-1] - measured["easy", policy][-1])
            # of a geometric delay about a Poisson number is outstanding: five standard deviations
            outstanding = LATE + (5.0 * math.sqrt(LATE) if world == "geometric" else 0.0)
            what = f"{policy}: added by delay, at most what is outstanding x gaps (Joulani et al., 2013)"
            yield at_most(world, what, more, outstanding * GAP * (MODELS - 1))
    bound = 4.0 * math.sqrt(MODELS * queries) + math.sqrt(8.0 * LATE * queries * math.log(MODELS))
    end = float(measured["knowing, late", LATE_TSALLIS][-1])
    what = f"{LATE_TSALLIS}: 4 sqrt(K T) + sqrt(8 D ln K) of Zimmert and Seldin (2020)"
    yield at_most("knowing, late", what, end, bound)
    ratio = end / float(measured["knowing, late", TSALLIS][-1])
    yield at_most("knowing, late", "tsallis_inf: with delay=500 over without, x", ratio, 0.5)


def at_most(world: str, what: str, value: float, bound: float) -> Target:
    return Target(benchmark=world, what=what, value=value, sense="<=", bound=bound)


def at_least(world: str, what: str, value: float, bound: float) -> Target:
    return Target(benchmark=world, what=what, value=value, sense=">=", bound=bound)
