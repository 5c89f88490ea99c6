"""The troubles of the runbooks, each done to an invented deployment, as the overview shows them in a browser."""

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from browser.chromium import Visitor, blemishes, chromium, look, needs_chromium
from browser.invented import Invented, invented
from builders.messages import DRIFT
from builders.status import DIGITS, NOW_S, compared, group, report
from msgspec.structs import replace as changed
from playwright.sync_api import Locator, Page, expect

from clipper_agents.status.model import BrokerStatus, WaitingRecords
from clipper_topics import codec
from clipper_topics.change import Change
from clipper_topics.control_keys import change_key, key_of
from clipper_topics.host_report import HostReport, report_key
from clipper_topics.prediction import Missing

pytestmark = [pytest.mark.browser, needs_chromium, pytest.mark.timeout(300)]

RUNBOOKS = Path(__file__).parents[2] / "docs/how-to/runbooks.md"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Invented]:
    with invented(tmp_path_factory.mktemp("invented")) as site:
        yield site


@pytest.fixture(scope="module")
def visitor(site: Invented) -> Iterator[Visitor]:
    with chromium() as browser, Visitor(browser, site.url) as visitor:
        yield visitor


@pytest.fixture
def healed(site: Invented) -> Invented:
    site.heal()
    return site


# --- what is done to it -----------------------------------------------------------------------------------------------
def routers_gone(site: Invented) -> None:
    """The router still says that it is ready, and its group has no member."""
    said = HostReport(model="", instance="router-0", state="ready", at_ms=int(1000 * (NOW_S - 60)), pid=76)
    site.view.facts.host(report_key("", "router-0"), codec.host_reports.encode(said))
    cluster(site, groups=[group(None), *others(site)])


def others(site: Invented) -> list[Any]:
    newest = site.view.cluster.newest
    assert newest is not None
    return [one for one in newest.groups if one.model is not None]


def cluster(site: Invented, **fields: Any) -> None:
    newest = site.view.cluster.newest
    assert newest is not None
    site.view.cluster.newest = replace(newest, **fields)


def behind(site: Invented) -> None:
    waits = WaitingRecords(topic="clipper.queries", partition=0, records=20_000, since_s=NOW_S - 45, stands_still=False)
    member = replace(group(None, "router-0").members[0], partitions={"clipper.queries": (0,)})
    late = replace(group(None, "router-0"), members=(member,), waiting=(waits,), lag={"clipper.queries": 20_000})
    cluster(site, groups=[late, *others(site)])


def hosts(site: Invented, ready: int) -> None:
    """So many hosts of svm:1 are left; the others failed."""
    names = ["host.svm.1.0", "host.svm.1.1"]
    for name in names[ready:]:
        report(site.view.facts, "svm:1", name, "failed", "out of memory")
    kept = [group("svm:1", *names[:ready]) if one.model == "svm:1" else one for one in others(site)]
    cluster(site, groups=[group(None, "router-0"), *kept])


def aborted(site: Invented) -> None:
    change = Change(
        application="digits", revision=5, command="abort", model="rf:2", by="rollout", at_ms=0, why="it lost more"
    )
    site.view.facts.control(change_key("digits", 5), codec.changes.encode(change))


def drifted(site: Invented) -> None:
    risen = changed(
        DRIFT, application="digits", model="svm:1", at_ms=int(1000 * NOW_S), loss_before=0.1, loss_after=0.6
    )
    site.view.facts.control(key_of(risen), codec.drifts.encode(risen))


def restarted(site: Invented) -> None:
    for pid in (1, 2, 3, 4):
        said = HostReport(model="svm:1", instance="host.svm.1.0", state="ready", at_ms=int(1000 * NOW_S) - 40_000 + pid)
        site.view.facts.host(report_key("svm:1", "host.svm.1.0"), codec.host_reports.encode(changed(said, pid=pid)))


def ails(text: str) -> Callable[[Invented], None]:
    def ail(site: Invented) -> None:
        said = HostReport(model="", instance="router-0", state="ready", at_ms=1, problems=[text])
        site.view.facts.host(report_key("", "router-0"), codec.host_reports.encode(said))

    return ail


def silent(site: Invented) -> None:
    site.view.stale_reason = "no broker answers since 22:13:00Z"


