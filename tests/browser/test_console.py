"""Every page of the console, in both themes and three widths, and what may be done there, as a browser has it."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import pytest
from browser.chromium import Visitor, blemishes, chromium
from browser.scene import MARKUP, Scene, staged
from playwright.sync_api import Browser, Page, expect

from clipper_topics.connection import KafkaConnection

pytestmark = [pytest.mark.browser, pytest.mark.e2e, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def scene(kafka: KafkaConnection, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with staged(kafka, tmp_path_factory.mktemp("console")) as scene:
        yield scene


@pytest.fixture(scope="module")
def browser(scene: Scene) -> Iterator[Browser]:
    """Closed before the scene: what ends that calls `asyncio.run`."""
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def profile(scene: Scene, browser: Browser) -> Iterator[Visitor]:
    with Visitor(browser, scene.gateway.http) as ada:
        ada.sign_in(scene.keys["ada"])
        yield ada


@pytest.fixture
def ada(profile: Visitor) -> Iterator[Visitor]:
    """Who may act; nothing that her browser complains about is let pass."""
    yield profile
    complaints, profile.complaints[:] = [*profile.complaints], []
    for page in profile.context.pages:
        page.close()
    assert complaints == []


# --- every page -----------------------------------------------------------------------------------------------------
class Shown(NamedTuple):
    """A page: its path, its heading, and what it says besides."""

    path: str
    heading: str
    says: tuple[str, ...] = ()


PAGES = {
    "overview": Shown("/console", "Overview", (f"host {MARKUP} of model raising:1 failed: {MARKUP}",)),
    "application": Shown("/console/applications/picks", "picks", ("twin:1", MARKUP)),
    "an application that fails": Shown("/console/applications/marked", "marked", (f"failed: {MARKUP}",)),
    "trial": Shown("/console/applications/picks/trials/twin:1", "Trial of twin:1", ("margin",)),
    "a trial that was begun": Shown("/console/applications/picks/trials/flaky:1", "Trial of flaky:1", (MARKUP,)),
    "models": Shown("/console/models", "Models and hosts", (f"host {MARKUP} failed: {MARKUP}",)),
    "a model": Shown("/console/models?model=sum:1", "Models and hosts", ("Used by",)),
    "changes": Shown("/console/changes", "Changes", (MARKUP,)),
    "a change": Shown("/console/changes?application=marked&revision=1", "Revision 1 of marked", (MARKUP,)),
    "drift": Shown("/console/drift", "Drift", (MARKUP, "has risen")),
    "dead letters": Shown("/console/dead-letters", "Dead letters", ("UndecodableRecord",)),
    "a dead letter": Shown("/console/dead-letters/0", "Dead letter 0", (MARKUP,)),
    "reports": Shown("/console/reports", "Replay reports", (f"{MARKUP}.json", "This is no report")),
    "a report": Shown(f"/console/reports/{quote(MARKUP)}.json", f"Replay report {MARKUP}.json", (MARKUP,)),
    "queries": Shown("/console/queries", "One query"),
    "a query": Shown(
        f"/console/queries?id={quote(MARKUP)}&context={quote(MARKUP)}", f"Query {MARKUP}", (f"ValueError: {MARKUP}",)
    ),
}
LOOKS = [
    pytest.param(
        theme, width, id=f"{theme}, {width}", marks=[] if (theme, width) in (("light", 1280), ("dark", 360)) else pytest.mark.long
    )
    for theme in ("light", "dark")
    for width in (360, 1280, 2560)
]


@pytest.mark.parametrize(("theme", "width"), LOOKS)
@pytest.mark.parametrize("name", PAGES)
def test_every_page_shows_what_it_is_about_to_everybody(
    ada: Visitor, name: str, theme: str, width: int, tmp_path: Path
) -> None:
    shown = PAGES[name]
    page = ada.open(shown.path, theme=theme, width=width)
    expect(page.get_by_role("heading", level=1)).to_have_text(shown.heading)
    for text in shown.says:
        expect(page.locator("main")).to_contain_text(text)
    expect(page.locator('img[src="x"], [onerror]')).to_have_count(0)
    page.screenshot(path=tmp_path / "page.png", full_page=True)
    assert blemishes(page) == []
