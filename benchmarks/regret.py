"""How much does each selection policy lose until it knows the best model, and does it when the best one changes?

    python benchmarks/regret.py                                     # some minutes of two CPUs; simulated and seeded
    python benchmarks/regret.py --page benchmarks/results/regret.md     # and the page of the figures
    python benchmarks/regret.py --page benchmarks/results/regret.md --plot     # and its plot, regret.svg beside it
    python benchmarks/regret.py --quick                             # few queries; its numbers say nothing

The policies are those of the registry, with default parameters where none are given. Regret is what a policy loses
more than the best model, with probabilities and mean losses in the place of what was drawn. Losses are 0 or 1; feedback
about every query comes before the next one, but where it is said to be late. `exp4` and `exp4_clipper` ask all models,
and are charged the mean of their losses by weight: they see more, so they are not rivals of the others.

The best is the one model that loses least over all queries; in `abrupt` and `gradual` it is that of each query.
"""

import io
import json
import os
import random
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing import Pool
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rig.expected_regret import Measured, expectations, growth
from rig.results import Target, cpu_model
from rig.session import page_options, parsed, write_page, write_table
from rig.textbook import RULES, FeatureWorld, lin_ucb_regret, textbook_regret
from rig.worlds import LATE, Floats, World, compared_worlds, cumulative_regret, worlds

from clipper_stream.selection.registry import make_policy
from clipper_stream.selection.state import ModelTotals, SelectionState

POLICIES: list[tuple[str, dict[str, Any]]] = [
    ("split", {}),
    ("epsilon_greedy", {}),
    ("exp3", {}),
    ("tsallis_inf", {}),
    ("tsallis_inf", {"rate": 4}),
    ("thompson", {}),
    ("exp4", {}),
    ("exp4_clipper", {}),
]
FORGETTING: list[tuple[str, dict[str, Any]]] = [
    (name, {"half_life": 300}) for name in ("epsilon_greedy", "exp3", "tsallis_inf", "thompson", "exp4")
]
FOR_DELAY: list[tuple[str, dict[str, Any]]] = [("tsallis_inf", {"delay": LATE})]
STEPS = 20
"""Points of a curve, at equal distances, the last one after the last query."""
ARMS = (5, 50)
LEFT_OUT_OF_PLOTS = ("split", "exp4_clipper")


class Run(NamedTuple):
    """A policy in a world, with a seed."""

    name: str
    parameters: dict[str, Any]
    world: int
    queries: int
    seed: int

    @property
    def label(self) -> str:
        """The policy as tables name it."""
        return " ".join([self.name, *(f"{key}={value}" for key, value in self.parameters.items())])


def main() -> None:
    parser = page_options(__doc__)
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--curves", type=Path, metavar="FOLDER", help="keep curves here, and take those that are there")
    parser.add_argument("--plot", action="store_true", help="and its plot beside it")
    options = parsed(parser, {"queries": 400, "seeds": 1})
    queries, seeds = options.queries, options.seeds
    curves = {
        (world.name, label): found
        for number, world in enumerate(worlds(queries))
        for label, found in kept(options.curves, number, queries, seeds).items()
    }
    measured = {key: np.mean(found, axis=0) for key, found in curves.items()}
    targets = list(expectations(measured, queries))
    lines = [*tables(curves, queries), *compared(queries, seeds), *expected(targets), *prices()]
    print("\n".join(lines))
    if options.page is not None:
        made = (
            f"{queries:,} queries, {seeds} seeds a row, simulated by `benchmarks/regret.py`. What follows from it is in"
        )
        made += "\n[which policy when](../../docs/explanation/which-policy-when.md).\n"
        lines = ["![regret over queries, a panel a world](regret.svg)\n", *lines]
        write_page(options.page, "Regret of the selection policies", " --plot", made, __doc__, lines)
        write_table(options.page, figures(curves, queries))
        if options.plot:
            plot(measured, queries, options.page.with_suffix(".svg"))


def kept(folder: Path | None, world: int, queries: int, seeds: int) -> dict[str, Floats]:
    """The curves of a world, from the folder if it has them, else played and put there."""
    file = None if folder is None else folder / f"world-{world}-{queries}-{seeds}.json"
    if file is not None and file.exists():
        return {label: np.array(found) for label, found in json.loads(file.read_text()).items()}
    curves = played(world, queries, seeds)
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({label: found.tolist() for label, found in curves.items()}))
    return curves


