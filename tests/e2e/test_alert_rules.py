import json
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.observe.servers import RULES

pytestmark = [
    pytest.mark.slow,  # half a minute of promtool
    pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool: apt install prometheus"),
]

ALERTS = {
    rule["alert"].removeprefix("Clipper"): rule["labels"]["severity"]
    for group in yaml.safe_load(RULES.read_text())["groups"]
    for rule in group["rules"]
    if "alert" in rule
}
OF_A, CHILD, UP = 'application="a"', 'instance="i",role="host"', 'up{instance="i",job="clipper"}'
BRIEFLY = "0+0x60 0+60x30 1800x600"
ASKED, MISSED = {"clipper_predictions_total": "0+60x600"}, {"clipper_objective_missed_total": BRIEFLY}
FAILED = {'clipper_predictions_total{application="a",reason="errors"}': BRIEFLY}
ABORT = 'clipper_decisions_total{application="a",command="abort",outcome="made"}'
DRIFT = 'clipper_drifts_total{application="a",direction="up",model="m:1"}'
SERVED = {"clipper_children_ready": "2x9 1x19 2x9", "clipper_children_wanted": "2x40"}
DISK = {"clipper_disk_free_bytes": "60x9 59x9 60x9", "clipper_disk_used_bytes": "-999999940x30"}


def replies(route: str, status: int) -> str:
    return f'clipper_gateway_requests_total{{application="a",route="{route}",status="{status}"}}'


FAILING = {replies("/sums", 200): "0+94x40", replies("/sums", 503): "0x9 0+6x9 54x20"}
FAILING[replies("/v2/health/live", 503)] = "0+99x40"  # a probe, which does not count
CROWDED = {replies("/sums", 200): "0+90x40", replies("/sums", 429): "0x9 0+10x19 190x20"}
PLAYED: list[tuple[str, str, dict[str, str], tuple[float, float, float]]] = [
    # alert, its labels, series from minute to minute, and minutes in which it does not fire yet, fires, fires no more
    ("LatencyObjectiveBurnsFast", OF_A, ASKED | MISSED, (63, 110, 125)),
    ("LatencyObjectiveBurnsSlowly", OF_A, ASKED | MISSED, (61, 440, 460)),
    ("DefaultsBurnFast", OF_A, ASKED | FAILED, (63, 110, 125)),
    ("DefaultsBurnSlowly", OF_A, ASKED | FAILED, (61, 430, 460)),
    ("NoReadyHosts", 'model="m:1"', {"clipper_ready_hosts": "1x9 0x9 1x9"}, (11, 13, 20)),
    ("TrialAborted", OF_A, {ABORT: "0x9 1x90"}, (9, 38, 42)),
    ("TrialAborted", OF_A, {ABORT: "_x9 1x90"}, (8, 38, 42)),
    ("Drift", 'application="a",model="m:1"', {DRIFT: "0x9 1x90"}, (9, 68, 72)),
    ("Drift", 'application="a",model="m:1"', {DRIFT: "_x9 1x90"}, (8, 68, 72)),
    ("ProcessDown", 'instance="i",job="clipper"', {UP: "1x9 0x9 1x9"}, (10, 12, 20)),
    ("ProcessDown", 'job="clipper"', {UP: "1x9 _x19 1x9"}, (13, 17, 30)),
    ("ProcessesMissing", CHILD, SERVED, (19, 21, 30)),
    ("Restarts", CHILD, {"clipper_restarts_total": "0x9 1 2 3 4x40"}, (11, 13, 40)),
    ("BrokerUnreachable", 'instance="i"', {"clipper_broker_reachable": "1x9 0x9 1x9"}, (10.25, 10.75, 20)),
    ("ConsumerLag", 'topic="t"', {"clipper_consumer_lag": "1000x9 1001x9 1000x9"}, (15, 17, 20)),
    ("ConsumerLag", 'topic="deferred queries"', {"clipper_deferred_queries": "1000x9 1001x9 1000x9"}, (15, 17, 20)),
    ("DeadLetters", 'reason="r",topic="t"', {"clipper_dead_letters_total": "_x9 1x90"}, (8, 18, 22)),
    ("ClockSkew", 'instance="i"', {"clipper_clock_skew_seconds": "0.1x9 -0.11x9 0.1x9"}, (14, 16, 20)),
    ("DiskAlmostFull", "", DISK, (14, 16, 20)),
    ("GatewayErrors", "", FAILING, (16, 18, 26)),
    ("GatewayOverload", OF_A, CROWDED, (17, 19, 36)),
]  # fmt: skip


def played(name: str, labels: str, told: Mapping[str, str], minutes: Iterable[float]) -> dict[str, Any]:
    """A test as promtool reads it: the alert fires in the second of these minutes, and not in the others."""
    firing = f'ALERTS{{alertname="Clipper{name}",alertstate="firing"'
    sample = {"labels": f'{firing},severity="{ALERTS[name]}"{"," * bool(labels)}{labels}}}', "value": 1}
    series = {of if "{" in of else f"{of}{{{labels}}}": values for of, values in told.items()}
    asked = [
        {"expr": firing + "}", "eval_time": f"{60 * minute:.0f}s", "exp_samples": [sample] * fires}
        for minute, fires in zip(minutes, (0, 1, 0), strict=True)
    ]
    inputs = [{"series": of, "values": values} for of, values in series.items()]
    return {"name": f"{name} {told}", "interval": "1m", "input_series": inputs, "promql_expr_test": asked}


def test_each_alert_fires_and_ends_with_the_series_it_is_about(tmp_path: Path):
    assert {name for name, *_ in PLAYED} == ALERTS.keys()
    tests = {"rule_files": [str(RULES)], "evaluation_interval": "15s", "tests": [played(*one) for one in PLAYED]}
    (tmp_path / "played.yml").write_text(json.dumps(tests))
    command = ["promtool", "test", "rules", "played.yml"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
