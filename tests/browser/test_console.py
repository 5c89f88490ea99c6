"""Every page of the console, in both themes and three widths, and what may be done there, as a browser has it."""

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from browser.chromium import Visitor, blemishes, chromium, look, needs_chromium, tab_to, version
from browser.scene import MARKUP, Scene, staged
from e2e.programs import run
from playwright.sync_api import Locator, Page, expect

from clipper_gateway.keys import revoke_key
from clipper_topics.connection import KafkaConnection

pytestmark = [pytest.mark.browser, pytest.mark.e2e, needs_chromium, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def scene(kafka: KafkaConnection, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with staged(kafka, tmp_path_factory.mktemp("console")) as scene:
        yield scene


@pytest.fixture(scope="module")
def profile(scene: Scene) -> Iterator[Visitor]:
    """The browser is closed before the scene: what ends that calls `asyncio.run`."""
    with chromium() as browser, Visitor(browser, scene.gateway.http) as ada:
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
CONTEXT = f"id={quote(MARKUP)}&context={quote(MARKUP)}"
OFTEN, SLOW, LONG = (), pytest.mark.slow, pytest.mark.long
PAGES: dict[str, tuple[Any, str, tuple[str, ...]]] = {
    # a path below /console: how often it is looked at, its heading, and what it says besides
    "": (OFTEN, "Overview", (f"host {MARKUP} of model raising:1 failed: {MARKUP}",)),
    "/applications/picks": (LONG, "picks", ("twin:1", MARKUP)),
    "/applications/marked": (OFTEN, "marked", (f"failed: {MARKUP}",)),
    "/applications/picks/trials/twin:1": (LONG, "Trial of twin:1", ("margin",)),
    "/applications/picks/trials/flaky:1": (SLOW, "Trial of flaky:1", (MARKUP,)),
    "/models": (SLOW, "Models and hosts", (f"host {MARKUP} failed: {MARKUP}",)),
    "/models?model=sum:1": (LONG, "Models and hosts", ("Used by",)),
    "/changes": (SLOW, "Changes", (MARKUP,)),
    "/changes?application=marked&revision=1": (OFTEN, "Revision 1 of marked", (MARKUP,)),
    "/dead-letters": (SLOW, "Dead letters", ("UndecodableRecord",)),
    "/dead-letters/0": (SLOW, "Dead letter 0", (MARKUP,)),
    "/queries": (LONG, "One query", ()),
    "/docs/README.md": (LONG, "Documentation", ("Use the console",)),
    "/docs/how-to/use-the-console.md": (SLOW, "Use the console", ("no sign-in",)),
    f"/queries?{CONTEXT}": (OFTEN, f"Query {MARKUP}", (f"ValueError: {MARKUP}",)),
}
LOOKS = [("light", 1280), ("dark", 360), ("light", 360), ("dark", 1280), ("light", 2560), ("dark", 2560)]
VISITS = [pytest.param(path, LOOKS[:2], marks=marks) for path, (marks, *_) in PAGES.items() if marks is not LONG]
VISITS += [pytest.param(path, LOOKS, marks=LONG) for path in PAGES]


@pytest.mark.parametrize(("path", "looks"), VISITS)
def test_every_page_says_what_it_is_about_without_markup_and_everybody_can_use_it(
    ada: Visitor, path: str, looks: list[tuple[str, int]]
) -> None:
    _, heading, says = PAGES[path]
    page = ada.open(f"/console{path}")
    for theme, width in looks:
        look(page, theme, width)
        if looks is LOOKS:
            page.reload()
            ada.settled(page)
        expect(page.get_by_role("heading", level=1)).to_have_text(heading)
        for text in says:
            expect(page.locator("main")).to_contain_text(text)
        expect(page.locator('img[src="x"], [onerror]')).to_have_count(0)
        assert blemishes(page) == [], (theme, width)


REFLECTED = (
    *("?q={}", "/models?q={0}&model={0}", "/changes?application={}", "/dead-letters?topic={0}&error={0}"),
    *("/queries?id={0}&application={0}&context={0}", "/applications/{}", "/{}"),
)


@pytest.mark.long
@pytest.mark.parametrize("path", REFLECTED)
def test_what_an_address_says_is_text(ada: Visitor, path: str) -> None:
    page = ada.open("/console" + path.format(quote(f'"><script>alert(1)</script>{MARKUP}')))
    if path.endswith("/{}"):
        ada.forgive(404)
    expect(page.locator('img[src="x"], [onerror], script:not([src])')).to_have_count(0)
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    assert blemishes(page) == []


# --- actions --------------------------------------------------------------------------------------------------------
def done(
    page: Page, press: Locator, title: str, shows: str | re.Pattern[str], *, why: str = "", says: str = ""
) -> None:
    """Press a button, look at the difference that its dialog shows, have it done, and close it."""
    press.click()
    dialog = page.get_by_role("dialog", name=title)
    expect(dialog.get_by_label("Difference")).to_contain_text(shows)
    if why:
        dialog.get_by_label("Reason").fill(why)
    assert blemishes(page) == []
    dialog.get_by_role("button", name="Do it").click()
    expect(page.get_by_role("heading", name="Done")).to_be_visible()
    expect(page.get_by_role("dialog")).to_contain_text(says)
    assert blemishes(page) == []
    page.get_by_role("dialog").get_by_role("button", name="Close").click()
    expect(page.get_by_role("dialog")).to_have_count(0)


def newest_change_says(ada: Visitor, application: str, *texts: str) -> None:
    row = ada.open(f"/console/changes?application={application}").locator("tbody tr").first
    for text in ("ada via console", *texts):
        expect(row).to_contain_text(text)


def by_hand(scene: Scene, trial: str) -> None:
    """Begin a trial by the command line."""
    done = run(*f"model {trial}".split(), folder=scene.deployment.folder, environ=scene.deployment.environ)
    assert done.code == 0, done


def test_a_version_is_promoted_by_the_keyboard_alone(ada: Visitor) -> None:
    page = ada.open("/console/applications/chooses")
    tab_to(page, version(page, "twin:1").get_by_role("button", name="Promote"))
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
    newest_change_says(ada, "chooses", "as good, and <b>cheaper</b>")


@pytest.mark.long
def test_a_trial_is_aborted_and_that_is_rolled_back(ada: Visitor) -> None:
    page = ada.open("/console/applications/blends")
    late = version(page, "late-sum:1")
    abort, back = late.get_by_role("button", name="Abort"), page.get_by_role("button", name="Roll back")
    done(page, abort, "Abort the trial of late-sum:1 at blends", "->", why="too late")
    expect(late).to_have_count(0)
    done(page, back, "Roll blends back", "->", why="it was not")
    expect(late.get_by_role("cell").first).to_contain_text("shadow")
    newest_change_says(ada, "blends", "rollback", "it was not")


@pytest.mark.long
def test_dead_letters_are_sent_once_more(ada: Visitor, scene: Scene) -> None:
    page, queries = ada.open("/console/dead-letters?topic=queries"), scene.deployment.catalogue.queries
    page.get_by_role("checkbox", name="Position 0", exact=True).check()
    press = page.get_by_role("button", name="Resend what is picked")
    done(page, press, "Send 1 dead letter once more", re.compile(rf"\+ 0 +{queries}"), says=f"0: sent to {queries}")


@pytest.mark.long
def test_what_somebody_else_has_done_meanwhile_is_shown_and_nothing_is_done(ada: Visitor, scene: Scene) -> None:
    page = ada.open("/console/applications/picks")
    version(page, "late-sum:1").get_by_role("button", name="Promote").click()
    dialog = page.get_by_role("dialog", name="Promote late-sum:1 at picks")
    expect(dialog.get_by_label("Difference")).to_contain_text("late-sum:1")
    by_hand(scene, "canary flaky:1 --application picks --share 0.1")
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
        "actions/resend": {"position": "1"},
        "login": {"key": scene.keys["grace"]},
        "logout": {},
    }
    url = f"{scene.gateway.http}/console"
    assert ada.forge(origin, {f"{url}/{path}": fields for path, fields in forms.items()}) == [403] * len(forms)
    assert scene.control() == before
    expect(ada.open().locator(".who")).to_have_text("ada")  # as before


@pytest.mark.long
def test_who_may_only_look_finds_no_button_that_changes_anything(profile: Visitor, scene: Scene) -> None:
    with Visitor(profile.browser, scene.gateway.http) as grace:
        grace.sign_in(scene.keys["grace"])
        buttons = set[str]()
        for path in PAGES:
            page = grace.open(f"/console{path}")
            buttons |= {one.strip() for one in page.get_by_role("button").all_inner_texts()}
            page.close()
        assert buttons == {"Sign out", "Find", "Show", "copy"}
        assert grace.complaints == []


@pytest.mark.long
def test_a_key_is_asked_for_and_ends_the_session_when_it_is_revoked(profile: Visitor, scene: Scene) -> None:
    with Visitor(profile.browser, scene.gateway.http) as guest:
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
