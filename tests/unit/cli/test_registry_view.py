"""How models, applications and their history are shown, and a manifest is read from options."""

import pytest

from clipper_agents.cli import registry_view
from clipper_agents.cli.model_target import manifest_of
from clipper_agents.cli.terminal import say
from clipper_agents.control.state import Manifests
from clipper_stream.errors import InvalidSetting
from clipper_topics.change import Change
from clipper_topics.host_report import HostReport
from clipper_topics.manifests import ApplicationManifest, InputSpec, ModelManifest, Trial

LIVE = ModelManifest(name="svm", uri="m:f")
NEW = ModelManifest(name="svm", version="2", uri="m:f", colocated=True)
OLD = ModelManifest(name="svm", version="0", uri="m:f", retired=True)
DIGITS = ApplicationManifest(
    name="digits", models=["svm:1"], trials=[Trial(model="svm:2", stage="canary", share=0.05, automatic=True)]
)
PUBLISHED = Manifests(applications={"digits": DIGITS}, models={each.ref: each for each in (NEW, LIVE, OLD)})


@pytest.fixture
def shown(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "150")

    def run(show, *arguments):
        show(*arguments)
        return [line.rstrip() for line in capsys.readouterr().out.splitlines()]

    return run


def test_each_version_is_shown_with_its_stage_at_each_application(shown):
    lines = shown(registry_view.print_models, PUBLISHED)
    assert [" ".join(line.split()) for line in lines] == [
        "model runtime hosts stages",
        "svm:0 python 1 retired",
        "svm:1 python 1 digits: live",
        "svm:2 python in routers digits: canary 5% automatic",
    ]
    assert shown(registry_view.print_models, Manifests()) == ["no models"]


def test_the_history_tells_when_who_what_why_and_the_evidence(shown):
    changes = [
        Change(application="digits", revision=1, command="create", at_ms=0, by="ada"),
        Change(
            application="digits", revision=2, command="step", model="svm:2", at_ms=60_000, by="rollout",
            why="better",
            numbers={
                "scores": 120, "waiting": 7, "since_s": 40, "upto_s": 59,
                "trial_feedbacks": 90, "trial_loss": 0.1, "answer_feedbacks": 90, "answer_loss": 0.112345678,
                "difference": -0.012345678, "lower": -0.03, "upper": 0.005, "of": {"a:1": 1},
            },
        ),
    ]  # fmt: skip
    assert [" ".join(line.split()) for line in shown(registry_view.print_history, changes)] == [
        "revision when who what why numbers",
        "1 1970-01-01 00:00:00 ada create - -",
        (
            "2 1970-01-01 00:01:00 rollout step svm:2 better 120 queries 00:00:40Z to 00:00:59Z, 7 open, "
            "trial loss 0.1 of 90"
        ),
        "feedbacks, answer loss 0.11 of 90 feedbacks, difference -0.012 [-0.03,",
        "0.005], of a:1 1",
    ]


def test_what_a_terminal_would_obey_is_escaped(shown):
    change = Change(application="digits", revision=1, command="create", at_ms=0, by="\x1b[31mada", why="[bold]why")
    line = shown(registry_view.print_history, [change])[1]
    assert r"\x1b[31mada" in line
    assert "[bold]why" in line
    failed = HostReport(model="svm:2", instance="a", state="failed", reason="no\nfile")
    assert shown(lambda: say(registry_view.report_line(failed))) == [r"host a failed: no\nfile"]


def test_options_win_over_the_table_of_their_version_in_a_file(tmp_path):
    file = tmp_path / "models.toml"
    file.write_text(
        '[[model]]\nname = "svm"\nuri = "a:b"\n[[model]]\nname = "svm"\nversion = "2"\nuri = "m.skops"\n'
        'runtime = "sklearn"\nreplicas = 3\ninput = { dtype = "uint8" }\n'
    )
    assert manifest_of("svm:2", {"replicas": 1, "shape": [64], "dtype": None}, file) == ModelManifest(
        name="svm", version="2", uri=str(tmp_path / "m.skops"), runtime="sklearn", replicas=1,
        input=InputSpec(dtype="uint8", shape=[64]),
    )  # fmt: skip
    assert manifest_of("svm:2", {"uri": "m:f"}) == ModelManifest(name="svm", version="2", uri="m:f")


def test_a_file_has_the_runtime_of_its_name_and_the_row_of_the_application(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    row = InputSpec(dtype="uint8", shape=[64])
    found = manifest_of("rf:1", {"uri": "rf.skops"}, row=row)
    assert (found.runtime, found.uri, found.input) == ("sklearn", str(tmp_path / "rf.skops"), row)
    other = manifest_of("rf:1", {"uri": "rf.skops", "runtime": "joblib", "dtype": "int64"}, row=row)
    assert (other.runtime, other.input) == ("joblib", InputSpec(dtype="int64", shape=[64]))
    with pytest.raises(InvalidSetting, match="known file: give --runtime, one of python, sklearn"):
        manifest_of("rf:1", {"uri": "rf.bin"})


@pytest.mark.parametrize(
    ("refused", "said"),
    [
        (lambda: manifest_of("svm:2", {}), "model svm:2 has no uri: give --uri, or --manifest FILE"),
        (lambda: manifest_of("SVM:2", {"uri": "m:f"}), "model SVM:2: name = 'SVM': expected str of lower case"),
        (lambda: manifest_of("svm", {"uri": "m:f"}), "model svm: version = '': expected str of letters"),
        (lambda: manifest_of("svm:2", {"uri": "m:f", "shape": [2**30]}), "has 1073741824 elements"),
    ],
)
def test_a_manifest_that_is_none_is_refused_with_its_key(refused, said):
    with pytest.raises(InvalidSetting, match=said):
        refused()


def test_a_file_without_that_model_is_refused(tmp_path):
    file = tmp_path / "models.toml"
    file.write_text('[[model]]\nname = "other"\nuri = "a:b"\n')
    with pytest.raises(InvalidSetting, match=r"0 \[\[model\]\] tables are named 'svm': one of version '2'"):
        manifest_of("svm:2", {}, file)
