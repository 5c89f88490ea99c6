"""What benchmarks are made of, and smoke runs of those without Kafka; tests/e2e/test_benchmarks.py has the others."""

import csv
import json
import math
import runpy
import signal
import sys

import numpy as np
import pytest
from builders.benchmarks import BENCHMARKS, ON_KAFKA, benchmark_module, check_figures, ran, result

from clipper_stream.selection.registry import make_policy

WITHOUT_KAFKA = ("batching", "batching_quality", "delayed_batching", "estimating", "tracing")
PAGES = (
    "cascades",
    "coverage",
    "decisions",
    "digits_off_policy",
    "drift",
    "guardrails",
    "learning_candidates",
    "regret",
)
OTHERS = ("all", "disk", "figures", "fooled_verdicts", "gateway_limits", "http_servers", "latency_steps", "throughput")


@pytest.mark.parametrize("name", sorted({path.stem for path in BENCHMARKS.glob("*.py")} - {"models"}))
def test_a_benchmark_is_run_by_a_test_and_says_how_it_is_run(name, monkeypatch, capsys):
    assert name in (*ON_KAFKA, *WITHOUT_KAFKA, *PAGES, *OTHERS)
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(BENCHMARKS / f"{name}.py"), run_name="__main__")
    assert ended.value.code == 0
    assert f"usage: {name}" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", WITHOUT_KAFKA)
def test_a_benchmark_without_kafka_runs_and_has_figures(name, tmp_path):
    check_figures(result(name, tmp_path))


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", PAGES)
def test_a_simulated_benchmark_writes_its_page(name, tmp_path):
    printed = ran(name, "--page", tmp_path / "page.md")
    page = (tmp_path / "page.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| ")]
    assert rows
    assert all(cell.strip() not in ("", "nan") for row in rows for cell in row.strip("| ").split(" | ")[1:])
    assert all(line in page for line in printed.splitlines())


def test_the_worlds_of_the_regret_benchmark_are_what_their_names_say():
    worlds = {world.name: world for world in benchmark_module("rig.worlds").worlds(4_000)}
    adversary = worlds["adversary"].means
    assert np.allclose(adversary[:, :-1] - adversary[:, -1:], 0.125)  # differences are steady ...
    assert set(adversary[:, -1]) == {0.0, 0.875}  # ... and levels are not
    assert len({row.argmin() for row in worlds["abrupt"].means}) == 2
    assert len({row.argmin() for row in worlds["gradual"].means}) > 2
    due = {name: worlds[name].due(np.random.default_rng(1)) for name in ("late", "geometric", "batches")}
    assert set(due["late"]) == {500}
    assert abs(due["geometric"].mean() - 500) < 5.0 * 500 / math.sqrt(4_000)
    assert set((np.arange(4_000) + due["batches"]) % 500) == {499}


def test_the_figures_of_which_policy_when_are_those_of_the_regret_page():
    """Regret after the last query; a second number of a cell is that of the policy with a half-life."""
    with (BENCHMARKS / "results/regret.csv").open() as file:
        rows = list(csv.DictReader(file))
    measured = {(row["world"], row["policy"]): f"{int(row['after 10,000']):,}" for row in rows}
    page = (BENCHMARKS.parent / "docs/explanation/which-policy-when.md").read_text()
    lines = page.split("\n## Advice")[0].splitlines()
    table = [line.strip("| ").split(" | ") for line in lines if line.startswith(("| policy", "| `"))]
    for name, *cells in table[1:]:
        for world, cell in zip(table[0][1:], cells, strict=True):
            policies = (name.strip("`"), f"{name.strip('`')} half_life=300")
            for policy, number in zip(policies, cell.split(", "), strict=False):
                assert measured[world.split(",")[0], policy] == number, (world, policy)


def test_the_figures_of_cascades_are_those_of_their_page():
    measured = (BENCHMARKS / "results/cascades.md").read_text().splitlines()
    rows = [line.strip("| ").split(" | ") for line in measured if line.startswith("| ")]
    page = (BENCHMARKS.parent / "docs/explanation/which-policy-when.md").read_text()
    table = [line.strip("| ").split(" | ") for line in page.split("| `budget` 0.5 |")[1].split("\n\n")[0].splitlines()]
    for name, cheap, dear, *cells in table[2:]:
        for budget, cell in zip(("0.2", "0.5"), cells, strict=True):
            (row,) = (row for row in rows if (row[0], row[2]) == (name, budget))
            saved = 100 - float(row[3].strip("%"))
            assert (row[4], row[5], f"{row[6]}, {saved:.0f} % saved") == (cheap, dear, cell)


