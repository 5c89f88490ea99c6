import asyncio
import os
import pty
import subprocess
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import skops.io
from builders.router_deployment import report
from e2e.programs import CLIPPER_STREAM, until
from sklearn.linear_model import LogisticRegression

from clipper_agents import exits
from clipper_agents.control.rollback import roll_back
from clipper_agents.control.state import read_control
from clipper_agents.kafka.topics import existing_topics
from clipper_topics import codec
from clipper_topics.control_keys import change_key
from clipper_topics.host_report import HostReport
from clipper_topics.restore import digests_of, markers_of
from clipper_topics.selection_rows import SavedRow

ROW = 'input = { dtype = "float64", shape = [4] }'
CONFIGURATION = """
[[application]]
name = "digits"
models = ["svm:1"]
objective_ms = 200
default_output = { label = -1 }

[[model]]
name = "svm"
uri = "acme.models:svm"
"""
PIXELS = CONFIGURATION.replace('"digits"', '"pixels"').replace("[[model]]", ROW + "\n[[model]]") + ROW
NEW = ("--uri", "acme.models:svm", "--application", "digits", "--unchecked")


@pytest.fixture(autouse=True)
def configuration(tmp_path):
    (tmp_path / "clipper.toml").write_text(CONFIGURATION)
    (tmp_path / "pixels.toml").write_text(PIXELS)


def test_a_version_goes_from_shadow_to_live_and_back_and_the_history_tells(shell, kafka, catalogue):
    assert shell("apply") == ["model svm:1", "application digits revision 1: create"]
    deployed = shell("model", "deploy", "svm:2", *NEW, "--share", "0.5", "--replicas", "2", "--why", "more pixels")
    assert deployed == ["model svm:2", "application digits revision 2: shadow svm:2"]
    assert asyncio.run(existing_topics(kafka, catalogue.prefix))[catalogue.requests("svm", "2")] == 2
    canary = ("model", "canary", "svm:2", "--share", "0.1")
    assert shell(*canary, "--by", "bob") == ["application digits revision 3: canary svm:2"]
    assert shell(*canary) == ["nothing changed"]
    stale = ("model", "promote", "svm:2", "--revision", "2")
    shell(*stale, code=exits.FAILURE, said="error: application digits is at revision 3, you saw 2: ")
    shell("model", "promote", "svm:2", "--revision", "3")
    retired = shell("model", "retire", "svm:1", "--why", "worse")
    assert retired == ["model svm:1 retired", "application digits revision 5: retire svm:1"]
    shell("model", "retire", "svm:2", code=exits.FAILURE, said="error: svm:2 is the last live version of application")
    assert [line.split() for line in shell("model", "list")] == [
        ["model", "runtime", "hosts", "stages"],
        ["svm:1", "python", "1", "retired"],
        ["svm:2", "python", "2", "digits:", "live"],
    ]
    undone, *told, state = shell("model", "rollback", "-a", "digits")
    assert undone == "undone: digits revision 5: retire svm:1 by ada: worse"
    assert told == ["model svm:1", "application digits revision 6: rollback"]
    assert state.startswith("selection state restored (r-")
    assert [(one["revision"], one["by"], one["command"], one.get("why")) for one in
            shell.json("application", "history", "digits")] == [
        (1, "ada", "create", None), (2, "ada", "shadow", "more pixels"), (3, "bob", "canary", None),
        (4, "ada", "promote", None), (5, "ada", "retire", "worse"), (6, "ada", "rollback", None),
    ]  # fmt: skip


def test_applications_are_created_shown_updated_and_deleted_and_come_back(shell):
    shell("apply")
    made = ("application", "create", "shop", "--model", "svm:1", "--field", "objective_ms=50")
    assert shell(*made, "--field", 'policy={"name": "exp4"}') == ["application shop revision 1: create"]
    assert shell("application", "update", "shop", "--field", "loss=absolute") == ["application shop revision 2: update"]
    (shown,) = shell.json("application", "show", "shop")
    assert (shown["objective_ms"], shown["loss"], shown["policy"]) == (50, "absolute", {"name": "exp4"})
    assert [line.split()[:2] for line in shell("application", "list")] == [
        ["application", "revision"], ["digits", "1"], ["shop", "2"]
    ]  # fmt: skip
    assert shell("application", "delete", "shop", "--why", "moved") == ["application shop revision 3: delete"]
    shell("application", "show", "shop", code=exits.FAILURE, said="error: no application 'shop': there are digits")
    assert shell("model", "rollback", "-a", "shop")[:2] == [
        "undone: shop revision 3: delete by ada: moved", "application shop revision 4: rollback"
    ]  # fmt: skip
    for field, code, said in (
        ("nothing=1", exits.FAILURE, "use one of"),
        ("loss", exits.USAGE, "write KEY=VALUE"),
        ('drift={"nose": 1}', exits.FAILURE, "nose"),
        ('drift={"delta": 7}', exits.FAILURE, "delta"),
    ):
        assert shell("application", "update", "shop", "--field", field, code=code, said=said) == []
    shell("application", "update", "shop", "--field", 'drift={"delta": 0.01}')


