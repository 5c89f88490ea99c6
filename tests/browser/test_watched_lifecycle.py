"""The example of a model's life, from its first deploy to its end, as somebody sees it who looks at the console."""

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from browser.chromium import Visitor, blemishes, chromium, needs_chromium, version
from e2e.gateways import FREE_PORTS
from e2e.programs import environment, until
from playwright.sync_api import Page, expect

pytestmark = [pytest.mark.browser, pytest.mark.e2e, pytest.mark.long, needs_chromium, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
MOST_BYTES, RATE = 150_000, 60
DECIDED_MS = 300_000.0
"""For a decision of the rule."""
STORY = [
    ("retire digits:1", "rollout"), ("update", "one is enough"), ("promote digits:2", "it is"),
    ("canary digits:2", "version 2 was better"), ("rollback", "as it was before"), ("abort digits:3", "rollout"),
    ("canary digits:3", "trained on scaled pictures"), ("promote digits:2", "rollout"), ("step digits:2", "rollout"),
    ("shadow digits:2", "trained on all pictures"), ("create", "published by"),
]  # fmt: skip
"""What the page of changes says at the end, in its order, the newest first; more steps may stand in between."""


@contextmanager
def example(folder: Path) -> Iterator[str]:
    """The example as a process, which is to come to its end; the URL of the gateway that its pipeline has."""
    settings = {"CLIPPER_GATEWAY_ENABLED": "true", "PYTHONUNBUFFERED": "1", **FREE_PORTS}
    command = [sys.executable, "examples/lifecycle/run.py", "--rate", str(RATE), "--out", folder / "report"]
    printed = folder / "printed"
    with printed.open("wb") as out:
        process = subprocess.Popen(command, cwd=ROOT, env=environment(**settings), stdout=out, stderr=out)
        try:
            ready = re.compile(r"^ready .*gateway=(\S+)", re.MULTILINE)
            (url,) = until("the pipeline is ready", lambda: ready.findall(printed.read_text()))
            yield url
            process.wait(300)
            assert (folder / "report/lifecycle.html").exists(), printed.read_text()[-4000:]
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(60)


@pytest.fixture
def picture(request: pytest.FixtureRequest, tmp_path: Path):
    """Takes a picture for the documentation, or only tries to."""
    folder = ROOT / "docs/images" if request.config.getoption("--pictures", default=False) else tmp_path

    def take(page: Page, name: str, top: str = "body") -> None:
        path = folder / f"console-{name}.png"
        page.set_viewport_size({"width": min(page.viewport_size["width"], 1200), "height": 780})
        page.locator(top).evaluate("one => one.scrollIntoView()")
        page.screenshot(path=path)
        assert path.stat().st_size <= MOST_BYTES

    return take


def test_a_models_life_is_seen_on_the_console(tmp_path: Path, picture) -> None:
    with example(tmp_path) as url, chromium() as browser, Visitor(browser, url) as visitor:
        expect.set_options(timeout=DECIDED_MS)
        overview, application = visitor.open(), visitor.open("/console/applications/digits", theme="dark")
        expect(overview.get_by_role("row").filter(has_text="digits")).to_contain_text("exp3")
        expect(version(application, "digits:1")).to_contain_text("live")
        # deployed, and compared
        expect(version(application, "digits:2")).to_contain_text("shadow")
        trial = visitor.open("/console/applications/digits/trials/digits:2")
        expect(trial.locator(".stations .here")).to_contain_text("canary 10 %")
        picture(trial, "trial")
        trial.get_by_role("button", name="Promote").click()
        dialog = trial.get_by_role("dialog", name="Promote digits:2 at digits")
        expect(dialog.get_by_label("Difference")).to_contain_text("digits:2")
        picture(trial, "dialog")
        dialog.get_by_role("button", name="Cancel").click()
        # promoted by the rule
        expect(trial.locator("#live_progress")).to_contain_text("not on trial any more")
        decisions = trial.locator("#live_decisions tbody tr")
        expect(decisions.filter(has_text="promote")).to_contain_text("rollout")
        assert decisions.filter(has_text="step").count() >= 1
        expect(version(application, "digits:2")).to_contain_text("live")
        # the bad version comes, loses, and is aborted by the rule
        expect(version(application, "digits:3")).to_contain_text("canary 10 %")
        bad = visitor.open("/console/applications/digits/trials/digits:3")
        expect(bad.locator("#live_decisions tbody tr").filter(has_text="abort")).to_contain_text("rollout")
        expect(bad.locator("#live_progress")).to_contain_text("not on trial any more")
        bad.close()
        # rolled back, tried by hand, promoted by hand
        expect(version(application, "digits:2")).to_contain_text("canary 30 %")
        picture(overview, "overview")
        narrow = visitor.open("/console/applications/digits", width=360)
        assert blemishes(narrow) == []
        picture(narrow, "narrow")
        narrow.close()
        overview.goto("/console/changes?application=digits")
        rows = overview.locator("tbody tr")
        expect(rows.filter(has_text="one is enough")).to_have_count(1)
        picture(application, "application-dark", '[aria-labelledby="versions-heading"]')
        # the worse one is retired by the rule
        expect(rows.first).to_contain_text("retire digits:1")
        expect(version(application, "digits:1")).to_contain_text("retired")
        told = iter(rows.all_inner_texts())
        assert all(any(what in row and who in row for row in told) for what, who in STORY), rows.all_inner_texts()
        assert visitor.complaints == []