ERROR = [Missing(model="svm", version="1", propensity=0.5, reason="error", explanation="ValueError: no")]
Trouble = tuple[Callable[[Invented], object], str, str, str]
TROUBLES: dict[str, Trouble] = {
    # what is done, and what the overview then says: in words, of a gauge, and of the application
    "ClipperLatencyObjectiveBurnsFast": (
        lambda site: site.answer("svm:1", 900.0), "above its objective of 100 ms", "", "1 wrong",
    ),
    "ClipperLatencyObjectiveBurnsSlowly": (
        lambda site: site.answer(None, 101.0), "got the default (late 100: nothing", "Unanswered bad", "2 wrong",
    ),
    "ClipperDefaultsBurnFast": (
        lambda site: site.answer(None, reason="errors", missing=ERROR), "svm:1 failed 100 of 100 queries",
        "Unanswered bad", "2 wrong",
    ),
    "ClipperDefaultsBurnSlowly": (
        lambda site: site.answer(None, reason="no_models", missing=[]), "no_models 100", "Unanswered bad", "1 wrong",
    ),
    "ClipperNoReadyHosts": (lambda site: hosts(site, 0), "host.svm.1.1 of model svm:1 failed", "Hosts warn", "2 wrong"),
    "ClipperTrialAborted": (aborted, "revision 5: abort rf:2 by rollout: it lost more", "Hosts good", "well"),
    "ClipperDrift": (drifted, "loss of model svm:1 has risen from 0.100 to 0.600", "Hosts good", "1 wrong"),
    "ClipperProcessDown": (routers_gone, "its group does not hear of it", "Routers bad", "down"),
    "ClipperProcessesMissing": (lambda site: hosts(site, 1), "out of memory", "Hosts warn", "1 wrong"),
    "ClipperRestarts": (restarted, "host host.svm.1.0 of svm:1 is ready", "Hosts good", "well"),
    "ClipperBrokerUnreachable": (silent, "no broker answers since 22:13:00Z", "Routers unknown", "down"),
    "ClipperConsumerLag": (behind, "router-0 on 10.0.0.1 is behind", "Lag bad", "well"),
    "ClipperDeadLetters": (
        lambda site: cluster(site, dead_letters=101), "101 records could not be read", "Dead letters bad", "well",
    ),
    "ClipperClockSkew": (ails("its clock is 2.0 s ahead of the broker's"), "2.0 s ahead of", "Brokers good", "well"),
    "ClipperDiskAlmostFull": (ails("only 0.9 GB are free in data"), "only 0.9 GB are free", "Brokers good", "well"),
}  # fmt: skip
ELSEWHERE = {"ClipperGatewayErrors", "ClipperGatewayOverload"}
"""These are of a gateway's own metrics; what is behind them is one of the others."""


def overview(visitor: Visitor) -> Page:
    return visitor.open("/console")


def gauge(page: Page, label: str) -> Locator:
    return page.locator("#live_board > div").filter(has=page.locator("dt", has_text=label)).locator(".tag")


def state(page: Page) -> Locator:
    return page.get_by_role("row").filter(has=page.get_by_role("rowheader", name="digits")).locator("td .tag").first


def test_every_runbook_has_a_trouble() -> None:
    assert {*re.findall(r"^## (Clipper\w+)$", RUNBOOKS.read_text(), re.MULTILINE)} == {*TROUBLES} | ELSEWHERE


@pytest.mark.parametrize("name", TROUBLES)
def test_the_overview_says_what_is_wrong_where_and_how_badly(healed: Invented, visitor: Visitor, name: str) -> None:
    harm, says, gauged, of_application = TROUBLES[name]
    page = overview(visitor)
    expect(state(page)).to_have_text("well")
    expect(page.get_by_text("Nothing is wrong.")).to_be_visible()
    harm(healed)
    expect(page.locator("main")).to_contain_text(says)
    expect(state(page)).to_have_text(of_application)
    if gauged:
        label, _, health = gauged.rpartition(" ")
        expect(gauge(page, label)).to_have_text(health)
    is_news = name in {"ClipperTrialAborted", "ClipperRestarts"}
    expect(page.get_by_text("Nothing is wrong.")).to_have_count(1 if is_news else 0)
    expect(page.locator(".card")).to_have_count(0 if is_news else 1)
    assert blemishes(page) == []
    page.close()


WITHOUT_A_ROUTER: dict[str, Callable[[Invented], object]] = {
    "it left": lambda site: cluster(site, groups=[group(None), *others(site)]),
    "it was killed": routers_gone,
    "its group is not known": lambda site: cluster(site, groups=others(site)),
    "no broker answers": silent,
    "nothing is known yet": lambda site: setattr(site.view.cluster, "newest", None),
    "what is known is old": lambda site: cluster(site, at_s=NOW_S - 60),
    "no broker is up": lambda site: cluster(site, brokers=[BrokerStatus(node_id=1, address="a:1", reachable=False)]),
}


