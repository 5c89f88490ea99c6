import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml
from builders.pages import blocks

from clipper_agents.observability.metrics import WANT_OF_TIME
from clipper_agents.observability.specs import PROCESS_METRICS, SPECS
from clipper_agents.router.self_report import TOLERATED_S
from clipper_topics.prediction import LOW_CONFIDENCE, REASONS, REFUSALS
from deploy.observe.servers import BOARD, RULES, faster, prometheus

ROOT = Path(__file__).parents[3]
RUNBOOKS = ROOT / "docs/how-to/runbooks.md"
PARTS = ("**What it means.**", "**What users see.**", "**Look first.**", "**Mend it.**", "**It ends**")
GROUPS: list[dict[str, Any]] = yaml.safe_load(RULES.read_text())["groups"]
RULES_OF_ALL = [rule for group in GROUPS for rule in group["rules"]]
ALERTS = {rule["alert"]: rule for rule in RULES_OF_ALL if "alert" in rule}
RECORDED = {rule["record"]: rule["expr"] for rule in RULES_OF_ALL if "record" in rule}
CONTENT = json.loads(BOARD.read_text())
PANELS = [panel for panel in CONTENT["panels"] if panel["type"] != "row"]
LABELS = {spec.name: {*spec.labels} for spec in SPECS} | {name: set[str]() for name in PROCESS_METRICS}
LABELS |= {"up": set(), "ALERTS": {"alertname", "alertstate"}} | {name: {"application"} for name in RECORDED}
OF_TARGETS = {"job", "instance"}
PART = re.compile("_(bucket|sum|count)$")
NAME = re.compile(r"\b(?:application:)?(?:clipper|process)_[a-z_]+(?::[a-z_]+\d*[a-z]*)?|\bup\b|\bALERTS\b")


def expressions() -> Iterator[tuple[str, str]]:
    yield from ((rule.get("alert") or rule["record"], rule["expr"]) for rule in RULES_OF_ALL)
    yield from ((panel["title"], target["expr"]) for panel in PANELS for target in panel["targets"])
    yield from ((one["name"], one["expr"]) for one in CONTENT["annotations"]["list"])
    variables = [one["definition"] for one in CONTENT["templating"]["list"] if one["type"] == "query"]
    for definition in variables:
        metric, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", definition).groups()  # type: ignore[union-attr]
        yield definition, f"sum by ({label}) ({metric})"


def known_labels(name: str) -> set[str]:
    """The labels of a series, without those of its target."""
    of_bucket = {"le"} if name.endswith("_bucket") else set()
    return LABELS[name if name in LABELS else PART.sub("", name)] | of_bucket


def strange(expression: str) -> list[str]:
    """Metrics and labels in the expression that there are not."""
    bare = re.sub(r'"[^"]*"', '""', expression)
    names = NAME.findall(bare)
    found = [name for name in names if not {name, PART.sub("", name)} & LABELS.keys()]
    if found:
        return found
    for name, selector in re.findall(rf"({NAME.pattern})\{{([^}}]*)\}}", bare):
        labels = re.findall(r"(\w+)(?:=~|!~|!=|=)", selector)
        found += [f"{name}.{label}" for label in labels if label not in known_labels(name) | OF_TARGETS]
    everything = OF_TARGETS.union(*map(known_labels, names))
    groups = re.findall(r"\b(?:by|on|without|ignoring) \(([^)]*)\)", bare)
    return found + [label for labels in groups for label in re.findall(r"\w+", labels) if label not in everything]


def test_every_expression_asks_for_metrics_and_labels_that_there_are():
    assert [(of, found) for of, expression in expressions() if (found := strange(expression))] == []
    for wrong in ("clipper_querys_total", 'clipper_queries_total{app="a"}', "sum by (model) (clipper_queries_total)"):
        assert strange(wrong) != []


