import itertools
import signal
from contextlib import contextmanager

import pytest
from builders.status import row
from e2e.any_client import AnyClient
from e2e.console_forms import Browser, hidden_in
from e2e.gateways import FREE_PORTS, client_of, events, serves
from e2e.programs import Program, environment_of
from integration.test_model_commands import CONFIGURATION
from kafka_fixture import temporary_topics

from clipper_agents import exits
from clipper_gateway.keys import make_key, revoke_key
from clipper_topics.dead_letter import dead_letter_headers

RIGHTS = {"ada": ["read", "operate"], "grace": ["read"]}


@contextmanager
def gateway(kafka, catalogue, folder):
    file, usual = folder / "keys.json", {"applications": None, "rate": None, "now_ms": 0}
    keys = {name: make_key(file, name, rights=rights, **usual) for name, rights in RIGHTS.items()}
    environ = environment_of(kafka, catalogue, **FREE_PORTS, CLIPPER_GATEWAY_KEYS_FILE=str(file))
    with Program("gateway", folder=folder / "gateway", environ=environ) as program:
        url = program.ready()["http"]
        serves(url)
        yield Operators(kafka, catalogue, program, url, file, keys)


class Operators:
    """Whose console operators use, and the topics behind it."""

    def __init__(self, kafka, catalogue, program, url, file, keys):
        self.program, self.url, self.file, self.keys, self.catalogue = program, url, file, keys, catalogue
        self.client = AnyClient(kafka.bootstrap)

    @contextmanager
    def browser(self, name):
        with client_of(self.url) as client:
            yield Browser(client, self.keys[name])

    @contextmanager
    def followed(self, name):
        """The events of the overview, as one who has signed in gets them."""
        with client_of(self.url) as client:
            Browser(client, self.keys[name])
            with client.stream("GET", "/console/live", params={"page": "/console"}) as stream:
                assert stream.headers["content-type"].startswith("text/event-stream")
                yield events(stream.iter_lines())

    @contextmanager
    def nothing_written(self):
        """The block leaves the topics that actions write to as they are."""
        topics = [self.catalogue.control, self.catalogue.feedback, self.catalogue.queries]
        before = self.client.written(*topics)
        yield
        assert self.client.written(*topics) == before

    def learned(self, application, count):
        """Have the routers' table say that so much was learned about the first version."""
        key, value = row(0, {f"{application}-svm:1": (count, 0.5)}, application=application)
        self.client.send(self.catalogue.selection_changelog, value, key=key, partition=0)


@pytest.fixture(scope="module")
def catalogue(kafka):
    with temporary_topics(kafka) as own:
        yield own


@pytest.fixture(scope="module")
def operators(kafka, catalogue, tmp_path_factory):
    with gateway(kafka, catalogue, tmp_path_factory.mktemp("operators")) as operators:
        yield operators


NUMBERS = itertools.count()


@pytest.fixture
def name(shell):
    name = f"digits-{next(NUMBERS)}"
    named = CONFIGURATION.replace('"digits"', f'"{name}"').replace('"svm', f'"{name}-svm')
    (shell.folder / "clipper.toml").write_text(named)
    shell("apply")
    return name


def deploy(shell, name, version, *more):
    shell("model", "deploy", f"{name}-svm:{version}", "--uri", "acme.models:svm", "-a", name, "--unchecked", *more)


def test_a_version_goes_through_its_life_from_the_console_and_the_history_tells(operators, shell, name):
    first, second, third = (f"{name}-svm:{number}" for number in "123")
    deploy(shell, name, "2", "--stage", "canary")
    deploy(shell, name, "3")
    with operators.browser("ada") as ada:
        with operators.nothing_written():
            shown, form = ada.preview("promote", application=name, model=second)
        assert f"Promote {second} at {name}" in shown
        assert (form["seen"], form["application"], form["model"]) == (["3"], [name], [second])
        confirmed = {**form, "why": "earned it"}
        done = f"application {name} revision 4: promote {second}"
        assert done in ada.post("promote", confirmed).text
        with operators.nothing_written():
            assert done in ada.post("promote", confirmed).text
        assert f"revision 5: abort {third}" in ada.do("abort", "too slow", application=name, model=third)
        assert f"revision 6: retire {first}" in ada.do("retire", application=name, model=first)
        undone = ada.do("rollback", "not yet", application=name)
        assert f"undone: {name} revision 6: retire {first} by ada via console" in undone
        assert "selection state restored (r-" in undone
        assert f"undone: {name} revision 4: promote {second}" in ada.do("rollback", application=name, to_revision=3)
    history = shell.json("application", "history", name)
    assert [(one["revision"], one["by"], one["command"], one.get("why")) for one in history] == [
        (1, "ada", "create", None), (2, "ada", "canary", None), (3, "ada", "shadow", None),
        (4, "ada via console", "promote", "earned it"), (5, "ada via console", "abort", "too slow"),
        (6, "ada via console", "retire", None), (7, "ada via console", "rollback", "not yet"),
        (8, "ada via console", "rollback", None),
    ]  # fmt: skip