@pytest.mark.parametrize("how", WITHOUT_A_ROUTER)
def test_no_console_is_green_without_a_router(healed: Invented, visitor: Visitor, how: str) -> None:
    page = overview(visitor)
    expect(state(page)).to_have_text("well")
    WITHOUT_A_ROUTER[how](healed)
    expect(state(page)).to_have_text(re.compile("down|not known"))
    expect(page.get_by_text("Nothing is wrong.")).to_have_count(0)
    expect(page.locator("#live_applications .tag.good")).to_have_count(0)
    page.close()


# --- the page of a trial, charts and the frame ------------------------------------------------------------------------
FINDINGS = {
    "worse": (0.112, 0.802, ["Abort"]),
    "undecided": (-0.2, 0.3, []),
    "better": (-0.2, -0.1, ["Promote"]),
    "not worse": (-0.2, 0.01, ["Promote"]),
    "no difference that matters": (-0.01, 0.01, ["Promote"]),
}


@pytest.mark.parametrize("word", FINDINGS)
def test_a_trial_leads_with_its_verdict_which_the_buttons_follow(healed: Invented, visitor: Visitor, word: str) -> None:
    lower, upper, wanted = FINDINGS[word]
    said = compared("rf:2", finding=word, lower=lower, upper=upper)
    healed.view.facts.comparison(b"digits/rf:2", codec.comparisons.encode(said), at_s=NOW_S)
    page = visitor.open("/console/applications/digits/trials/rf:2")
    expect(page.locator("#live_verdict .word")).to_have_text(word.capitalize())
    expect(page.locator("#live_verdict")).to_contain_text(f"between {said.lower:+.3f} and {said.upper:+.3f}")
    expect(page.locator("#live_verdict .button.primary")).to_have_text(wanted)
    expect(page.get_by_role("button", name="Promote digits rf 2", exact=True)).to_be_visible()
    assert blemishes(page) == []
    page.close()


HAVE_ONE_WIDTH = "() => new Set([...document.querySelectorAll('.u-over')].map((one) => one.clientWidth)).size === 1"


def test_charts_have_one_axis_of_time_and_a_scale_that_an_outlier_does_not_flatten(
    healed: Invented, visitor: Visitor
) -> None:
    page = visitor.open("/console/applications/digits", width=2560)
    for width in (2560, 1280, 360):
        look(page, "light", width)
        page.wait_for_function(HAVE_ONE_WIDTH)
    clipped = page.locator("figure.chart", has_text="Latency of answers")
    expect(clipped).to_have_attribute("data-line", str(DIGITS.objective_ms))
    expect(clipped).to_have_attribute("data-clipped", "1")
    page.close()


def test_each_button_that_retires_has_a_name_of_its_own_and_none_is_red(healed: Invented, visitor: Visitor) -> None:
    page = visitor.open("/console/applications/digits")
    buttons = page.get_by_role("button", name="Retire")
    names = [one.get_attribute("aria-label") for one in buttons.all()]
    assert names == ["Retire digits svm 1", "Retire digits knn 1"]
    expect(page.locator(".button.danger")).to_have_count(0)
    page.close()


@pytest.mark.parametrize(("width", "height"), [(640, 450), (512, 384), (360, 640)])
def test_the_header_leaves_the_page_its_room_at_twice_the_size(
    healed: Invented, visitor: Visitor, width: int, height: int
) -> None:
    page = overview(visitor)
    page.set_viewport_size({"width": width, "height": height})
    assert page.evaluate("document.querySelector('.top').offsetHeight / innerHeight") < 0.2
    assert blemishes(page) == []
    page.close()


def test_rows_with_trouble_come_first_and_a_heading_sorts_them(healed: Invented, visitor: Visitor) -> None:
    for name in ("calm", "busy"):
        one = changed(DIGITS, name=name, trials=[])
        healed.view.facts.control(key_of(one), codec.applications.encode(one))
    drifted(healed)
    page = overview(visitor)
    names = page.locator("#live_applications tbody th")
    expect(names).to_have_text(["digits", "busy", "calm"])
    page.get_by_role("link", name="application", exact=True).click()
    expect(names).to_have_text(["busy", "calm", "digits"])
    expect(page.get_by_role("columnheader", name="application")).to_have_attribute("aria-sort", "ascending")
    page.get_by_role("link", name="queries", exact=True).click()
    expect(names).to_have_text(["digits", "busy", "calm"])
    page.close()