def test_every_panel_has_a_unit_a_sentence_and_legends_of_its_own_labels():
    for panel in PANELS:
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["description"].endswith("."), panel["title"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}, panel["title"]
        for target in panel["targets"]:
            for label in re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]):
                assert re.search(rf"by \([^)]*\b{label}\b", target["expr"]), (panel["title"], label)


def test_no_two_panels_have_one_id_or_one_place():
    places = [one["gridPos"] for one in CONTENT["panels"]]
    assert len({one["id"] for one in CONTENT["panels"]}) == len(places)
    assert all(a["x"] + a["w"] <= 24 for a in places)
    for a, b in combinations(places, 2):
        beside = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        above = a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
        assert beside or above, (a, b)


def test_every_alert_says_how_bad_it_is_what_it_means_and_where_its_runbook_is():
    for name, rule in ALERTS.items():
        notes = rule["annotations"]
        assert rule["labels"]["severity"] in {"critical", "warning", "info"}, name
        assert notes["summary"], name
        assert notes["description"].endswith("."), name
        assert notes["runbook_url"] == f"docs/how-to/runbooks.md#{name.lower()}"


def test_every_alert_has_a_runbook_with_all_its_parts_and_every_runbook_an_alert():
    runbooks = dict(re.findall(r"^## (Clipper\w+)\n(.*?)(?=^## |\Z)", RUNBOOKS.read_text(), re.MULTILINE | re.DOTALL))
    assert runbooks.keys() == ALERTS.keys()
    for name, text in runbooks.items():
        assert [part for part in PARTS if part not in text] == [], name
        commands = [line for line in text.splitlines() if re.match(r"\d\. +`", line)]
        assert len(commands) == 3, name


def test_every_reason_of_a_default_burns_a_budget_or_is_known_not_to():
    burns = set(re.findall(r"\w+", re.search(r'reason=~"([^"]*)"', RULES.read_text())[1]))  # type: ignore[index]
    assert burns | WANT_OF_TIME | REFUSALS | {LOW_CONFIDENCE} == REASONS.keys()
    assert not burns & (WANT_OF_TIME | REFUSALS)


def test_the_tolerated_skew_of_the_alert_is_that_of_the_router():
    assert f"> {TOLERATED_S}" in ALERTS["ClipperClockSkew"]["expr"]


def test_faster_rules_are_the_same_rules_with_shorter_windows():
    shorter = yaml.safe_load(faster(RULES.read_text(), 60))
    windows = re.compile(r"\[\w+\]|offset \w+")
    for group, quick in zip(GROUPS, shorter["groups"], strict=True):
        for rule, other in zip(group["rules"], quick["rules"], strict=True):
            assert windows.sub("", rule["expr"]) == windows.sub("", other["expr"])
            assert len(re.findall(r"\d+ms", other["expr"])) == len(windows.findall(rule["expr"]))
            assert ("for" in rule) is ("for" in other)
    assert "for: 1000ms" in faster(RULES.read_text(), 60)


def promtool(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["promtool", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool: apt install prometheus")
def test_promtool_has_nothing_to_say_against_rules_and_configurations(tmp_path: Path):
    for arguments in ("check rules alerts.yml", "check config prometheus.yml", "test rules alerts_test.yml"):
        assert "SUCCESS" in promtool(RULES.parent, *arguments.split())
    configurations = [block for block in blocks(ROOT / "docs/how-to/observe.md", "yaml") if "scrape_configs" in block]
    assert len(configurations) == 2, "of compose and of kubernetes"
    shutil.copy(RULES, tmp_path)
    pods = "kubernetes_sd_configs:\n      - role: pod"  # which not every build has
    for text in configurations:
        (tmp_path / "prometheus.yml").write_text(text.replace(pods, "static_configs: [{targets: [a:1]}]"))
        assert yaml.safe_load(text)["scrape_configs"][0]["job_name"] == "clipper"
        promtool(tmp_path, "check", "config", "prometheus.yml")


def test_without_a_prometheus_the_message_says_how_to_get_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit, match="apt install prometheus"), prometheus(tmp_path, tmp_path / "targets.json"):
        raise AssertionError
