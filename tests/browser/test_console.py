"""Every page of the console, in both themes and three widths, and what may be done there, as a browser has it."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import pytest
from browser.chromium import Visitor, blemishes, chromium, look, needs_chromium, tab_to
from browser.scene import MARKUP, Scene, staged
from e2e.programs import run
from playwright.sync_api import Browser, Locator, Page, expect

from clipper_gateway.keys import revoke_key
from clipper_topics.connection import KafkaConnection

pytestmark = [pytest.mark.browser, pytest.mark.e2e, needs_chromium, pytest.mark.timeout(400)]


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
OFTEN = {"overview", "an application that fails", "a change", "a query"}
LONG = {"application", "trial", "a model", "queries"}
"""Pages of templates that another page has as well."""
MARKS = dict.fromkeys(OFTEN, ()) | dict.fromkeys(LONG, pytest.mark.long)
LOOKS = [(theme, width) for theme in ("light", "dark") for width in (1280, 360, 2560)]


def is_for_everybody(page: Page, shown: Shown) -> None:
    """Check what a page says, that nothing of it is markup, and that everybody can read and use it."""
    expect(page.get_by_role("heading", level=1)).to_have_text(shown.heading)
    for text in shown.says:
        expect(page.locator("main")).to_contain_text(text)
    expect(page.locator('img[src="x"], [onerror]')).to_have_count(0)
    assert blemishes(page) == []


@pytest.mark.parametrize("name", [pytest.param(name, marks=MARKS.get(name, pytest.mark.slow)) for name in PAGES])
def test_every_page_says_what_it_is_about_and_everybody_can_use_it(ada: Visitor, name: str) -> None:
    page = ada.open(PAGES[name].path, theme="light", width=1280)
    is_for_everybody(page, PAGES[name])
    look(page, "dark", 360)
    is_for_everybody(page, PAGES[name])


@pytest.mark.long
@pytest.mark.parametrize("name", PAGES)
def test_every_page_is_as_good_in_both_themes_and_three_widths(ada: Visitor, name: str, tmp_path: Path) -> None:
    for theme, width in LOOKS:
        page = ada.open(PAGES[name].path, theme=theme, width=width)
        is_for_everybody(page, PAGES[name])
        page.screenshot(path=tmp_path / f"{theme}-{width}.png", full_page=True)
        page.close()


REFLECTED = {
    "a name that is looked for": ("/console?q={}", 200),
    "a model that is looked for": ("/console/models?q={0}&model={0}", 200),
    "changes of what there is not": ("/console/changes?application={}", 200),
    "dead letters that are looked for": ("/console/dead-letters?topic={0}&error={0}", 200),
    "a query that is looked for": ("/console/queries?id={0}&application={0}&context={0}", 200),
    "an application that there is not": ("/console/applications/{}", 404),
    "a report that there is not": ("/console/reports/{}", 404),
    "a page that there is not": ("/console/{}", 404),
}


@pytest.mark.long
@pytest.mark.parametrize("case", REFLECTED)
def test_what_an_address_says_is_text(ada: Visitor, case: str) -> None:
    path, status = REFLECTED[case]
    page = ada.open(path.format(quote(f'"><script>alert(1)</script>{MARKUP}')))
    if status != 200:
        ada.forgive(status)
    expect(page.locator('img[src="x"], [onerror], script:not([src])')).to_have_count(0)
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    assert blemishes(page) == []


@pytest.mark.long
def test_the_theme_that_somebody_chooses_is_kept(ada: Visitor) -> None:
    page = ada.open(theme="light")
    toggle = page.get_by_role("button", name="Dark")
    colours = [page.locator("body").evaluate("one => getComputedStyle(one).backgroundColor")]
    toggle.click()
    for _ in range(2):
        expect(toggle).to_have_attribute("aria-pressed", "true")
        colours.append(page.locator("body").evaluate("one => getComputedStyle(one).backgroundColor"))
        page.reload()
    page.evaluate("localStorage.clear()")
    assert colours[0] != colours[1] == colours[2]


# --- actions --------------------------------------------------------------------------------------------------------
def version(page: Page, ref: str) -> Locator:
    """The row of a version on the page of an application."""
    return page.get_by_role("row").filter(has=page.get_by_role("rowheader", name=ref, exact=True))


def confirmed(page: Page, title: str, why: str) -> None:
    """Do what the dialog shows, and close it."""
    dialog = page.get_by_role("dialog", name=title)
    expect(dialog.get_by_label("Difference")).to_contain_text("->")
    dialog.get_by_label("Reason").fill(why)
    assert blemishes(page) == []
    dialog.get_by_role("button", name="Do it").click()
    expect(page.get_by_role("heading", name="Done")).to_be_visible()
    assert blemishes(page) == []
    page.get_by_role("dialog").get_by_role("button", name="Close").click()
    expect(page.get_by_role("dialog")).to_have_count(0)


def newest_change(ada: Visitor, application: str) -> Locator:
    return ada.open(f"/console/changes?application={application}").locator("tbody tr").first


def test_a_version_is_promoted_by_the_keyboard_alone(ada: Visitor) -> None:
    page = ada.open("/console/applications/chooses")
    promote = version(page, "twin:1").get_by_role("button", name="Promote")
    tab_to(page, promote)
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name="Promote twin:1 at chooses")
    expect(dialog.get_by_label("Difference")).to_contain_text("twin:1")
    page.wait_for_function("document.activeElement.closest('dialog') !== null")
    tab_to(page, dialog.get_by_label("Reason"))
    page.keyboard.type("as good, and <b>cheaper</b>")
    tab_to(page, dialog.get_by_role("button", name="Do it"))
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Done")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(version(page, "twin:1").get_by_role("cell").first).to_have_text("live")  # by itself
    row = newest_change(ada, "chooses")
    expect(row).to_contain_text("ada via console")
    expect(row).to_contain_text("as good, and <b>cheaper</b>")


@pytest.mark.long
def test_a_trial_is_aborted_and_that_is_rolled_back(ada: Visitor) -> None:
    page = ada.open("/console/applications/blends")
    version(page, "late-sum:1").get_by_role("button", name="Abort").click()
    confirmed(page, "Abort the trial of late-sum:1 at blends", "too late")
    expect(version(page, "late-sum:1")).to_have_count(0)
    page.get_by_role("button", name="Roll back").click()
    confirmed(page, "Roll blends back", "it was not")
    expect(version(page, "late-sum:1").get_by_role("cell").first).to_contain_text("shadow")
    row = newest_change(ada, "blends")
    for text in ("ada via console", "rollback", "it was not"):
        expect(row).to_contain_text(text)


@pytest.mark.long
def test_weights_are_set_back_to_those_of_a_revision(ada: Visitor, scene: Scene) -> None:
    trial = ("model", "shadow", "sum:1", "--application", "slow", "--why", "a second one")
    assert run(*trial, folder=scene.deployment.folder, environ=scene.deployment.environ).code == 0
    expect(version(ada.open("/console/applications/slow"), "sum:1")).to_be_visible()  # the gateway has read of it
    page = ada.open("/console/changes?application=slow&revision=2")
    page.get_by_role("button", name="Set weights back to then").click()
    dialog = page.get_by_role("dialog", name="Set the weights of slow back to revision 2")
    expect(dialog).to_contain_text("late-sum:1 weight")
    dialog.get_by_role("button", name="Do it").click()
    expect(page.get_by_role("dialog", name="Done")).to_contain_text("restore r-")


@pytest.mark.long
def test_dead_letters_are_sent_once_more(ada: Visitor, scene: Scene) -> None:
    page = ada.open("/console/dead-letters?topic=queries")
    page.get_by_role("checkbox", name="Position 0", exact=True).check()
    page.get_by_role("button", name="Resend what is picked").click()
    dialog = page.get_by_role("dialog", name="Send 1 dead letter once more")
    expect(dialog.locator(".diff .add")).to_have_text(re.compile(rf"\+ 0 +{scene.catalogue.queries}"))
    dialog.get_by_role("button", name="Do it").click()
    expect(page.get_by_role("dialog", name="Done")).to_contain_text(f"0: sent to {scene.catalogue.queries}")


@pytest.mark.long
def test_what_somebody_else_has_done_meanwhile_is_shown_and_nothing_is_done(ada: Visitor, scene: Scene) -> None:
    page = ada.open("/console/applications/picks")
    version(page, "late-sum:1").get_by_role("button", name="Promote").click()
    dialog = page.get_by_role("dialog", name="Promote late-sum:1 at picks")
    expect(dialog.get_by_label("Difference")).to_contain_text("late-sum:1")
    trial = ("model", "canary", "flaky:1", "--application", "picks", "--share", "0.1")
    assert run(*trial, folder=scene.deployment.folder, environ=scene.deployment.environ).code == 0
    before = scene.control()
    dialog.get_by_role("button", name="Do it").click()
    expect(dialog.get_by_role("alert")).to_contain_text("Nothing was done")
    dialog.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("dialog")).to_have_count(0)
    ada.forgive(409)
    assert scene.control() == before


# --- who may do what ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("origin", ["http://127.0.0.1", pytest.param("http://other.example", marks=pytest.mark.long)])
def test_a_form_of_another_origin_is_refused_and_nothing_is_written(ada: Visitor, scene: Scene, origin: str) -> None:
    """The first is the same site as the console, so that its cookie is sent."""
    before, change = scene.control(), {"application": "picks", "model": "twin:1", "seen": "2", "why": "a game"}
    forms = {
        "actions/promote": change,
        "actions/promote/preview": change,
        "actions/resend": {"position": "1", "again": "1"},
        "login": {"key": scene.keys["grace"]},
        "logout": {},
    }
    url = f"{scene.gateway.http}/console"
    assert ada.forge(origin, {f"{url}/{path}": fields for path, fields in forms.items()}) == [403] * len(forms)
    assert scene.control() == before
    expect(ada.open().locator(".who")).to_have_text("ada")  # as before


@pytest.mark.long
def test_who_may_only_look_finds_no_button_and_is_refused_without_one(browser: Browser, scene: Scene) -> None:
    with Visitor(browser, scene.gateway.http) as grace:
        grace.sign_in(scene.keys["grace"])
        before, buttons = scene.control(), set()
        for shown in PAGES.values():
            page = grace.open(shown.path)
            buttons |= {one.strip() for one in page.get_by_role("button").all_inner_texts()}
            page.close()
        assert buttons == {"Dark", "Sign out", "Find", "Show", "copy"}
        page = grace.open("/console/applications/picks")
        refused = page.evaluate(
            """async () => {
              const token = JSON.parse(document.body.getAttribute("hx-headers"))["x-csrf-token"];
              const body = new URLSearchParams({application: "picks", model: "twin:1", seen: "2"});
              const how = {method: "POST", body, headers: {"x-csrf-token": token}};
              const answer = await fetch("/console/actions/promote", how);
              return [answer.status, await answer.text()];
            }"""
        )
        grace.forgive(403)
        assert (refused[0], "has no right" in refused[1]) == (403, True)
        assert scene.control() == before
        assert grace.complaints == []


@pytest.mark.long
def test_a_key_is_asked_for_and_ends_the_session_when_it_is_revoked(browser: Browser, scene: Scene) -> None:
    with Visitor(browser, scene.gateway.http) as guest:
        page = guest.open("/console/models")
        assert blemishes(page) == []
        for key, says in (("cs_" + "A" * 43, "unknown or revoked"), (scene.keys["guest"], "")):
            page.get_by_label("API key").fill(key)
            page.get_by_role("button", name="Sign in").click()
            expect(page.get_by_role("status").first).to_contain_text(says or "live")
        expect(page.get_by_role("heading", level=1)).to_have_text("Overview")
        guest.forgive(401)
        revoke_key(scene.keys_file, "guest", 1)
        expect(page.get_by_role("heading", level=1)).to_have_text("Sign in")  # by itself
        page.get_by_label("API key").fill(scene.keys["guest"])
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("status")).to_contain_text("unknown or revoked")
        guest.forgive(401)
        assert guest.complaints == []