def test_a_planned_trial_says_beforehand_how_long_it_takes_and_keeps_its_shadow_share(shell):
    shell("apply")
    shell("application", "update", "digits", "--field", 'rollout={"plan": {"feedbacks": 5000}}')
    deployed = shell.run("model", "deploy", "svm:2", *NEW, "--stage", "canary", "--automatic")
    assert deployed.err[-1].startswith("the plan of trial svm:2 has no end that is known: no feedback comes now")
    shell("model", "canary", "svm:2", "--share", "0.1", "--shadow-share", "0.25")
    shell("model", "canary", "svm:2", "--share", "0.2")
    (shown,) = shell.json("application", "show", "digits")
    kept = {"share": 0.2, "automatic": True, "shadow_share": 0.25}
    assert shown["trials"] == [{"model": "svm:2", "stage": "canary", **kept}]


def test_what_is_exported_is_applied_without_a_change_and_prune_takes_away_the_rest(shell):
    shell("apply")
    shell("model", "deploy", "svm:2", *NEW, "--stage", "canary")
    shell("export", "--out", "registry.toml")
    assert shell("apply", "-f", "registry.toml", "--prune", "--dry-run") == ["nothing would change"]
    assert shell("apply", "-f", "registry.toml", "--prune") == ["nothing changed"]
    shown = [
        "~ application digits",
        '    trials [{"model":"svm:2","stage":"canary","share":0.05}] -> []',
        "- model svm:2",
    ]
    assert shell("apply", "--prune", "--dry-run") == shown
    assert [line.split()[0] for line in shell("model", "list")] == ["model", "svm:1", "svm:2"]
    pruned = shell("apply", "--prune", "--why", "as before")
    assert pruned == [*shown, "application digits revision 3: update", "model svm:2 withdrawn"]
    assert shell("apply", "-f", "registry.toml")[-2:] == ["model svm:2", "application digits revision 4: update"]


def answered_on_a_terminal(folder, arguments, answer, meanwhile):
    """What a command shows before it asks somebody who sits there; its exit code, and what it says of errors then."""
    ours, theirs = pty.openpty()
    command, pipe = [CLIPPER_STREAM, *arguments], subprocess.PIPE
    with subprocess.Popen(command, cwd=folder, stdin=theirs, stdout=theirs, stderr=pipe, text=True) as process:
        os.close(theirs)
        printed = ""
        while "[y/N]:" not in printed:
            printed += os.read(ours, 4096).decode()
        meanwhile()
        os.write(ours, f"{answer}\n".encode())
        _, errors = process.communicate(timeout=60)
    os.close(ours)
    return printed.rstrip().splitlines(), process.returncode, errors.strip()


def test_on_a_terminal_the_difference_is_shown_first_and_nothing_else_is_applied(shell):
    shell("apply")
    (shell.folder / "changed.toml").write_text(CONFIGURATION.replace("200", "300"))

    def applied(answer, meanwhile=lambda: None):
        ended = answered_on_a_terminal(shell.folder, ("apply", "--config", "changed.toml"), answer, meanwhile)
        return *ended, shell.json("application", "show", "digits")[0]["objective_ms"]

    shown, code, _, objective_ms = applied("n")
    what = ["~ application digits", "    objective_ms 200 -> 300"]
    assert shown == [*what, "apply this? [y/N]:"]
    assert (code, objective_ms) == (exits.FAILURE, 200)
    told = "error: somebody has changed the registry since the difference was shown: apply again"
    change = partial(shell, "application", "update", "digits", "--field", "objective_ms=250")
    assert applied("y", change)[1:] == (exits.FAILURE, told, 250)
    assert applied("y")[1:] == (exits.OK, "", 300)


