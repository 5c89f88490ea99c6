"""Do the pages that follow a deployment show what it is, to those who may see it, with every name as text?"""

from typing import Any

import pytest
from builders.console import ANYBODY, MARKUP, READER, STRANGER, asked, followed, html, renderer
from builders.status import DIGITS, NOW_S, report

from clipper_gateway.console import live_pages
from clipper_gateway.console.follower import LiveView
from clipper_gateway.console.page import Page, PageRequest
from clipper_gateway.console.pages import LIVE_PAGES
from clipper_gateway.errors import Refusal
from clipper_topics import codec
from clipper_topics.change import Change
from clipper_topics.control_keys import change_key, key_of
from clipper_topics.drift import DriftEvent
from clipper_topics.examples import DRIFT
from clipper_topics.manifests import ApplicationManifest

OF_DIGITS = {"name": "digits", "ref": "rf:2"}
EACH = {path or "overview": make for path, make in LIVE_PAGES.items()}


@pytest.fixture
def view() -> LiveView:
    return followed()


def change(view: LiveView, revision: int, **fields: Any) -> None:
    """A change of `digits` is read."""
    one = Change(
        **{"application": "digits", "command": "update", "by": "ada", "revision": revision, "at_ms": 1, **fields}
    )
    view.facts.control(change_key("digits", revision), codec.changes.encode(one))


def drift_found(view: LiveView, **fields: Any) -> None:
    one = DriftEvent(
        **{**{name: getattr(DRIFT, name) for name in DRIFT.__struct_fields__}, "at_ms": int(1000 * NOW_S), **fields}
    )
    view.facts.control(key_of(one), codec.drifts.encode(one))


@pytest.mark.parametrize("name", EACH)
def test_every_page_names_what_is_declared_and_links_to_it(name: str, view: LiveView) -> None:
    drift_found(view)
    page = EACH[name](view, asked(path=OF_DIGITS))
    shown = html(page)
    assert 'href="/console/applications/digits"' in shown
    assert shown.count("<h1>") == 1
    assert set(renderer().regions(page)) == {"live_state", *regions_in(shown)} - {""}


def regions_in(shown: str) -> set[str]:
    return {part.split('"')[0] for part in shown.split('id="')[1:] if part.startswith("live_")}


@pytest.mark.parametrize("name", EACH)
def test_what_somebody_else_wrote_is_text_on_every_page(name: str, view: LiveView) -> None:
    change(view, 5, by=MARKUP, why=MARKUP, model="rf:2", numbers={MARKUP: 0.5})
    drift_found(view, context=MARKUP, detector=MARKUP)
    report(view.facts, "svm:1", MARKUP, "failed", MARKUP)
    view.stale_reason = MARKUP
    page = EACH[name](view, asked(path=OF_DIGITS, q=MARKUP.lower()))
    for shown in (html(page), "".join(renderer().regions(page).values())):
        assert "<img src=x" not in shown
        assert "&lt;img src=x" in shown


def test_the_overview_says_what_is_wrong_with_the_command_that_mends_it(view: LiveView) -> None:
    shown = html(live_pages.overview(view, asked()))
    assert "no module named shop" in shown
    assert "<code>clipper-stream apply</code>" in shown
    assert 'href="/console/models?model=rf%3A2"' in shown


def test_an_empty_deployment_says_how_to_begin(view: LiveView) -> None:
    view.facts.control(key_of(DIGITS), None)
    shown = html(live_pages.overview(view, asked()))
    assert "No application is declared" in shown
    assert "clipper-stream apply" in shown


def test_a_search_that_finds_nothing_says_so(view: LiveView) -> None:
    assert "No application has “nobody” in its name" in html(live_pages.overview(view, asked(q="nobody")))


def test_a_long_list_is_cut_into_sheets_that_keep_the_search(view: LiveView) -> None:
    for number in range(2 * live_pages.APPLICATIONS):
        one = ApplicationManifest(name=f"app-{number:04}", models=["svm:1"])
        view.facts.control(key_of(one), codec.applications.encode(one))
    page = live_pages.overview(view, asked(q="app", sheet="2"))
    assert [one.name for one in page.data["sheet"].rows] == [f"app-{number:04}" for number in range(200, 400)]
    assert "?q=app&amp;sheet=1" in html(page)


