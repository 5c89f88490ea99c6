"""A real Chromium, and what it finds wrong with the console's pages."""

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Locator, Page, Request, expect, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")
PROGRAM = next(filter(None, map(shutil.which, NAMES)), None)
needs_chromium = pytest.mark.skipif(
    PROGRAM is None, reason=f"none of {', '.join(NAMES)} is on the PATH: apt install chromium"
)
"""Mark of a module, so that nothing is started for tests that are skipped."""
PATIENCE_MS = 90_000
"""For whatever a page is to show; an idle machine needs a hundredth of it."""
STANDARDS = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice")
REPORTS_VIOLATIONS = """
document.addEventListener("securitypolicyviolation", (event) =>
  console.error(`the page's policy forbids ${event.violatedDirective} ${event.blockedURI} ${event.sample}`));
"""
LOADED = """() => [...document.querySelectorAll(".chart .empty:not([hidden])")].every(
  (one) => !one.textContent.startsWith("Loading"))"""
WIDER = """() => [...document.body.querySelectorAll("*")].filter((one) =>
  document.documentElement.scrollWidth > innerWidth && one.getBoundingClientRect().right > innerWidth + 1
).map((one) => one.outerHTML.slice(0, 120))"""

CUT = """() => innerWidth > 600 ? [] : [...document.querySelectorAll("td, tbody th, dd, b, time")].filter((one) => {
  const frame = one.closest(".scroll, .wide");
  const right = Math.min(innerWidth, frame ? frame.getBoundingClientRect().right : innerWidth);
  return one.getBoundingClientRect().right > right + 1 || (one.clientWidth && one.scrollWidth > one.clientWidth + 1);
}).map((one) => one.outerHTML.slice(0, 120))"""
"""What a phone shows in part, so that a number may be read as another one."""


@contextmanager
def chromium() -> Iterator[Browser]:
    """The browser of this machine, without a window.

    Playwright's loop counts as running until the end of the block: `asyncio.run` must be called before or after it,
    or by another thread.
    """
    expect.set_options(timeout=PATIENCE_MS)
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=PROGRAM, args=arguments, timeout=PATIENCE_MS) as browser,
    ):
        yield browser


class Visitor(AbstractContextManager["Visitor"]):
    """Somebody who looks at one console; as a context manager its pages are closed at the end.

    `complaints` is what the browser has reported about the pages: errors, forbidden content, dialogs of scripts, what
    was asked of other hosts.
    """

    def __init__(self, browser: Browser, url: str) -> None:
        self.browser, self._host = browser, urlsplit(url).netloc
        self.context: BrowserContext = browser.new_context(base_url=url, reduced_motion="reduce")
        self.context.set_default_timeout(PATIENCE_MS)
        self.context.add_init_script(REPORTS_VIOLATIONS)
        self.complaints: list[str] = []

    def __exit__(self, *_: object) -> None:
        self.context.close()

    def open(self, path: str = "/console", *, theme: str = "light", width: int = 1280) -> Page:
        """Open a page, and wait until it shows what it knows."""
        page = self.context.new_page()
        look(page, theme, width)
        page.on("console", self._on_console)
        page.on("pageerror", lambda error: self.complaints.append(f"{page.url}: {error}"))
        page.on("dialog", lambda dialog: self.complaints.append(f"{page.url}: a dialog: {dialog.message}"))
        page.on("request", self._on_request)
        page.goto(path)
        self.settled(page)
        return page

    def settled(self, page: Page) -> None:
        """Wait until a page is live where it is to be, and its charts are drawn."""
        if page.locator("main[data-live]").count():
            expect(page.locator("#connection")).to_have_attribute("data-state", "live")
        page.wait_for_function(LOADED)

    def sign_in(self, secret: str) -> None:
        """Sign in by an API key."""
        page = self.open("/console/login")
        page.get_by_label("API key").fill(secret)
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Overview")
        page.close()

    def forgive(self, status: int) -> None:
        """Let pass that the browser has told of answers of this status, which it must have."""
        told = [one for one in self.complaints if f"status of {status} " in one]
        assert told, self.complaints
        self.complaints[:] = [one for one in self.complaints if one not in told]

    def forge(self, origin: str, forms: Mapping[str, Mapping[str, str]]) -> list[int]:
        """Press the buttons of a page of another origin, which post fields to URLs; the statuses of their answers."""
        html = ""
        for url, fields in forms.items():
            hidden = [f'<input type="hidden" name="{name}" value="{value}">' for name, value in fields.items()]
            html += f'<form method="post" action="{url}">{"".join(hidden)}<button>A game</button></form>'
        page, statuses = self.context.new_page(), []
        page.route(f"{origin}/**", lambda route: route.fulfill(content_type="text/html", body=html))
        for number in range(len(forms)):
            page.goto(f"{origin}/")
            with page.expect_navigation() as navigation:
                page.get_by_role("button").nth(number).click()
            statuses.append(navigation.value.status if navigation.value else 0)
        page.close()
        return statuses

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self.complaints.append(f"{message.page.url if message.page else ''}: {message.text}")

    def _on_request(self, request: Request) -> None:
        if urlsplit(request.url).netloc != self._host and not request.url.startswith("data:"):
            self.complaints.append(f"another host was asked: {request.url}")


def look(page: Page, theme: str, width: int) -> None:
    """Look at a page in a theme of the system and a window of a width."""
    page.emulate_media(color_scheme=theme)  # type: ignore[arg-type]
    page.set_viewport_size({"width": width, "height": 900})


def version(page: Page, ref: str) -> Locator:
    """The row of a version on the page of an application."""
    return page.get_by_role("row").filter(has=page.get_by_role("rowheader", name=ref, exact=True))


def tab_to(page: Page, wanted: Locator) -> None:
    """Press the key that leads from one control to the next, until it has led to this one."""
    for _ in range(200):
        page.keyboard.press("Tab")
        if wanted.evaluate("one => one === document.activeElement"):
            return
    raise AssertionError(f"the keyboard does not lead to {wanted}")


def blemishes(page: Page) -> list[str]:
    """What the rules of accessibility forbid, what makes the page wider than its window, and what a phone cuts."""
    options: dict[str, Any] = {"resultTypes": ["violations"], "runOnly": [*STANDARDS]}
    found = Axe().run(page, options=options).response["violations"]
    broken = [f"{one['id']}, {one['help']}: {node['html'][:200]}" for one in found for node in one["nodes"]]
    broken += [f"cut: {each}" for each in page.evaluate(CUT)]
    return [*broken, *(f"beyond the window: {each}" for each in page.evaluate(WIDER))]
