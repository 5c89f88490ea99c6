"""Do the pages that read what is asked for show it safely, and refuse what the caller may not see?"""

import json
import math
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from builders.console import ANYBODY, MARKUP, STRANGER, asked, followed, html

from clipper_agents.cli.evaluation_view import as_json
from clipper_agents.dead_letters.reader import Letter
from clipper_agents.status.query_history import LoggedFeedback, LoggedQuery, QueryHistory
from clipper_gateway.console.history import ApplicationSeries
from clipper_gateway.console.page import Page
from clipper_gateway.console.pages import Pages, read_report, series_json
from clipper_gateway.errors import Refusal
from clipper_stream.evaluation.results import CandidateResult, Estimate, Evaluation
from clipper_topics.catalogue import Catalogue
from clipper_topics.connection import KafkaConnection
from clipper_topics.dead_letter import DeadLetter
from clipper_topics.examples import LABEL, PREDICTION

pytestmark = pytest.mark.anyio

RESULT = CandidateResult(
    name=MARKUP, kind="model", headline="ips", estimates={"ips": Estimate(value=0.25)}, warnings=[MARKUP]
)
EVALUATION = Evaluation(
    application="digits",
    since_ms=0,
    until_ms=1_700_000_000_000,
    decisions=50,
    with_feedback=49,
    confidence=0.95,
    logged=replace(RESULT, name="exp3", kind="logged"),
    candidates=(RESULT,),
    notes=(MARKUP,),
)
SAID = DeadLetter(exception="a.b.UndecodableRecord", message=MARKUP, topic="clipper.queries", partition=3, offset=41)
LETTER = Letter(position=7, at_ms=2**62, key=b"\x00\xff", value=MARKUP.encode(), headers=((MARKUP, b"x"),), said=SAID)