def test_what_was_changed_meanwhile_is_shown_and_nothing_is_written(operators, shell, name):
    second = f"{name}-svm:2"
    deploy(shell, name, "2", "--stage", "canary")
    fields = {"promote": {"model": second}, "abort": {"model": second}, "rollback": {}}
    with operators.browser("ada") as ada:
        forms = {action: ada.preview(action, application=name, **more)[1] for action, more in fields.items()}
        shell("model", "canary", second, "--share", "0.5")
        with operators.nothing_written():
            for action, form in forms.items():
                stale = ada.post(action, form)
                assert (stale.status_code, "Nothing was done" in stale.text) == (409, True), action
                assert hidden_in(stale.text)["seen"] == ["3"]
            stale = ada.post("abort", forms["abort"])
        assert "0.5" in stale.text
        assert f"revision 4: abort {second}" in ada.post("abort", hidden_in(stale.text)).text


def test_dead_letters_are_sent_once_a_confirmation(operators):
    catalogue, feedback = operators.catalogue, b'{"query_id": "0-1", "loss": 0}'

    first, foreign, second = (
        operators.client.send(
            catalogue.dead_letters, feedback, key=b"ada",
            headers=dict(dead_letter_headers(topic, 1, 41, ValueError("no such thing"))),
        ).offset
        for topic in (catalogue.feedback, "somebody.else", catalogue.feedback)
    )  # fmt: skip
    with operators.browser("ada") as ada:
        shown, form = ada.preview("resend", position=[first, foreign, second])
        assert f"{foreign} is not sent: " in shown
        for _ in range(2):
            assert ada.post("resend", form).text.count(f"sent to {catalogue.feedback}[1]") == 2
        assert f"{first}: sent to" in ada.do("resend", position=first)
    assert [one.value for one in operators.client.read(catalogue.feedback)].count(feedback) == 3


def test_a_forged_request_and_a_missing_right_write_nothing(operators, shell, name):
    """test_sessions and test_actions of tests/unit/gateway/console have the other forms and rights."""
    deploy(shell, name, "2", "--stage", "canary")
    promote = {"application": name, "model": f"{name}-svm:2", "seen": "2", "number": "1"}
    path = "/console/actions/promote"
    with operators.nothing_written():
        for user, headers in (("ada", {"origin": "http://127.0.0.1:1"}), ("grace", {})):
            with operators.browser(user) as browser:
                assert browser.post("promote", promote, **headers).status_code == 403, user
        with client_of(operators.url) as stranger:
            assert stranger.post(path, data=promote).status_code == 401
    with client_of(operators.url, **{"x-api-key": operators.keys["ada"]}) as script:
        assert f"revision 3: promote {name}-svm:2" in script.post(path, data=promote).text


def test_a_page_is_followed_until_its_key_is_revoked_or_the_gateway_ends(kafka, catalogue, tmp_path):
    with gateway(kafka, catalogue, tmp_path) as own:
        with own.followed("ada") as of_ada, own.followed("grace") as of_grace:
            for found in (of_ada, of_grace):
                assert next(found)["event"] == "regions"
            revoke_key(own.file, "ada", 1)
            assert {each["event"] for each in of_ada} <= {"regions", "beat"}
            assert next(of_grace)
            with client_of(own.url) as client:
                refused = client.post("/console/login", data={"key": own.keys["ada"]})
                assert (refused.status_code, "unknown or revoked" in refused.text) == (401, True)
            own.program.signal(signal.SIGTERM)
            assert {each["event"] for each in of_grace} <= {"regions", "beat"}
            assert own.program.ended() == exits.OK
        assert not any(key in own.program.log for key in own.keys.values())