def test_the_figures_of_pages_are_those_of_the_table():
    figures = benchmark_module("figures")
    table = figures.read_table()
    for page in figures.PAGES:
        assert figures.with_figures(page.read_text(), table) == page.read_text(), page


def benchmark_result(*targets, began="monday", **summary):
    """A result as `all.py` leaves it."""
    machine = dict.fromkeys(("cpus", "cpu", "kernel", "python", "kafka"), "1")
    conditions = {**machine, "versions": {"aiokafka": "0.14"}, "settings": {"rounds": 2}, "rivals": ["bytewax==0.21"]}
    run = {"began": began, "load": 0.05, "took_s": 90}
    return {"run": run, "conditions": conditions, "targets": targets, "summary": summary}


def test_pages_have_each_figure_beside_its_goal_and_name_what_was_missed_or_absent_or_is_of_another_run():
    figures = benchmark_module("figures")
    bounds = {"ours: rows/s, x loop": 1, "y": 0.1}
    targets = [dict(benchmark="A", what=what, value=0.5, sense=">=", bound=bounds[what]) for what in bounds]
    measured = {"median": 2_000.4, "least": 1_900.0, "most": 2_100.0, "ratio": 0.5}
    found = benchmark_result(
        *targets, ours={"rows/s": measured, "host µs": {"median": None}}, C={"a": {"exponent": 0.25}}
    )
    by_hand = {key: value for key, value in benchmark_result().items() if key != "run"}
    results = {"A": found, "B": by_hand, "H": benchmark_result(), "L": benchmark_result(began="friday")}
    table = list(figures.table(results))
    assert [",".join(row) for row in table if row.benchmark == "A"] == [
        "A,run,began,monday,,,",
        "A,run,load,0.05,,,",
        "A,run,took_s,90,,,",
        "A,expected,ours: rows/s, x loop,0.5,1,,missed",
        "A,expected,y,0.5,0.1,,met",
        "A,settings,rounds,2,,,",
        "A,ours,rows/s,2000,1900,2100,0.50",
        "A,C, a,exponent,0.25,,,",
    ]
    page = figures.with_figures(
        "".join(f"<!-- figures: {block} -->\nold\n<!-- end of figures -->\n" for block in ("versions", "A", "goals"))
        + "<!-- = A; ours; rows/s -->old<!-- end -->, <!-- = B; echo, 200/s; p50 ms -->old<!-- end -->",
        table,
    )
    assert "old" not in page
    assert page.endswith("-->2,000<!-- end -->, <!-- = B; echo, 200/s; p50 ms -->-<!-- end -->")
    said = " ".join(page.split())
    assert "begun at monday with a load average of 0.05." in said
    assert "The run took 3 minutes. **Of other runs: L (begun at friday).** **Without a result: B, " in said
    assert "aiokafka 0.14. Rivals: bytewax==0.21." in said
    assert "| ours | 2,000 | - | - | - | - | rows/s, x loop: 0.5 (goal >= 1), **missed** |" in page
    assert "1 of 2 goals were met." in page
    assert "| A | y | >= 0.1 | 0.5 | met |" in page


def test_a_benchmark_that_fails_loses_its_old_result_and_none_of_the_others(tmp_path, monkeypatch):
    module = benchmark_module("all")
    monkeypatch.setitem(module.BENCHMARKS, "X", module.Benchmark("no_such_benchmark"))
    monkeypatch.setattr(sys, "argv", ["all", "--quick", "--only", "X,estimates", "--results", str(tmp_path)])
    (tmp_path / "no_such_benchmark.json").write_text("{}")
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as ended:
        module.main()
    signal.signal(signal.SIGTERM, handler)
    assert ended.value.code == 1
    assert [file.name for file in tmp_path.iterdir()] == ["estimating.json"]
    assert json.loads((tmp_path / "estimating.json").read_text())["run"]["took_s"] >= 0


