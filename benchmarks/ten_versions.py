"""Does the rollout rule keep the best of ten versions, and how soon, beside an operator with fixed-sample tests?

    pip download --no-deps nannyml==0.13.1         # for its table of jobs; without it there are two data sets
    python benchmarks/ten_versions.py --nannyml nannyml-0.13.1-py3-none-any.whl         # 25 minutes
    python benchmarks/ten_versions.py --shadow-shares 0.4       # five minutes, of two data sets
    python benchmarks/ten_versions.py --quick

An incumbent and ten versions after it, trained on real data; each of three loses less than what answers at its turn,
the others as much, slightly more or much more. Their loss is that of all held-out queries, of which each is right or
wrong. These queries are asked again and again, each time in another order, and the label follows each answer.

- digits: scikit-learn's pictures; shuttle: river's sensors of a space shuttle, and whether something is wrong; jobs:
  nannyml's census of Massachusetts, and who has a job, trained on 2015 and asked about 2016 to 2018.
- pipeline: a router that runs the models, and a steward. Each version is a canary of 10 %, and a shadow of another 10 %
  or 40 %, until the rule promotes it (by way of a canary of 50 %) or aborts it; a promoted one replaces what answered.
  The margin is 0, because only what is better is to be kept. The plan has as many pairs as an even A/B test needs
  queries for each of its versions. `m of n`: the queries that a verdict rests on, of those until it came.
- fixed-sample: an operator with an A/B test of each version, of the size that power analysis says for the same smallest
  difference (two-sided alpha 0.05, power 0.8), with one decision at its end; simulated with the same losses. Shown are
  the share of the simulated tests that are right, and their size.
- regret: losses of the answers that the best version deployed by then would not have had on the same queries; beside
  all: that the best of all versions would not have had, from the first query on. Whoever is through first goes on with
  what was kept, so that all have as many queries. Queries between two trials, and those that got the default output
  because the machine had other work, are left out.
"""

import argparse
import asyncio
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import msgspec
import numpy as np
import skops.io
import uvloop
from rig.fixed_sample import Course, Order, fixed_sample_course, sample_size
from rig.processes import Cpus, NotServing
from rig.results import Measures, Run, Summary, Target, median_of
from rig.session import Session, in_rounds, parsed, report, said, session, system_options, write_page
from rig.systems import Place, application, model, pipeline, written
from rig.version_histories import VersionHistory, sources

from clipper_agents.control import changes
from clipper_agents.control.apply import with_digests
from clipper_agents.control.plan import Plan
from clipper_agents.control.state import Manifests, read_control
from clipper_agents.control.writer import change_control
from clipper_loadgen import Dataset, LoadPlan, run_load
from clipper_loadgen.run import LoadRun
from clipper_topics.change import Change
from clipper_topics.codec import Codec
from clipper_topics.manifests import InputSpec, ModelManifest

NAME = "model"
SHARE, STEPS = 0.1, [0.1, 0.5]
TESTS = {"fixed-sample, 10 %": SHARE, "fixed-sample, 50 %": 0.5}
OBJECTIVE_MS, OUTSTANDING = 1_000, 200
"""So few queries without an answer that a slow machine is asked more slowly, and not answered by defaults."""
FEEDBACK_AFTER_S = 0.05
CHUNK_S = 20.0
"""Of traffic that is prepared at a time."""
LOOK_S = 0.5
VERDICT_S = 900.0
"""For the rule to decide."""
QUICK = {"only": "digits", "versions": 2, "difference": 0.15, "rate": 300.0, "orders": 3, "shadow_shares": [0.4]}
WITH_JOBS = " --nannyml nannyml-0.13.1-py3-none-any.whl"
MEASURES: Measures = {
    "right": lambda run: run["right"],
    "kept best": lambda run: run["kept_best"],
    "queries": lambda run: run["queries"],
    "of evidence": lambda run: run.get("evidence"),
    "best after": lambda run: run["best_after"],
    "seconds": lambda run: run.get("seconds"),
    "regret": lambda run: run["regret"],
    "beside all": lambda run: run["regret_of_all"],
}