def played(world: int, queries: int, seeds: int) -> dict[str, Floats]:
    """Regret at equal steps of every seed, (seeds, STEPS), by policy."""
    runs = [
        Run(name, parameters, world, queries, seed)
        for name, parameters in contenders(worlds(queries)[world])
        for seed in range(seeds)
    ]
    curves: dict[str, list[Floats]] = {}
    with Pool(os.cpu_count()) as pool:
        for run, curve in zip(runs, pool.map(curve_of, runs, chunksize=1), strict=True):
            curves.setdefault(run.label, []).append(curve)
    return {label: np.array(found) for label, found in curves.items()}


def contenders(world: World) -> list[tuple[str, dict[str, Any]]]:
    return POLICIES + (FORGETTING if world.moving else []) + (FOR_DELAY if world.due else [])


def curve_of(run: Run) -> Floats:
    regret = cumulative_regret(make_policy(run.name, run.parameters), worlds(run.queries)[run.world], run.seed)
    return regret[run.queries // STEPS - 1 :: run.queries // STEPS]


# --- showing ----------------------------------------------------------------------------------------------------------
def tables(curves: Mapping[tuple[str, str], Floats], queries: int) -> Iterator[str]:
    found = worlds(queries)
    yield f"Regret after {queries:,} queries in these worlds. [regret.csv](regret.csv) also has it after a quarter and"
    yield "half of them, its standard deviation over seeds, and its growth: the exponent over the last three quarters,"
    yield "1 in proportion to the queries, 0.5 with their root, about 0.1 with their logarithm.\n"
    yield from (f"- {world.name}: {world.says}" for world in found)
    yield f"\n| policy | {' | '.join(world.name for world in found)} |"
    yield "|---" * (len(found) + 1) + "|"
    for label in dict.fromkeys(label for _, label in curves):
        cells = [curves.get((world.name, label)) for world in found]
        shown = ["-" if curve is None else f"{curve.mean(axis=0)[-1]:,.0f}" for curve in cells]
        yield f"| `{label}` | {' | '.join(shown)} |"
    yield ""


def figures(curves: Mapping[tuple[str, str], Floats], queries: int) -> Iterator[list[str]]:
    """The table beside the page."""
    yield ["world", "policy", *(f"after {part:,}" for part in (queries // 4, queries // 2, queries)), "±", "growth"]
    for (world, label), found in curves.items():
        mean = found.mean(axis=0)
        after = [f"{mean[at - 1]:.0f}" for at in (STEPS // 4, STEPS // 2, STEPS)]
        yield [world, label, *after, f"{found[:, -1].std():.0f}", f"{growth(mean):.2f}"]


def expected(targets: Sequence[Target]) -> Iterator[str]:
    met = sum(target.met for target in targets)
    yield "## Expected and measured\n"
    yield f"{met} of the {len(targets)} expectations in `rig/expected_regret.py`, of theory and publications, were met."
    if met < len(targets):
        yield "\n| world | what | expected | measured |"
        yield "|---|---|---|---|"
    for target in targets:
        if not target.met:
            sense = "at most" if target.sense == "<=" else "at least"
            yield f"| {target.benchmark} | {target.what} | {sense} {short(target.bound)} | {short(target.value)} |"
    yield ""


def compared(queries: int, seeds: int) -> Iterator[str]:
    """Mean regret of each policy, and behind it that of its paper's rule."""
    found = compared_worlds(queries)
    columns = [(world, half_life) for world in found for half_life in ((None, 500.0) if world.moving else (None,))]
    heads = [world.name + ("" if half_life is None else ", half-life 500") for world, half_life in columns]
    yield "## Beside the textbook\n"
    yield f"Regret after {queries:,} queries; behind it that of the paper's rule, of `benchmarks/rig/textbook.py`.\n"
    yield from (f"- {world.name}: {world.says}" for world in found)
    yield "- features: four models, each the best for a quarter of the queries by two features\n"
    yield f"| policy | {' | '.join(heads)} | features |"
    yield f"|---|{'---|' * (len(heads) + 1)}"
    jobs = [(name, column, seed) for name in RULES for column in range(len(columns)) for seed in range(seeds)]
    with Pool(os.cpu_count()) as pool:
        pairs = dict(zip(jobs, pool.starmap(both, [(queries, *job) for job in jobs]), strict=True))
        by_features = np.mean(pool.starmap(both_by_features, [(queries, seed) for seed in range(seeds)]), axis=0)
    for name in RULES:
        cells = [
            np.mean([pairs[name, column, seed] for seed in range(seeds)], axis=0) for column in range(len(columns))
        ]
        yield f"| `{name}` | {' | '.join(f'{own:,.0f}, {books:,.0f}' for own, books in cells)} | - |"
    yield f"| `lin_ucb` |{' - |' * len(heads)} {by_features[0]:,.0f}, {by_features[1]:,.0f} |\n"


def both(queries: int, name: str, column: int, seed: int) -> tuple[float, float]:
    """Regret of a policy and of its paper's rule in a column of the table."""
    worlds_, moving = compared_worlds(queries), 3
    half_life = 500.0 if column > moving else None
    world = worlds_[min(column, moving)]
    policy = make_policy(name, {} if half_life is None else {"half_life": half_life})
    return float(cumulative_regret(policy, world, seed)[-1]), textbook_regret(name, world, seed, half_life)


def both_by_features(queries: int, seed: int) -> tuple[float, float]:
    """The same of `lin_ucb`."""
    world = FeatureWorld(queries)
    rng, draw = np.random.default_rng(seed), random.Random(seed)
    policy, state, regret = make_policy("lin_ucb"), SelectionState(), 0.0
    models = [f"m{number}:1" for number in range(world.arms)]
    for x, means in zip(*world.queries(rng), strict=True):
        features = x[1:].tolist()
        choice = policy.by_features(state, models).given(features)
        regret += float(np.array(list(choice.weights.values())) @ means - means.min())
        decision = choice.select(draw)
        losses = {model: float(draw.random() < means[models.index(model)]) for model in decision.models}
        chances = dict(zip(decision.models, decision.propensities, strict=True))
        state = policy.observe_for(state, losses, chances, features)
    return regret, lin_ucb_regret(world, seed)


def short(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}" if abs(value) >= 10 else f"{value:.2f}"


def prices() -> Iterator[str]:
    yield "## What it costs to prepare a choice\n"
    yield "Microseconds, once after each feedback and not once a query; the least of ten measurements, on a machine"
    yield f"with other work. Processor: {cpu_model()}.\n"
    yield f"| policy | {' | '.join(f'{arms} models' for arms in ARMS)} |"
    yield "|---|---|---|"
    for name, parameters in [*POLICIES, *FOR_DELAY]:
        policy, cells = make_policy(name, parameters), []
        for arms in ARMS:
            models = [f"m{number}:1" for number in range(arms)]
            state = SelectionState({model: typical(number) for number, model in enumerate(models)})
            cells.append(f"{1e6 * min(seconds(policy.prepare, state, models) for _ in range(10)):,.0f}")
        yield f"| `{Run(name, parameters, 0, 0, 0).label}` | {' | '.join(cells)} |"


def typical(number: int) -> ModelTotals:
    """After 2,000 feedbacks, of which it had some, more of them the better it is."""
    count, loss = 200.0 / (1 + number), 0.1 + 0.005 * number
    return ModelTotals(count, count * loss, 2_000.0 + 50.0 * (number % 3), 2_000.0 * loss)


def seconds(prepare: Any, state: SelectionState, models: list[str]) -> float:
    begin = time.perf_counter()
    for _ in range(30):
        prepare(state, models)
    return (time.perf_counter() - begin) / 30


def plot(measured: Measured, queries: int, file: Path) -> None:
    """A panel a world; what shares a name shares a colour, variants are dashed."""
    import matplotlib as mpl  # noqa: PLC0415 (only for the page)

    mpl.use("svg")
    mpl.rcParams |= {"svg.hashsalt": "regret", "svg.fonttype": "none", "font.size": 9, "path.simplify": False}
    from matplotlib import pyplot as plt  # noqa: PLC0415 (after the choice of what draws)

    shown = [name for name in dict.fromkeys(name for name, _ in POLICIES) if name not in LEFT_OUT_OF_PLOTS]
    colours = {name: f"C{number}" for number, name in enumerate(shown)}
    at = np.linspace(queries / STEPS, queries, STEPS)
    found = worlds(queries)
    figure, axes = plt.subplots(5, 2, figsize=(10, 15), layout="constrained")
    for axis, world in zip(axes.flat, found, strict=True):
        for (name, label), mean in measured.items():
            policy = label.split()[0]
            if name == world.name and label not in LEFT_OUT_OF_PLOTS:
                axis.plot(at, mean, color=colours[policy], linewidth=1, label=label, linestyle=dash(label))
        axis.set_title(world.name, loc="left")
        axis.set_ylim(bottom=0)
        axis.spines[["top", "right"]].set_visible(False)
    lines = {line.get_label(): line for axis in axes.flat for line in axis.lines}
    figure.legend(lines.values(), lines.keys(), ncols=4, loc="outside lower center", frameon=False)
    drawn = io.StringIO()
    figure.savefig(drawn, format="svg", metadata={"Date": None})
    file.write_text(re.sub(r"(\.\d)\d+", r"\1", drawn.getvalue()))  # a tenth of a point is finer than any screen


def dash(label: str) -> str:
    return "--" if "half_life" in label or "delay" in label else ":" if "rate" in label else "-"


if __name__ == "__main__":
    main()