@pytest.mark.parametrize(("state", "reason"), [("ready", None), ("failed", "no file")])
def test_a_deploy_waits_for_the_first_host_and_tells_why_it_failed(shell, kafka, catalogue, state, reason):
    def say(*reports):
        asyncio.run(report(kafka, catalogue, *reports))

    def serve():
        until("it is published", lambda: "svm:2" in asyncio.run(read_control(kafka, catalogue)).manifests.models)
        say(
            HostReport(model="svm:1", instance="other", state="failed", reason="another version"),
            HostReport(model="svm:2", instance="new", state="starting"),
            HostReport(model="svm:2", instance="new", state=state, reason=reason),
        )

    shell("apply")
    say(HostReport(model="svm:2", instance="old", state="failed", reason="before"))
    with ThreadPoolExecutor() as host:
        serving = host.submit(serve)
        ended = shell.run("model", "deploy", "svm:2", *NEW, "--wait", "30")
        serving.result(30)
    last = f"host new {state}" + (f": {reason}" if reason else "")
    assert ended.code == (exits.FAILURE if reason else exits.OK)
    first, *between, end = ended.err
    assert (first, end) == ("host old failed: before", last)
    assert between in ([], ["host new starting"]), "what is not the newest of its host any more is not told"
    assert shell("model", "show", "svm:2")[-1].startswith(f"host new {state}")
    again = shell.run("model", "deploy", "svm:2", *NEW, "--wait", "30")
    assert (again.code, again.err[-1]) == (ended.code, last), "what is known since the deploy ends the wait at once"


def test_a_deploy_publishes_nothing_that_does_not_load_here(shell, kafka, catalogue):
    shell("apply")
    here = ("model", "deploy", "svm:2", "--uri", "models_of_the_shell:svm", "-a", "digits")
    said = "error: model svm:2: model 'models_of_the_shell:svm'"
    shell(*here, code=exits.SETUP, said=said)
    assert [line.split()[0] for line in shell("model", "list")] == ["model", "svm:1"]
    assert catalogue.requests("svm", "2") not in asyncio.run(existing_topics(kafka, catalogue.prefix))
    (shell.folder / "models_of_the_shell.py").write_text("def svm(rows):\n    return rows.sum(axis=1)\n")
    assert shell(*here) == ["model svm:2", "application digits revision 2: shadow svm:2"]


def test_a_file_is_deployed_with_the_runtime_and_the_row_that_it_needs_and_deleted(shell):
    shell("apply", "--config", "pixels.toml")
    skops.io.dump(LogisticRegression().fit([[0.0] * 4, [1.0] * 4], [0, 1]), shell.folder / "rf.skops")
    assert shell("model", "deploy", "rf:1", "--uri", "rf.skops", "-a", "pixels")[0] == "model rf:1"
    (shown,) = shell.json("model", "show", "rf:1")
    assert (shown["manifest"]["runtime"], shown["manifest"]["input"]) == ("sklearn", {"dtype": "float64", "shape": [4]})
    shell("model", "delete", "rf:1", code=exits.FAILURE, said="error: rf:1 is used by application pixels: `clipper-")
    shell("model", "retire", "rf:1")
    assert shell("model", "delete", "rf:1") == ["model rf:1 withdrawn"]
    shell("model", "show", "rf:1", code=exits.FAILURE, said="error: no model rf:1; there are svm:1")
    other = ("--uri", "acme.models:other", "--unchecked", "-a", "pixels")
    assert shell("model", "deploy", "rf:1", *other)[0] == "model rf:1"


def test_a_deploy_that_no_host_follows_says_so(shell):
    shell("apply")
    waiting = ("model", "deploy", "svm:2", *NEW, "--wait", "0.2")
    shell(*waiting, code=exits.FAILURE, said="error: no host of svm:2 is ready")


def test_a_rollback_brings_back_the_selection_state_of_before_the_change(shell, kafka, catalogue, at):
    shell("apply")
    shell("model", "deploy", "svm:2", *NEW)
    rows = [SavedRow(partition=1, totals={"svm:1": (3.0, 1.0, 3.0, 1.0)})]

    async def learned_and_rolled_back():
        """As if the routers had learned something before the last change."""
        change = (await read_control(kafka, catalogue)).history("digits")[2]
        change.rows = rows
        await at.send(catalogue.control, codec.changes.encode(change), key=change_key("digits", 2))
        done = await roll_back(kafka, catalogue, "digits")
        return change, done, await read_control(kafka, catalogue)

    change, done, control = asyncio.run(learned_and_rolled_back())
    (declared,) = control.restores.values()
    assert (done.undone, done.selection_state) == ((change,), f"restored ({declared.restore_id})")
    restore = declared.restore
    assert (restore.application, restore.by, restore.why) == ("digits", "ada", "rollback to revision 1")
    assert restore.digests == digests_of(markers_of("digits", rows, catalogue.partitions))
    assert control.manifests.applications["digits"].revision == 3