MEANING = """
A label of a query that both versions answered compares them on that very query, and versions agree about most: so
fewer queries tell as much as a test of different ones, and what is much worse or much better is known at the first
looks. What takes long is a version that is as good as what answers, or worse by less than the smallest difference:
there is nothing to be found, and the plan lasts to its end, as a test of fixed size does. An even test (50 %) is the
quickest one of different queries, and each new version, also a bad one, answers half of all users. The pipeline with a
shadow of 40 % is about as quick with a tenth of them; that costs 1.46 calls of models a query. With a shadow of 10 %
it takes longer than the even test, and less than a test that has the same tenth.

A verdict waits until the answers and labels of its queries are in, some seconds whatever the rate, in which queries go
on to be asked. At the rate of this replay that is a thousand or two a version, which the simulated tests do not have;
at the rates for which such trials are planned it is some dozens. A version that does not answer in time is aborted for
that, whatever it would lose. In a run with ten times as many queries outstanding, beside other work on the machine,
that ended the best version of jobs, which had left 80 % of its queries unanswered.
"""


def main() -> None:
    options = arguments()
    found, ours = sources(options.nannyml), list(pipelines(options))
    names = options.only.split(",") if options.only else list(found)
    with session(options, Cpus.split(pin=False)) as here:
        histories = {name: found[name].trained(name, here.folder, options.versions) for name in names}
        if options.difference is not None:
            histories = {name: replace(one, difference=options.difference) for name, one in histories.items()}
        runs = in_rounds(names, options.rounds, lambda name, number: measured(histories[name], number, here, options))
    if options.page is not None and not any("failed" in run for run in runs):
        made = (
            f"Rounds of the pipeline: {options.rounds}, at {options.rate:,.0f} queries a second at most. Fixed-sample"
        )
        made += f" tests: means over {options.orders} orders of the queries.\n"
        of = {name: [run for run in runs if run["data"] == name] for name in names}
        lines = [line for name in names for line in page(histories[name], of[name], ours)] + meaning(runs, ours)
        write_page(options.page, "Ten versions on real data", WITH_JOBS, made, __doc__, lines)
    report(options, "median (least to most)", runs, MEASURES, lambda summary: targets(summary, names, ours))


def measured(history: VersionHistory, number: int, here: Session, options: argparse.Namespace) -> Iterator[Run]:
    """One life of all versions in the pipeline; the same queries, and others, for the operators that are simulated."""
    allowed = (f"models.allowed_locations={here.folder}", "models.allowed_modules=sklearn")
    lives = {}
    for turn, (name, shadow_share) in enumerate(pipelines(options).items()):
        place = here.place(f"{history.name}{number}{turn}")
        lives[name] = life = Life(history, place, options.rate, shadow_share, seed=number)
        with pipeline(place, configuration(history, here.folder), *allowed):
            uvloop.run(life.live())
    queries = horizon(history, max(len(life.rows) for life in lives.values()))
    for name, life in lives.items():
        order = shuffled(life.rows, queries, len(history.labels), seed=number)
        yield figures(history, name, [life.course(order)], [order]) | {
            "evidence": sum(one["evidence"] for one in life.verdicts),
            "seconds": round(sum(one["seconds"] for one in life.verdicts), 1),
            "default_ratio": round(life.defaults / (life.answered_count + life.defaults), 6),
            "missing": life.missing,
            "versions": life.verdicts,
        }
    for name, share in TESTS.items():
        orders = [shuffled([], queries, len(history.labels), seed) for seed in range(options.orders)]
        tests = [
            fixed_sample_course(history.losses, order, history.difference, share, seed)
            for seed, order in enumerate(orders)
        ]
        yield figures(history, name, tests, orders)


# --- the pipeline -----------------------------------------------------------------------------------------------------
def configuration(history: VersionHistory, folder: Path) -> str:
    """An application that asks the incumbent."""
    spec = msgspec.to_builtins(manifest_of(history, 0))
    asked = application(NAME, [], "exp3", OBJECTIVE_MS) | {
        "models": [f"{NAME}:0"],
        "input": spec["input"],
        "keep_best": 1,
    }
    first = model(NAME, spec["uri"]) | spec | {"deterministic": True}
    return written(folder / f"{history.name}.toml", [asked], [first])


def manifest_of(history: VersionHistory, version: int) -> ModelManifest:
    file = history.files[version]
    (manifest,) = with_digests(
        [
            ModelManifest(
                name=NAME,
                version=str(version),
                runtime="sklearn",
                uri=str(file),
                input=InputSpec(dtype="float32", shape=[history.queries.shape[1]]),
                colocated=True,
                parameters={"trusted": sorted(skops.io.get_untrusted_types(file=file))},
            )
        ]
    )
    return manifest


