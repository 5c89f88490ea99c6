"""Pages that stay open: figures move by themselves, and it is told when Kafka goes away and when it is back."""

import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from signal import SIGCONT, SIGSTOP
from typing import NamedTuple

import pytest
from browser.chromium import Visitor, chromium, needs_chromium, version
from browser.scene import CONFIGURATION, RATE
from e2e.any_client import AnyClient
from e2e.gateways import PARTITIONS, deployed
from e2e.traffic import Traffic
from playwright.sync_api import Browser, Page, expect

from clipper_agents.broker import EmbeddedBroker

pytestmark = [pytest.mark.browser, pytest.mark.e2e, pytest.mark.long, needs_chromium, pytest.mark.timeout(600)]

DRAWN = """(figure) => {
  const canvas = figure.querySelector("canvas"), key = figure.querySelector(".legend line");
  if (!canvas || !key) return false;
  const colour = key.getAttribute("stroke").slice(1).match(/../g).map((part) => parseInt(part, 16));
  const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d", { willReadFrequently: true });
  copy.drawImage(canvas, 0, 0);
  const found = copy.getImageData(0, 0, canvas.width, canvas.height).data;
  return found.some((_, at) => at % 4 === 0 && [...colour, 255].every((value, part) => found[at + part] === value));
}"""
"""Whether a chart has a pixel of the colour of its first line."""


class Live(NamedTuple):
    """A deployment under traffic whose gateway asks for no key, its broker, and a browser."""

    broker: EmbeddedBroker
    url: str
    browser: Browser


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """The browser is closed before the deployment: what ends that calls `asyncio.run`."""
    folder = tmp_path_factory.mktemp("live")
    (folder / "marked.py").write_text("def raising(rows):\n    raise ValueError\n")
    with (
        EmbeddedBroker(heap_mib=256) as broker,
        deployed(broker.connection, folder, CONFIGURATION, CLIPPER_GATEWAY_ENABLED="true") as deployment,
        AnyClient(broker.bootstrap) as client,
        Traffic(client, deployment.catalogue.prefix, PARTITIONS, RATE),
        chromium() as browser,
    ):
        yield Live(broker, deployment.url, browser)


@pytest.fixture
def visitor(live: Live) -> Iterator[Visitor]:
    with Visitor(live.browser, live.url) as visitor:
        yield visitor
        assert visitor.complaints == []


def moves(page: Page) -> None:
    """Wait until the rate of queries is another one."""
    shown = page.locator(".tiles > div", has_text="Queries").first.locator("dd")
    expect(shown).not_to_have_text(shown.inner_text())
    expect(shown).to_contain_text("/s")


def test_figures_move_and_focus_and_what_is_typed_stay_without_a_reload(visitor: Visitor) -> None:
    page = visitor.open()
    page.evaluate("window.isTheSame = true")
    link = page.get_by_role("rowheader", name="picks").get_by_role("link")
    row = page.get_by_role("row").filter(has=link)
    link.focus()
    before = row.inner_text()
    moves(page)
    expect(row).not_to_have_text(before)
    expect(link).to_be_focused()
    search = page.get_by_role("searchbox", name="Name")
    search.press_sequentially("pic")
    moves(page)
    search.press_sequentially("ks")
    expect(search).to_have_value("picks")
    assert page.evaluate("window.isTheSame")
    search.press("Enter")
    expect(page.locator("#live_applications tbody tr")).to_have_count(1)


def test_charts_draw_what_is_known_and_more_of_it_as_it_comes(visitor: Visitor) -> None:
    page = visitor.open("/console/applications/picks")
    chart = page.locator("figure.chart", has_text="Share of the queries served")
    expect(chart.locator("canvas")).to_be_visible()
    expect(chart.locator(".legend li").first.locator("b")).to_contain_text("%")
    page.wait_for_function(f"one => ({DRAWN})(one)", arg=chart.element_handle())
    last = "() => new Set([...document.querySelectorAll('.chart .legend b')].map((one) => one.textContent)).size > 2"
    page.wait_for_function(last)
    with page.expect_response("**/console/series/picks?*") as later:
        assert later.value.ok
    page.get_by_label("48 h").check()
    expect(chart.locator("canvas")).to_be_visible()


def elsewhere(work: Callable[[], object]) -> None:
    """Where no loop runs."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(work).result()


OUTAGES: dict[str, tuple[Callable[[EmbeddedBroker], object], Callable[[EmbeddedBroker], object]]] = {
    "frozen": (lambda broker: broker.node.send(SIGSTOP), lambda broker: broker.node.send(SIGCONT)),
    "killed": (lambda broker: elsewhere(lambda: broker.stop(kill=True)), lambda broker: elsewhere(broker.start)),
}
"""How a broker goes away, and how it comes back."""


@pytest.mark.parametrize("outage", OUTAGES)
def test_a_broker_that_goes_away_is_told_and_pages_are_live_again_when_it_is_back(
    visitor: Visitor, live: Live, outage: str
) -> None:
    goes, comes = OUTAGES[outage]
    pages = [visitor.open(path) for path in ("/console", "/console/applications/picks")]
    for page in pages:
        page.evaluate("window.isTheSame = true")
    goes(live.broker)
    try:
        for page in pages:
            expect(page.locator("#connection")).to_have_attribute("data-state", "stale")
            expect(page.locator("[data-stale]")).to_contain_text(re.compile(r"no broker answers since \d\d:\d\d:\d\dZ"))
        expect(pages[0].get_by_role("rowheader", name="picks")).to_be_visible()  # what was known still stands there
        expect(pages[0].locator(".gauge.good, #live_applications .tag.good")).to_have_count(0)
    finally:
        comes(live.broker)
    for page in pages:
        expect(page.locator("#connection")).to_have_attribute("data-state", "live")
        expect(page.locator("[data-stale]")).to_have_count(0)
        moves(page)
        assert page.evaluate("window.isTheSame")


def test_without_keys_a_form_of_another_origin_is_refused_too(visitor: Visitor, live: Live) -> None:
    change = {"application": "picks", "model": "twin:1", "seen": "1"}
    forms = {f"{live.url}/console/actions/{path}": change for path in ("promote", "promote/preview")}
    for origin in ("http://127.0.0.1", "http://other.example"):
        assert visitor.forge(origin, forms) == [403, 403]
    expect(version(visitor.open("/console/applications/picks"), "twin:1")).to_contain_text("canary")
