"""How often does a 95 % interval of an estimate cover what the candidate really loses, and how wide is it?

    python benchmarks/coverage.py                                        # some minutes; simulated and seeded
    python benchmarks/coverage.py --page benchmarks/results/coverage.md      # and the page with its plot
    python benchmarks/coverage.py --quick                                # few seeds; its numbers say nothing

Five classifiers of handwritten digits, trained on 600 images and more or less blind, answer the other 1,197: the loss
of every model on every query is known. The context is how much ink an image has, in four classes. A log draws queries
with replacement and serves a mediocre model, but

- *explores* a share of the queries, at random among all five; or
- *audits* a share: asks all five, whatever it serves.

The candidate *near* does the same for seven tenths of the queries and takes the best model of each context for the
rest; *far* takes the best model of each context always. Predictions are the cross-fitted means of `outcome.py`.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rig.full_information import Floats, Traffic, exploring, far, near
from rig.session import page_options, parsed, write_page, write_table

from clipper_stream.evaluation.estimators.intervals import bootstrap, draws
from clipper_stream.evaluation.estimators.propensity_matrices import Choices
from clipper_stream.evaluation.estimators.registry import Estimator, make_estimators
from clipper_stream.evaluation.estimators.support import FEWEST_CARRYING, SupportSums
from clipper_stream.evaluation.results import Estimate

LOGS = {"explores 5 %": (0.05, 0.0), "explores 20 %": (0.2, 0.0), "audits 5 %": (0.0, 0.05)}
BLINDNESS = (0, 24, 36, 44, 50)
"""Pixels of the middle, of 64, that each model does not see."""
SERVED = 2
RESAMPLES = 1_000
FEWEST_SEEDS = 100
"""Without a warning, for a share of them to say something."""


class Setting(NamedTuple):
    """What a row is about."""

    decisions: int
    log: str
    candidate: str


class Row(NamedTuple):
    """What was found there: by estimator and interval, whether it covered and how wide it was, a row a seed."""

    setting: Setting
    effective: float
    carrying: float
    warned: Floats
    found: dict[tuple[str, str], Floats]

    def covered(self, name: str, method: str) -> float:
        return float(self.found[name, method][:, 0].mean())

    def trusted(self, name: str, method: str) -> Floats:
        """Whether it covered, in the seeds without a warning."""
        return self.found[name, method][self.warned == 0.0, 0]


def main() -> None:
    parser = page_options(__doc__)
    parser.add_argument("--seeds", type=int, default=400)
    parser.add_argument("--sizes", type=int, nargs="+", default=[300, 1_000, 5_000], help="decisions in a log")
    options = parsed(parser, {"seeds": 2, "sizes": [300]})
    traffic = digits()
    drawn = draws(0, RESAMPLES)
    rows = [row_of(traffic, setting, options.seeds, drawn) for setting in settings(options.sizes)]
    lines = [*conclusions(rows)]
    print("\n".join(lines))
    if options.page is not None:
        plotted = options.page.with_suffix(".svg")
        plot(rows, plotted)
        made = f"{options.seeds} seeds a row, by `benchmarks/coverage.py`."
        picture = f"![Coverage by the number of decisions that carry the estimate]({plotted.name})\n"
        write_page(options.page, "How often intervals cover", "", made, __doc__, [picture, *lines])
        write_table(options.page, table(rows))


def digits() -> Traffic:
    """Losses of five classifiers on images of digits."""
    from sklearn.datasets import load_digits  # noqa: PLC0415 (only here, and slow to import)
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415

    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(1).permutation(len(images))
    images, labels = images[order] / 16.0, labels[order]
    middle = np.argsort(np.abs(np.arange(64) - 31.5), kind="stable")
    losses = []
    for blind in BLINDNESS:
        seen = np.sort(middle[blind:])
        model = LogisticRegression(max_iter=500).fit(images[:600][:, seen], labels[:600])
        losses.append(model.predict(images[600:][:, seen]) != labels[600:])
    ink = images[600:].sum(axis=1)
    context = np.searchsorted(np.quantile(ink, (0.25, 0.5, 0.75)), ink).astype(np.int32)
    return Traffic(losses=np.column_stack(losses).astype(float), context=context)


def settings(sizes: list[int]) -> Iterator[Setting]:
    for candidate in ("near", "far"):
        for log in LOGS:
            for decisions in sizes:
                yield Setting(decisions, log, candidate)


def row_of(traffic: Traffic, setting: Setting, seeds: int, drawn: Floats) -> Row:
    exploration, audits = LOGS[setting.log]
    policy = exploring(traffic, exploration, SERVED)
    candidate = near(traffic, SERVED) if setting.candidate == "near" else far(traffic)
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    supports = []
    for seed in range(seeds):
        choices = traffic.logged(policy, audits, candidate, setting.decisions, seed)
        supports.append(SupportSums.of(choices, len(policy)))
        for estimator in make_estimators():
            truth = traffic.truth(policy if estimator.name == "on_policy" else candidate)
            for method, interval in intervals(estimator, choices, drawn).items():
                width = interval.high - interval.low
                found.setdefault((estimator.name, method), []).append((interval.covers(truth), width))
    kish = [support.importance**2 / support.squares for support in supports]
    effective, carrying = np.median(kish), np.median([support.carrying for support in supports])
    models, contexts = (tuple(map(str, range(size))) for size in policy.T.shape)
    warned = np.array([bool(support.warnings(models, contexts)) for support in supports], float)
    return Row(setting, effective, carrying, warned, {key: np.array(each, float) for key, each in found.items()})


def intervals(estimator: Estimator, choices: Choices, drawn: Floats) -> dict[str, Estimate]:
    sums = estimator.sums(choices)
    radius = min(1.0, 1.96 * sums.standard_error)
    normal = Estimate(value=sums.value, low=max(0.0, sums.value - radius), high=min(1.0, sums.value + radius))
    return {"normal": normal, "bca": bootstrap(sums, drawn)}


# --- the page ---------------------------------------------------------------------------------------------------------
def table(rows: list[Row]) -> Iterator[list[str]]:
    """The table beside the page: how often each interval of each estimator covers, and its mean width."""
    shown = [(estimator.name, "bca") for estimator in make_estimators()]
    shown += [(name, "normal") for name in ("ips", "dr")]
    about = ["decisions", "log", "candidate", "effective", "carrying", "warned"]
    yield [*about, "estimator", "interval", "covered", "width"]
    for row in rows:
        about = [str(row.setting.decisions), row.setting.log, row.setting.candidate]
        about += [f"{row.effective:.0f}", f"{row.carrying:.0f}", f"{row.warned.mean():.2f}"]
        for name, method in shown:
            covers, width = row.covered(name, method), row.found[name, method][:, 1].mean()
            yield [*about, name, method, f"{covers:.3f}", f"{width:.3f}"]


def conclusions(rows: list[Row]) -> Iterator[str]:
    """Coverage of each estimator in the seeds that gave no warning."""
    yield "## What covers where nothing is warned of\n"
    yield (
        f"All seeds without a warning together; in parentheses the worst row with at least {FEWEST_SEEDS} of them.\n"
        "[coverage.csv](coverage.csv) has every setting, warned of or not: the median effective sample size, how many\n"
        "decisions carry the variance (median), the share of seeds with a warning, and how wide the intervals are.\n"
    )
    yield "| estimator | bootstrap | normal |"
    yield "|---|---|---|"
    for estimator in make_estimators():
        shown = [summary(rows, estimator.name, method) for method in ("bca", "normal")]
        yield f"| `{estimator.name}` | {' | '.join(shown)} |"


def summary(rows: list[Row], name: str, method: str) -> str:
    trusted = [row.trusted(name, method) for row in rows if (name, method) in row.found]
    means = [float(each.mean()) for each in trusted if len(each) >= FEWEST_SEEDS]
    return f"{100 * np.concatenate(trusted).mean():.1f} % ({100 * min(means):.1f} %)" if means else "-"


def plot(rows: list[Row], file: Path) -> None:
    """Coverage by the number of decisions that carry the variance."""
    import matplotlib as mpl  # noqa: PLC0415 (only for the page)

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "coverage"
    from matplotlib import pyplot as plt  # noqa: PLC0415 (after the choice of what draws)

    figure, axes = plt.subplots(figsize=(8.0, 4.5), layout="constrained")
    for name, mark in (("ips", "o"), ("snips", "s"), ("dr", "^"), ("sndr", "v"), ("dm", "+")):
        carrying = [row.carrying for row in rows]
        axes.plot(carrying, [100 * row.covered(name, "bca") for row in rows], mark, label=name, alpha=0.8)
    axes.axhline(95, color="black", linewidth=1)
    axes.axvline(FEWEST_CARRYING, color="grey", linewidth=1, linestyle="--", label="below: a warning")
    axes.set(
        xscale="log",
        xlabel="decisions that carry the estimate",
        ylabel="covered by the bootstrap interval, %",
        ylim=(0, 102),
    )
    axes.legend(loc="lower right", fontsize="small")
    figure.savefig(file, metadata={"Date": None})
    plt.close(figure)


if __name__ == "__main__":
    main()