class OutputAnswer(msgspec.Struct):
    """The fields of a prediction that are looked at."""

    query_id: str
    default: bool = False
    reason: str | None = None
    output: Any = None


class Life:
    """The versions of one model, one after the other, while queries flow; follows the load answer by answer.

    Args:
        history: The versions.
        place: Where the pipeline runs.
        rate: Queries a second at most.
        shadow_share: Of each canary.
        seed: Of the order of the queries.

    Attributes:
        rows: Of the queries that were asked while a version was on trial, in the order of their answers.
        verdicts: What the rule said, and when, a version.
        answered_count: Queries that a model answered.
        defaults: Queries that got the default output; nothing else counts them, as in the trials.
        missing: Queries without an answer.
    """

    answers = Codec(OutputAnswer)

    def __init__(self, history: VersionHistory, place: Place, rate: float, shadow_share: float, seed: int) -> None:
        self._history, self._place, self._rate, self._seed = history, place, rate, seed
        self._shadow_share = shadow_share
        self._data = Dataset(history.queries, history.labels)
        self._run: LoadRun | None = None
        self._answers: list[tuple[float, int, float]] = []
        """Seconds since the epoch, row and loss of each."""
        self._lost: list[float] = []
        self.rows: list[int] = []
        self.verdicts: list[dict[str, Any]] = []
        self.defaults = self.missing = 0

    @property
    def answered_count(self) -> int:
        return len(self._answers)

    async def live(self) -> None:
        """Return when the rule has decided about every version.

        Raises:
            NotServing: the rule did not decide.
        """
        try:
            async with asyncio.TaskGroup() as group:
                traffic = group.create_task(self._ask())
                await self._deploy_all()
                traffic.cancel()
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from failed

    async def _ask(self) -> None:
        for number in itertools.count():
            plan = LoadPlan(
                NAME,
                dataset=self._data,
                mode="bounded",
                rate_per_s=self._rate,
                duration_s=CHUNK_S,
                outstanding=OUTSTANDING,
                feedback_delay_s=FEEDBACK_AFTER_S,
                encoding="msgpack",
                drain_s=60.0,
                seed=1_000 * self._seed + number,
            )
            done = await run_load(plan, self._place.connection, self._place.catalogue, self._follow, self)
            self.missing += done.missing

    async def _follow(self, run: LoadRun) -> None:
        self._run = run
        await asyncio.Event().wait()  # is cancelled

    def releasing(self, count: int) -> None:
        """Nothing is done before an answer."""

    def answered(self, query: int, answer: OutputAnswer) -> None:
        assert self._run is not None
        if answer.default:
            self.defaults += 1
            return
        row = self._run.script.rows[query]
        self._answers.append((time.time(), row, float(answer.output != self._history.labels[row])))

    async def _deploy_all(self) -> None:
        incumbent = 0
        for version in range(1, len(self._history.recipes)):
            began_s = await self._deploy(version, incumbent)
            change = await self._verdict(version)
            self._note(version, incumbent, began_s, change)
            if change.command == "promote":
                before = f"{NAME}:{incumbent}"
                await self._change(lambda found, before=before: changes.retire(found, NAME, before))
                incumbent = version

    def _note(self, version: int, incumbent: int, began_s: float, change: Change) -> None:
        ended_s, seen_s = change.at_ms / 1000, change.numbers.get("upto_s") or began_s
        during = [one for one in self._answers if began_s <= one[0] < ended_s]
        self.rows += [row for _, row, _ in during]
        self._lost += [lost for *_, lost in during]
        self.verdicts.append({
            "version": version,
            "beside": incumbent,
            "promoted": change.command == "promote",
            "queries": len(during),
            "evidence": sum(at_s < seen_s for at_s, *_ in during),
            "seconds": round(ended_s - began_s, 1),
            "pairs": change.numbers.get("scores"),
            "why": change.why,
        })  # fmt: skip
        said(self.verdicts[-1])

    async def _deploy(self, version: int, incumbent: int) -> float:
        """Load the version, then begin its trial; when that was, in seconds since the epoch."""
        even = sample_size(float(self._history.means[incumbent]), self._history.difference, 0.5)
        rule = {"margin": 0.0, "steps": STEPS, "plan": {"feedbacks": max(10, even // 2)}}
        manifest = manifest_of(self._history, version)
        await self._change(lambda found: changes.update(found, NAME, {"rollout": rule}))
        await self._change(lambda found: changes.deploy(found, NAME, manifest, "shadow", 0.0))
        how = {"automatic": True, "shadow_share": self._shadow_share}
        await self._change(lambda found: changes.canary(found, NAME, manifest.ref, SHARE, **how))
        return time.time()

    async def _verdict(self, version: int) -> Change:
        ref, end_s = f"{NAME}:{version}", time.monotonic() + VERDICT_S
        while time.monotonic() < end_s:
            state = await read_control(self._place.connection, self._place.catalogue)
            for change in state.history(NAME).values():
                if change.model == ref and change.command in ("promote", "abort"):
                    return change
            await asyncio.sleep(LOOK_S)
        raise NotServing(f"the rule decided nothing about {ref} in {VERDICT_S:.0f} s")

    async def _change(self, decide: Callable[[Manifests], Plan]) -> None:
        await change_control(self._place.connection, self._place.catalogue, lambda state: decide(state.manifests))

    def course(self, order: Order) -> Course:
        """What became of all; after the last verdict what was kept goes on."""
        ends = list(itertools.accumulate(one["queries"] for one in self.verdicts))
        promoted, lost, asked = [one["promoted"] for one in self.verdicts], np.empty(len(order)), len(self._lost)
        found = Course(promoted=promoted, deployed=[0, 0, *ends[:-1]], ends=ends, lost=lost)
        lost[:asked], lost[asked:] = self._lost, self._history.losses[found.kept, order[asked:]]
        return found


# --- figures ----------------------------------------------------------------------------------------------------------
def horizon(history: VersionHistory, least: int) -> int:
    """Queries until a test of each version is over, where each ends rightly; or so many."""
    means = history.means
    best = np.minimum.accumulate(means)[:-1]
    return max(least, sum(sample_size(float(loss), history.difference, SHARE) for loss in best))


def shuffled(rows: Sequence[int], count: int, of: int, seed: int) -> Order:
    """The rows, and after them all rows again and again, each time in another order."""
    rng, missing = np.random.default_rng([seed, 41]), count - len(rows)
    more = [rng.permutation(of) for _ in range(-(-missing // of))]
    return np.concatenate([np.asarray(rows, np.int64), *more])[:count]


def figures(history: VersionHistory, name: str, courses: Sequence[Course], orders: Sequence[Order]) -> Run:
    """Means over the courses, each of which had an order of the queries."""
    means, losses = history.means, history.losses
    right = [course.right(means) for course in courses]
    best, both = [course.kept == means.argmin() for course in courses], list(zip(courses, orders, strict=True))
    return {
        "system": f"{history.name}, {name}",
        "data": history.name,
        "horizon": len(orders[0]),
        "right": fmean(sum(one) for one in right),
        "right_by_version": np.mean(right, axis=0).round(3).tolist(),
        "kept_best": fmean(best),
        "queries": round(fmean(course.ends[-1] - course.deployed[1] for course in courses)),
        "best_after": round(fmean(course.ends[means[1:].argmin()] for course in courses)),
        "regret": round(fmean(course.regret(losses, order) for course, order in both), 1),
        "regret_of_all": round(fmean(course.regret_of_all(losses, order) for course, order in both), 1),
    }


def page(history: VersionHistory, runs: Sequence[Run], ours: Sequence[str]) -> Iterator[str]:
    of = {name: [run for run in runs if run["system"].endswith(name)] for name in (*ours, *TESTS)}
    means, lives = history.means, [of[name] for name in ours]
    yield f"## {history.name}\n"
    yield f"{len(history.labels):,} held-out queries; the smallest difference that matters is {history.difference:g}."
    yield f"Version 0, {history.recipes[0].says}, loses {means[0]:.4f}.\n"
    yield f"| | version | loses | more than the best before | {' | '.join(of)} |"
    yield f"|---|---|---|---{'|---' * len(of)}|"
    best = 0
    for version, recipe in enumerate(history.recipes[1:], 1):
        cells = [verdicts_of([run["versions"][version - 1] for run in one]) for one in lives]
        for name, share in TESTS.items():
            right = fmean(run["right_by_version"][version - 1] for run in of[name])
            cells.append(f"{right:.0%} right, {sample_size(float(means[best]), history.difference, share):,}")
        loss = f"{means[version]:.4f} | {means[version] - means[best]:+.4f}"
        yield f"| {version} | {recipe.says} | {loss} | {' | '.join(cells)} |"
        best = version if means[version] < means[best] else best
    defaults = ", ".join(f"{run['default_ratio']:.1%}" for one in lives for run in one)
    yield f"\nOver {each(dict.fromkeys(run['horizon'] for run in runs))} queries. Default outputs: {defaults}.\n"
    columns = ("kept the best", "queries, all trials", "until the verdict about the best", "regret", "beside all")
    yield f"| | right of {len(means) - 1} | {' | '.join(columns)} |"
    yield f"|---|---{'|---' * len(columns)}|"
    for name, those in of.items():
        right, kept = fmean(run["right"] for run in those), fmean(run["kept_best"] for run in those)
        numbers = (each(run[of] for run in those) for of in ("queries", "best_after", "regret", "regret_of_all"))
        yield f"| {name} | {right:.1f} | {kept:.0%} | {' | '.join(numbers)} |"
    yield ""


def meaning(runs: Sequence[Run], ours: Sequence[str]) -> list[str]:
    """What the figures say of all data sets together."""
    lives = [run for run in runs if "versions" in run]
    verdicts, right = sum(len(run["versions"]) for run in lives), sum(run["right"] for run in lives)
    kept = sum(run["kept_best"] for run in lives)
    lines = [
        "## What they mean\n",
        f"{right:.0f} of {verdicts} verdicts of the pipeline were right; the best version was",
    ]
    lines[-1] += f" kept in {kept:.0f} of {len(lives)} lives."
    for one, test in itertools.product(ours, TESTS):
        ratios = {name: [] for name in ("queries", "regret", "regret_of_all")}
        for run in lives:
            if run["system"].endswith(one):
                rival = next(each for each in runs if each["system"] == f"{run['data']}, {test}")
                for name, found in ratios.items():
                    found.append(run[name] / rival[name])
        queries, regret, of_all = (f"{min(found):.2f} to {max(found):.2f}" for found in ratios.values())
        lines.append(f"- {one}, times {test}: queries {queries}, regret {regret}, beside all {of_all}")
    return [*lines, MEANING]


def verdicts_of(lives: Sequence[Mapping[str, Any]]) -> str:
    """Verdicts about a version; of the queries until then, how many it rests on; seconds."""
    aborted = {False: "aborted", True: "aborted as it did not answer"}
    words = dict.fromkeys("promoted" if one["promoted"] else aborted["unanswered" in one["why"]] for one in lives)
    numbers = "; ".join(f"{one['evidence']:,} of {one['queries']:,}, {one['seconds']:.0f} s" for one in lives)
    return f"{', '.join(words)}, {numbers}"


def each(values: Iterable[float]) -> str:
    return ", ".join(f"{value:,.0f}" for value in values)


def targets(found: Summary, names: Sequence[str], pipelines: Sequence[str]) -> list[Target]:
    expected = []
    for name, ours in itertools.product(names, pipelines):
        mine = found, f"{name}, {ours}", "beside all"
        rival = median_of(found, f"{name}, {next(iter(TESTS))}", "beside all")
        ratio = (median_of(*mine) or 0.0) / rival if rival else None
        about = {"benchmark": "versions", "what": f"{name}, {ours}: regret beside all, x fixed-sample, 10 %"}
        expected.append(Target.of("versions", f"{name}, {ours}: kept the best", (*mine[:2], "kept best"), ">=", 1.0))
        expected.append(Target(**about, value=ratio, sense="<=", bound=0.8))
    return expected


def pipelines(options: argparse.Namespace) -> dict[str, float]:
    """Shares of the queries that ask a canary as a shadow, by what tables call them."""
    return {f"pipeline, {SHARE:.0%} + {share:.0%}".replace("%", " %"): share for share in options.shadow_shares}


def arguments() -> argparse.Namespace:
    parser = system_options(__doc__)
    parser.add_argument("--page", type=Path, metavar="FILE", help="write the page of the figures")
    parser.add_argument("--nannyml", type=Path, metavar="WHEEL", help="a wheel of nannyml, for its table of jobs")
    parser.add_argument("--only", default="", metavar="A,B", help="these data sets")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--shadow-shares", type=float, nargs="+", default=[0.1, 0.4], metavar="RATIO")
    parser.add_argument("--rate", type=float, default=600.0, help="queries a second at most")
    parser.add_argument("--orders", type=int, default=200, help="of the queries, for each fixed-sample test")
    parser.add_argument("--versions", type=int, default=10, help="after the incumbent")
    parser.add_argument("--difference", type=float, help="that matters; absent: that of the data set")
    return parsed(parser, QUICK)


if __name__ == "__main__":
    main()