class History:
    """Knows one query; notes what it is asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []

    async def read(self, query_id: str, application: str | None, partition: int, *, since_ms: int) -> QueryHistory:
        self.asked.append((query_id, application, partition, since_ms > 0))
        if query_id != "order-7":
            return QueryHistory(complete=False)
        prediction = msgspec.structs.replace(PREDICTION, output=MARKUP, served_propensity=0.975)
        feedback = LoggedFeedback(LABEL, 12, prediction.queried_at_ms, "applied")
        return QueryHistory(
            query=LoggedQuery(3, 41, prediction.queried_at_ms), prediction=prediction, feedback=(feedback,)
        )


class Site:
    """The pages of a deployment without Kafka, with a folder of reports."""

    def __init__(self, folder: Path) -> None:
        self.view, self.queries, self.reports = followed(), History(), folder / "reports"
        self.reports.mkdir()
        catalogue, kafka = Catalogue(), KafkaConnection("127.0.0.1:9")
        self.pages = Pages(self.view, self.queries, kafka, catalogue, self.reports, lambda: 4)  # type: ignore[arg-type]

    async def page(self, at: str, **request: Any) -> Page:
        return await self.pages.builders[at](asked(**request))


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.mark.parametrize("path", sorted(Pages.live))
async def test_until_the_topics_are_read_every_live_page_says_that_it_loads(path: str, site: Site) -> None:
    site.view.is_read = False
    page = await site.page(path)
    assert page.template == "loading.html"
    assert 'aria-busy="true"' in html(page)
    assert "data-live" in html(page)


# --- dead letters -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("path", ["/dead-letters", "/dead-letters/{position}"], ids=["list", "one"])
async def test_a_key_for_some_applications_sees_no_dead_letter(path: str, site: Site) -> None:
    with pytest.raises(Refusal) as refused:
        await site.page(path, caller=STRANGER, path={"position": "7"})
    assert refused.value.status == 403


def test_a_dead_letter_is_text_or_a_hex_dump_and_never_markup() -> None:
    shown = html(Page(template="dead_letter.html", title="Dead letter 7", data={"letter": LETTER, "can_operate": True}))
    assert "00000000  00 ff" in shown
    assert "<img src=x" not in shown
    assert shown.count("&lt;img src=x") == 4
    assert "4611686018427387904 ms" in shown


def test_of_a_long_value_the_beginning_is_shown() -> None:
    page = {"letter": replace(LETTER, value=b"a" * 2**20), "can_operate": False}
    shown = html(Page(template="dead_letter.html", title="Dead letter 7", data=page))
    assert len(shown) < 20_000
    assert "and 1044480 bytes more" in shown


@pytest.mark.parametrize(("said", "boxes"), [(SAID, 1), (None, 0)], ids=["letter", "no-letter"])
def test_only_what_is_a_dead_letter_can_be_picked(said: DeadLetter | None, boxes: int) -> None:
    data = {"letters": [replace(LETTER, said=said)], "topic": "", "error": "", "before": 7, "can_operate": True}
    shown = html(Page(template="dead_letters.html", title="Dead letters", data=data))
    assert shown.count('type="checkbox"') == boxes
    assert "before=7" in shown


# --- replay reports ---------------------------------------------------------------------------------------------------
async def test_reports_are_the_newest_first_and_other_files_are_said_to_be_none(site: Site) -> None:
    for at_s, (name, text) in enumerate({"old.json": as_json(EVALUATION), "new.json": "{}"}.items()):
        (site.reports / name).write_text(text)
        os.utime(site.reports / name, (at_s, at_s))
    page = await site.page("/reports")
    assert [(name, one is None) for name, one in page.data["reports"]] == [("new.json", True), ("old.json", False)]
    assert "This is no report" in html(page)
    assert not (await site.page("/reports", caller=STRANGER)).data["reports"]


async def test_a_report_is_read_as_it_was_written(site: Site) -> None:
    (site.reports / "a.json").write_text(as_json(EVALUATION))
    found = read_report(site.reports / "a.json")
    assert found is not None
    assert math.isnan(found.logged.loss.low)
    assert json.dumps(asdict(found)) == json.dumps(asdict(EVALUATION))
    shown = html(await site.page("/reports/{file}", path={"file": "a.json"}))
    assert "0.2500" in shown
    assert "<img src=x" not in shown


@pytest.mark.parametrize("name", ["../a.json", "nobody.json", "x.json"], ids=["outside", "missing", "broken"])
async def test_a_report_that_is_not_in_the_folder_or_no_report_is_refused(name: str, site: Site) -> None:
    (site.reports.parent / "a.json").write_text(as_json(EVALUATION))
    (site.reports / "x.json").write_text("[" * 100_000)
    with pytest.raises(Refusal) as refused:
        await site.page("/reports/{file}", path={"file": name})
    assert refused.value.status == 404


async def test_without_reports_the_page_says_how_to_make_one(site: Site) -> None:
    assert "clipper-stream replay evaluate" in html(await site.page("/reports"))


# --- one query --------------------------------------------------------------------------------------------------------
async def test_a_query_shows_its_life_its_decision_and_its_feedback(site: Site) -> None:
    shown = html(await site.page("/queries", id="order-7", context="user-42"))
    assert site.queries.asked == [("order-7", None, 0, True)]
    for part in (
        "partition 3, offset 41",
        "answered after 10\xa0ms",
        "feedback: applied",
        "0.9750",
        "svm:1",
        "forest:2",
    ):
        assert part in shown
    assert "&lt;img src=x" in shown
    assert "<img src=x" not in shown


async def test_an_unknown_query_says_that_the_logs_were_not_read_whole(site: Site) -> None:
    assert "not read whole in time" in html(await site.page("/queries", id="nobody"))


async def test_a_key_for_some_applications_has_to_name_one_of_them(site: Site) -> None:
    for application in ("", "digits"):
        with pytest.raises(Refusal):
            await site.page("/queries", caller=STRANGER, id="order-7", application=application)
    assert not site.queries.asked


# --- charts -----------------------------------------------------------------------------------------------------------
def test_of_a_series_only_what_is_new_is_sent() -> None:
    versions = {"svm:1": {"loss": [None, 0.25, None]}}
    series = ApplicationSeries(step_s=10, times_s=[10, 20, 30], values={"p50_ms": [1.0, 2.0, 3.0]}, versions=versions)
    assert json.loads(series_json(series)) == {
        "step_s": 10,
        "times_s": [10, 20, 30],
        "values": {"p50_ms": [1.0, 2.0, 3.0]},
        "versions": {"svm:1": {"loss": [None, 0.25, None]}},
    }
    assert json.loads(series_json(series, 20.0))["times_s"] == [30]


def test_who_may_act_is_offered_a_resend_and_nobody_else() -> None:
    for may in (True, False):
        page = Page(template="dead_letter.html", title="Dead letter 7", data={"letter": LETTER, "can_operate": may})
        assert ("/console/actions/resend/preview" in html(page, ANYBODY)) == may
