"""Pages that stay open: figures move by themselves, and it is told when Kafka goes away and when it is back."""

import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from browser.chromium import Visitor, chromium, needs_chromium
from browser.scene import CONFIGURATION, RATE
from e2e.any_client import AnyClient
from e2e.gateways import PARTITIONS, Deployment, deployed
from e2e.traffic import Traffic
from playwright.sync_api import Browser, Locator, Page, expect

from clipper_agents.broker import EmbeddedBroker

pytestmark = [pytest.mark.browser, pytest.mark.e2e, pytest.mark.long, needs_chromium, pytest.mark.timeout(600)]

HEAP_MIB = 256
DRAWN = """(figure) => {
  const canvas = figure.querySelector("canvas"), key = figure.querySelector(".legend line");
  if (!canvas || !key) return false;
  const colour = key.getAttribute("stroke").match(/../g) && key.getAttribute("stroke").slice(1).match(/../g);
  const wanted = colour.map((part) => parseInt(part, 16));
  const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d", { willReadFrequently: true });
  copy.drawImage(canvas, 0, 0);
  const found = copy.getImageData(0, 0, canvas.width, canvas.height).data;
  for (let at = 0; at < found.length; at += 4)
    if (found[at + 3] === 255 && wanted.every((value, part) => found[at + part] === value)) return true;
  return false;
}"""
"""Whether a chart has a pixel of the colour of its first line."""


@pytest.fixture(scope="module")
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker(heap_mib=HEAP_MIB) as broker:
        yield broker


@pytest.fixture(scope="module")
def deployment(broker: EmbeddedBroker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """With a gateway that asks for no key."""
    folder = tmp_path_factory.mktemp("live")
    (folder / "marked.py").write_text("def raising(rows):\n    raise ValueError\n")
    with (
        deployed(broker.connection, folder, CONFIGURATION, CLIPPER_GATEWAY_ENABLED="true") as deployment,
        AnyClient(broker.bootstrap) as client,
        Traffic(client, deployment.catalogue.prefix, PARTITIONS, RATE),
    ):
        yield deployment


@pytest.fixture(scope="module")
def browser(deployment: Deployment) -> Iterator[Browser]:
    """Closed before the deployment: what ends that calls `asyncio.run`."""
    with chromium() as browser:
        yield browser


@pytest.fixture
def visitor(browser: Browser, deployment: Deployment) -> Iterator[Visitor]:
    with Visitor(browser, deployment.url) as visitor:
        yield visitor
        assert visitor.complaints == []


def figure(page: Page, label: str) -> Locator:
    """The value of a tile."""
    return page.locator(".tiles > div", has_text=label).first.locator("dd")


def moves(page: Page, shown: Locator) -> None:
    """Wait until a figure is another one."""
    before = shown.inner_text()
    expect(shown).not_to_have_text(before)
    expect(shown).to_contain_text("/s")


def test_figures_move_and_the_focus_stays_without_a_reload(visitor: Visitor) -> None:
    page = visitor.open()
    page.evaluate("window.isTheSame = true")
    link = page.get_by_role("rowheader", name="picks").get_by_role("link")
    link.focus()
    row = page.get_by_role("row").filter(has=link)
    before = row.inner_text()
    moves(page, figure(page, "Queries"))
    expect(row).not_to_have_text(before)
    expect(link).to_be_focused()
    assert page.evaluate("window.isTheSame")


def test_what_is_typed_stays_while_figures_move(visitor: Visitor) -> None:
    page = visitor.open()
    search = page.get_by_label("Name")
    search.press_sequentially("pic")
    moves(page, figure(page, "Queries"))
    search.press_sequentially("ks")
    expect(search).to_have_value("picks")
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
    with page.expect_response("**/console/series/picks?*after=*") as later:
        assert later.value.ok
    page.get_by_label("48 h").check()
    expect(chart.locator("canvas")).to_be_visible()


def elsewhere(work: Callable[[], object]) -> None:
    """Where no loop runs."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(work).result()


OUTAGES: dict[str, tuple[Callable[[EmbeddedBroker], object], Callable[[EmbeddedBroker], object]]] = {
    "frozen": (lambda broker: broker.node(1).freeze(), lambda broker: broker.node(1).thaw()),
    "killed": (lambda broker: elsewhere(lambda: broker.stop(kill=True)), lambda broker: elsewhere(broker.start)),
}
"""How a broker goes away, and how it comes back."""


@pytest.mark.parametrize("outage", OUTAGES)
def test_a_broker_that_goes_away_is_told_and_pages_are_live_again_when_it_is_back(
    visitor: Visitor, broker: EmbeddedBroker, outage: str
) -> None:
    goes, comes = OUTAGES[outage]
    pages = [visitor.open(path) for path in ("/console", "/console/applications/picks")]
    for page in pages:
        page.evaluate("window.isTheSame = true")
    goes(broker)
    try:
        for page in pages:
            expect(page.locator("#connection")).to_have_attribute("data-state", "stale")
            expect(page.locator("[data-stale]")).to_contain_text(re.compile(r"no broker answers since \d\d:\d\d:\d\dZ"))
        expect(pages[0].get_by_role("rowheader", name="picks")).to_be_visible()  # what was known still stands there
    finally:
        comes(broker)
    for page in pages:
        expect(page.locator("#connection")).to_have_attribute("data-state", "live")
        expect(page.locator("[data-stale]")).to_have_count(0)
        moves(page, figure(page, "Queries"))
        assert page.evaluate("window.isTheSame")


def test_without_keys_a_form_of_another_origin_is_refused_too(visitor: Visitor, deployment: Deployment) -> None:
    change = {"application": "picks", "model": "twin:1", "seen": "1"}
    forms = {f"{deployment.url}/console/actions/{path}": change for path in ("promote", "promote/preview")}
    for origin in ("http://127.0.0.1", "http://other.example"):
        assert visitor.forge(origin, forms) == [403, 403]
    page = visitor.open("/console/applications/picks")
    expect(page.get_by_role("row").filter(has=page.get_by_role("rowheader", name="twin:1"))).to_contain_text("canary")