def answers(*took_s, every_s=0.1, refused=()):
    """Answers to requests that were due every tenth of a second."""
    flood, count = benchmark_module("rig.http_flood"), len(took_s)
    status = np.array([flood.TOO_MANY if number in refused else flood.OK for number in range(count)])
    return flood.Answers(np.arange(count) * every_s, np.array(took_s), np.zeros(count), status, np.zeros(count, bool))


def test_a_gateway_is_normal_after_the_last_slow_window_and_a_percentile_on_a_missing_answer_is_none():
    normal_after_s = benchmark_module("gateway_limits").normal_after_s
    calm, slow = [0.01] * 5, [0.03] * 5  # half a second each
    before = answers(*calm)
    assert normal_after_s(before, answers(*calm, *calm)) == 0.0
    assert normal_after_s(before, answers(*calm, *slow, *calm)) == 1.0
    assert normal_after_s(before, answers(*calm, *calm, refused=range(3))) == 0.5
    assert normal_after_s(before, answers(*calm, *slow)) is None
    percentile_ms = benchmark_module("gateway_limits").percentile_ms
    found = answers(0.01, 0.02, 0.03, np.inf)
    assert percentile_ms(found, 50) == 30.0
    assert percentile_ms(found, 99) is None
    assert percentile_ms(found, 99, np.array([True, True, False, False])) == 20.0


@pytest.mark.parametrize(("policy", "within"), [("exp3", 600), ("exp4", 500), ("epsilon_greedy", 1500)])
def test_a_new_version_is_found_best_within_a_bound(policy, within):
    """The bounds are about twice the 95th percentiles in benchmarks/results/decisions.md."""
    feedbacks_to_lead = benchmark_module("decisions").feedbacks_to_lead
    found = [feedbacks_to_lead(make_policy(policy), seed, 2 * within) for seed in range(8)]
    assert all(feedbacks is not None and feedbacks <= within for feedbacks in found), found


@pytest.mark.parametrize("name", ["digits", "shuttle"])
def test_of_ten_versions_on_real_data_three_lose_less_than_all_before_them(name, tmp_path):
    source = benchmark_module("rig.version_histories").sources(None)[name]
    means = source.trained(name, tmp_path).means
    gains = np.minimum.accumulate(means)[:-1] - means[1:]
    assert len(gains) == 10
    assert sum(gains >= source.difference) == 3
    assert sum(gains > 0) == 3
    assert sum(gains == 0) == 2


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_a_fixed_sample_test_errs_as_often_as_power_analysis_says(share):
    """Of 400 tests: 80 % find the difference, 2.5 % find one where there is none, each within 3 standard errors."""
    fixed_sample, rng, rows = benchmark_module("rig.fixed_sample"), np.random.default_rng(1), 100_000
    better, equal = ((rng.random((2, rows)) < [[0.1], [mean]]).astype(float) for mean in (0.08, 0.1))
    size = fixed_sample.sample_size(0.1, 0.02, share)
    found = []
    for losses in (better, equal):
        orders = (np.random.default_rng(seed).integers(0, rows, size) for seed in range(400))
        courses = [
            fixed_sample.fixed_sample_course(losses, order, 0.02, share, seed) for seed, order in enumerate(orders)
        ]
        found.append(np.mean([course.promoted[0] for course in courses]))
    assert 0.74 < found[0] < 0.90  # the loss of the new version is smaller, and so is the variance
    assert found[1] < 0.025 + 3 * math.sqrt(0.025 / 400)


def test_regret_is_beside_the_best_version_that_was_deployed_by_then():
    losses = np.array([[1.0, 1.0, 0.0], [0.0, 1.0, 1.0], [0.0, 0.0, 0.0]])
    order = np.array([0, 1, 2, 0])
    lost = np.array([1.0, 0.0, 0.0, 0.0])
    course = benchmark_module("rig.fixed_sample").Course(
        promoted=[False, True], deployed=[0, 0, 1], ends=[1, 3], lost=lost
    )
    assert course.kept == 2
    assert course.right(losses.mean(axis=1)) == [True, True]
    assert course.regret(losses, order) == 0.0  # the incumbent, and the first version, which is as good, lose the same
    assert course.regret_of_all(losses, order) == 1.0