def test_stale_figures_say_since_when(view: LiveView) -> None:
    view.stale_reason = "no broker answers since 22:13:00Z"
    shown = renderer().regions(live_pages.overview(view, asked()))["live_state"]
    assert "no broker answers since 22:13:00Z" in shown
    assert "2023-11-14 22:13:20" in shown


def test_an_application_shows_each_version_with_what_may_be_done_to_it(view: LiveView) -> None:
    shown = html(live_pages.application(view, asked(path=OF_DIGITS)))
    for action, model in (("retire", "svm:1"), ("promote", "rf:2"), ("abort", "nn:3")):
        form = next(part for part in shown.split("<form")[1:] if f"/{action}/preview" in part and model in part)
        assert '<input type="hidden" name="application" value="digits">' in form
        assert '<input type="hidden" name="csrf" value="t0ken">' in form
    assert "canary 5\xa0%" in shown
    assert "0.100 <small>[0.055, 0.174]</small>" in shown


def test_who_may_not_act_sees_no_button(view: LiveView) -> None:
    page = live_pages.application(view, asked(READER, OF_DIGITS))
    assert "/preview" not in html(page, READER)


def test_live_regions_hold_no_token_of_a_session(view: LiveView) -> None:
    regions = renderer().regions(live_pages.application(view, asked(path=OF_DIGITS)))
    assert "/console/actions/abort/preview" in regions["live_versions"]
    assert "csrf" not in "".join(regions.values())


def test_a_trial_shows_where_it_stands_and_what_comes_next(view: LiveView) -> None:
    shown = html(live_pages.trial(view, asked(path=OF_DIGITS)))
    assert '<li class="here" aria-current="step">canary 5\xa0%' in shown
    assert "becomes a canary of 25 % of the queries" in " ".join(shown.split())
    assert "with at least 50 feedbacks" in " ".join(shown.split())
    assert "upper end -0.010 below 0.02" in shown


def test_a_trial_that_is_not_automatic_waits_for_somebody(view: LiveView) -> None:
    shown = html(live_pages.trial(view, asked(path={"name": "digits", "ref": "nn:3"})))
    assert "Nothing happens by itself" in shown
    assert '<li class="here" aria-current="step">shadow' in shown


def test_a_trial_that_has_ended_shows_how(view: LiveView) -> None:
    shown = html(live_pages.trial(view, asked(path={"name": "digits", "ref": "old:1"})))
    assert "is not on trial any more" in shown
    assert "worst of three" in shown


@pytest.mark.parametrize(
    ("make", "path", "query"),
    [
        (live_pages.application, {"name": "nobody"}, {}),
        (live_pages.trial, {"name": "digits", "ref": "nobody:1"}, {}),
        (live_pages.changes, {}, {"application": "digits", "revision": "99"}),
    ],
    ids=["application", "trial", "change"],
)
def test_what_is_not_there_is_refused(
    make: object, path: dict[str, str], query: dict[str, str], view: LiveView
) -> None:
    with pytest.raises(Refusal) as refused:
        make(view, PageRequest(caller=ANYBODY, path=path, query=query))  # type: ignore[operator]
    assert refused.value.status == 404


def test_a_change_shows_the_difference_that_it_made(view: LiveView) -> None:
    before = ApplicationManifest(name="digits", models=["svm:1"])
    change(view, 7, before=before, after=DIGITS)
    shown = html(live_pages.changes(view, asked(application="digits", revision="7")))
    assert '<span class="add">+    &#34;knn:1&#34;</span>' in shown
    assert 'name="revision" value="7"' in shown


def test_changes_are_the_newest_first(view: LiveView) -> None:
    page = live_pages.changes(view, asked())
    assert [one.revision for one in page.data["sheet"].rows] == [4, 3, 2]


@pytest.mark.parametrize("name", ["overview", "/models", "/changes", "/drift"])
def test_a_key_for_others_sees_nothing_of_an_application(name: str, view: LiveView) -> None:
    drift_found(view)
    page: Page = EACH[name](view, asked(STRANGER))
    for shown in (html(page, STRANGER), "".join(renderer().regions(page).values())):
        for secret in ("digits", "svm:1", "rf:2", "ada", "shop"):
            assert secret not in shown
